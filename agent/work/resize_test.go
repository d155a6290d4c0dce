package work

import (
	"context"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// using is a runtime whose containers use so many bytes each.
type using struct {
	runtime.Runtime
	bytes uint64
	asked int
}

func (u *using) ContainerStats(context.Context, string) (*cri.ContainerStats, error) {
	u.asked++
	return &cri.ContainerStats{Memory: &cri.MemoryUsage{UsageBytes: &cri.UInt64Value{Value: u.bytes}}}, nil
}

// "Resize CPU and Memory Resources assigned to Containers", "Limitations": memory is
// not taken away below what is used, of a container or of the pod. What does not
// shrink is not measured.
func TestMemoryShrinksToUsageAtMost(t *testing.T) {
	limits := func(memory string) (r v1.ResourceRequirements) {
		if memory != "" {
			r.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse(memory)}
		}
		return r
	}
	const mib = 1 << 20
	for _, c := range []struct {
		before, after  string
		used           uint64
		asked, refused bool
	}{
		{"64Mi", "32Mi", 31 * mib, true, false},
		{"64Mi", "32Mi", 32 * mib, true, true},
		{"64Mi", "32Mi", 40 * mib, true, true},
		{"", "32Mi", 40 * mib, true, true},
		{"", "32Mi", 4 * mib, true, false},
		{"32Mi", "64Mi", 100 * mib, false, false},
		{"32Mi", "32Mi", 100 * mib, false, false},
		{"32Mi", "", 100 * mib, false, false},
	} {
		u := &using{bytes: c.used}
		n := &Node{Runtime: u}
		spec := &v1.Container{Name: "main", Resources: limits(c.after)}
		err := n.mayShrink(t.Context(), "id", spec, limits(c.before))
		if (u.asked > 0) != c.asked || (err != nil) != c.refused {
			t.Errorf("container %+v: asked %d times, %v", c, u.asked, err)
		}
		limit := spec.Resources.Limits.Memory()
		if want := fmt.Sprintf(`cannot decrease memory limits: attempting to set container "main" memory limit (%d) below current usage (%d)`, limit.Value(), c.used); c.refused && err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		// Of the pod, the sum counts.
		u.bytes, u.asked = c.used/2, 0
		before, after := limits(c.before), limits(c.after)
		err = n.podMayShrink(t.Context(), map[string]*v1.Container{"a": spec, "b": spec}, &before, &after)
		if (u.asked > 0) != c.asked || (err != nil) != c.refused {
			t.Errorf("pod %+v: asked %d times, %v", c, u.asked, err)
		}
		if want := fmt.Sprintf("cannot decrease memory limits: attempting to set pod memory limit (%d) below current usage (%d)", limit.Value(), c.used); c.refused && err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
