package pod

import (
	"encoding/json"
	"math"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// Init containers that end are resized like others (in Kubernetes since 1.36).
func TestResizeOfInitContainers(t *testing.T) {
	requests := func(cpu string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu)}}
	}
	old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i", Image: "i", Resources: requests("1")}},
		Containers:     []corev1.Container{{Name: "c", Image: "i"}},
	}}
	Default(old)
	p := old.DeepCopy()
	p.Spec.InitContainers[0].Resources = requests("2")
	if errs := applyUpdate(t, "resize", p, old); len(errs) > 0 || p.Spec.InitContainers[0].Resources.Requests.Cpu().String() != "2" {
		t.Errorf("resized to %v: %v", p.Spec.InitContainers[0].Resources, errs)
	}
}

// The runtime may report any user of Linux, of which those above 2147483647 may
// not be asked for.
func TestReportedUsers(t *testing.T) {
	for uid, fine := range map[int64]bool{0: true, math.MaxUint32: true, math.MaxUint32 + 1: false, -1: false} {
		old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		Default(old)
		p := old.DeepCopy()
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "i", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: uid}}}}
		if errs := applyUpdate(t, "status", p, old); len(errs) == 0 != fine {
			t.Errorf("user %d: %v", uid, errs)
		}
	}
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
