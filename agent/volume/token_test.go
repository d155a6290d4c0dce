package volume_test

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// KEP-4412: tokens for credential providers are kept until they are due, one for
// each account and audience, and are gone with the pod.
func TestPodToken(t *testing.T) {
	m, w := newManager(t)
	p := podWith()
	ask := func(audience string, account types.UID) string {
		t.Helper()
		tok, err := m.PodToken(t.Context(), p, audience, account)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	first := ask("registry", "uid-1")
	if again := ask("registry", "uid-1"); again != first || w.account != "uid-1" {
		t.Errorf("%q, then %q, of account %q", first, again, w.account)
	}
	if other := ask("registry", "uid-2"); other == first {
		t.Error("the token of an account that is another one now")
	}
	if other := ask("vault", "uid-1"); other == first {
		t.Error("the token for another audience")
	}
	w.clock.SetTime(w.clock.Now().Add(49 * time.Minute))
	if renewed := ask("registry", "uid-1"); renewed == first {
		t.Error("the token was not renewed")
	}
	kept := ask("registry", "uid-1")
	if err := m.Unmount(p.UID); err != nil {
		t.Fatal(err)
	}
	if after := ask("registry", "uid-1"); after == kept {
		t.Error("the token outlived the pod")
	}
}
