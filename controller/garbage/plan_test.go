package garbage

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The cases are those of the Kubernetes documentation, "Garbage Collection".
func TestPlan(t *testing.T) {
	now := metav1.Now()
	object := func(deleting bool, finalizers ...string) *corev1.ConfigMap {
		o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Finalizers: finalizers}}
		if deleting {
			o.DeletionTimestamp = &now
		}
		return o
	}
	one := func(states ...ownerState) (out []owner) {
		for _, s := range states {
			out = append(out, owner{state: s})
		}
		return out
	}
	blocking := []dependent{{blocks: true}}
	lax := []dependent{{blocks: false}}
	for _, c := range []struct {
		name       string
		obj        *corev1.ConfigMap
		owners     []owner
		dependents []dependent
		want       action
	}{
		{"no owner", object(false), nil, nil, nothing},
		{"owner there", object(false), one(solid), nil, nothing},
		{"background: owner gone", object(false), one(absent), nil, deleteBackground},
		{"one of two owners gone", object(false), one(absent, solid), nil, dropReferences},
		{"one of two owners waits", object(false), one(waiting, solid), blocking, dropReferences},
		{"both owners gone", object(false), one(absent, absent), nil, deleteBackground},
		{"foreground: owner waits, object has dependents itself", object(false), one(waiting), lax, deleteForeground},
		{"foreground: owner waits, object has none", object(false), one(waiting), nil, deleteBackground},
		{"foreground: blocked by a dependent", object(true, metav1.FinalizerDeleteDependents), nil, blocking, nothing},
		{"foreground: no dependent blocks", object(true, metav1.FinalizerDeleteDependents), nil, lax, letGo},
		{"foreground: no dependents", object(true, metav1.FinalizerDeleteDependents), nil, nil, letGo},
		{"orphan", object(true, metav1.FinalizerOrphanDependents), nil, blocking, orphanDependents},
		{"being deleted by somebody else", object(true, "example.com/f"), one(absent), nil, nothing},
		{"cycle: two objects own each other, both wait", object(true, metav1.FinalizerDeleteDependents), one(waiting), blocking, nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := plan(c.obj, c.owners, c.dependents); got != c.want {
				t.Errorf("action = %d, want %d", got, c.want)
			}
		})
	}
}
