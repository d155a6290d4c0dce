package controller_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// oneOfEach stores an object of every kind that there may be one of, as it
// comes: loops that are not about a kind do not look into it.
func (w *world) oneOfEach(namespaced bool, fill func(api.Object)) []api.Ref {
	w.Helper()
	var refs []api.Ref
	for _, r := range w.h.Registry.Resources() {
		if r.Prefix == "" || r.Kind == "Event" || r.Kind == "Namespace" || namespaced && !r.Namespaced {
			continue
		}
		obj := r.New()
		obj.SetName("one")
		if fill(obj); !r.Namespaced {
			obj.SetNamespace("")
		}
		obj.SetUID(types.UID(r.GroupResource().String()))
		made, err := w.h.Store.Create(w.Context(), r, obj, store.WriteOptions{})
		if err != nil {
			w.Fatalf("store a %s: %v", r.Kind, err)
		}
		refs = append(refs, api.RefTo(r, made))
	}
	return refs
}

// allGone checks that none of the objects is left, but for those of which somebody
// else has something to finish (a definition's objects).
func (w *world) allGone(refs []api.Ref) {
	w.Helper()
	for _, ref := range refs {
		left := w.api.View().Get(ref.Resource, ref.Key())
		if left != nil && (left.GetDeletionTimestamp().IsZero() || len(left.GetFinalizers()) == 0) {
			w.Errorf("%s is still there", ref)
		}
	}
}

// A namespace takes everything along that may be in it.
func TestNamespaceTakesEveryKind(t *testing.T) {
	w := newWorld(t)
	w.run(namespaces)
	ns := create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	refs := w.oneOfEach(true, func(o api.Object) { o.SetNamespace("shop") })
	w.rests()
	remove(w, ns, metav1.DeleteOptions{})
	w.settle()
	w.allGone(refs)
	if w.namespace("shop") != nil {
		t.Errorf("the namespace is still there: %+v", w.namespace("shop").Status)
	}
}

// Whatever its kind, what has lost its owner is collected.
func TestEveryKindIsCollected(t *testing.T) {
	w := newWorld(t)
	w.run(collector)
	refs := w.oneOfEach(false, func(o api.Object) {
		o.SetNamespace("default")
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "lost", UID: "lost"}})
	})
	w.settle()
	w.allGone(refs)
}
