package agent

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/admit"
)

// Whatever pods come to claim, how many of them want something is known.
func TestClaimsThatWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := claims{of: map[types.UID]*admit.Claim{}}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			uid := types.UID(fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "pod")))
			switch rapid.SampledFrom([]string{"wants", "holds", "goes"}).Draw(t, "step") {
			case "wants":
				c.put(uid, &admit.Claim{Wants: v1.ResourceList{}})
			case "holds":
				c.put(uid, &admit.Claim{})
			case "goes":
				c.forget(uid)
			}
			waits := 0
			for _, claim := range c.of {
				if claim.Wants != nil {
					waits++
				}
			}
			if c.waits != waits {
				t.Fatalf("%d wait, not %d", waits, c.waits)
			}
		}
	})
}
