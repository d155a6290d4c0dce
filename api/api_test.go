package api_test

import (
	"slices"
	"testing"

	"hansa.dev/hansa/api"
)

// Nothing is accepted and ignored in silence: who writes a kind that nothing
// acts on is told, beside what the kind itself has to say.
func TestInertKindsWarn(t *testing.T) {
	r := &api.Resource{
		Group:    "example.com",
		Plural:   "ships",
		Warnings: func(_, _ api.Object) []string { return []string{"spec.sail: torn"} },
	}
	if got := r.Warn(nil, nil); !slices.Equal(got, []string{"spec.sail: torn"}) {
		t.Errorf("a kind that works warns %q", got)
	}
	r.Inert = "no crew acts on it"
	want := []string{"ships.example.com is stored without effect in this version of Hansa: no crew acts on it", "spec.sail: torn"}
	if got := r.Warn(nil, nil); !slices.Equal(got, want) {
		t.Errorf("warns %q, want %q", got, want)
	}
}
