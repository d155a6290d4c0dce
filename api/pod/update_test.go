package pod

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type invalidUpdate struct {
	Name        string         `json:"name"`
	InProcess   bool           `json:"inProcess,omitempty"`
	Subresource string         `json:"subresource,omitempty"`
	Old         *corev1.Pod    `json:"old"`
	Patch       map[string]any `json:"patch"`
	Want        []wantCause    `json:"want"`
}

// mergePatch is RFC 7386.
func mergePatch(t *testing.T, old *corev1.Pod, patch map[string]any) *corev1.Pod {
	t.Helper()
	data, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	if data, err = json.Marshal(merge(tree, patch)); err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	if err := json.Unmarshal(data, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func merge(into, patch map[string]any) map[string]any {
	for k, v := range patch {
		m, ok := v.(map[string]any)
		if v == nil {
			delete(into, k)
		} else if !ok {
			into[k] = v
		} else if sub, ok := into[k].(map[string]any); ok {
			into[k] = merge(sub, m)
		} else {
			into[k] = merge(map[string]any{}, m)
		}
	}
	return into
}

// applyUpdate does what a server does with an update of a pod or of one of its
// subresources.
func applyUpdate(t *testing.T, subresource string, p, old *corev1.Pod) field.ErrorList {
	t.Helper()
	switch subresource {
	case "":
		PrepareUpdate(p, old)
		return ValidateUpdate(p, old)
	case "status":
		PrepareStatusUpdate(p, old)
		return ValidateStatusUpdate(p, old)
	case "ephemeralcontainers":
		PrepareEphemeralContainersUpdate(p, old)
		return ValidateEphemeralContainersUpdate(p, old)
	case "resize":
		PrepareResize(p, old)
		return ValidateResize(p, old)
	}
	t.Fatalf("no subresource %q", subresource)
	return nil
}

func TestInvalidUpdates(t *testing.T) {
	cases := loadCases[invalidUpdate](t, "invalid-updates/*.yaml")
	if len(cases) < 25 {
		t.Errorf("%d cases, the table should have at least 25", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			old := c.Old.DeepCopy()
			Default(old)
			before := old.DeepCopy()
			p := mergePatch(t, old, c.Patch)
			checkCauses(t, applyUpdate(t, c.Subresource, p, old), c.Want)
			checkUnchanged(t, before, old)
		})
	}
}
