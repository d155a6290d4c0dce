package controller_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

var maps = corev1.SchemeGroupVersion.WithKind("ConfigMap")

// owned makes a ConfigMap with owners; each blocks the deletion of its owner.
func (w *world) owned(name string, owners ...*corev1.ConfigMap) *corev1.ConfigMap {
	w.Helper()
	return create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, OwnerReferences: refs(true, owners...)}})
}

func refs(blocks bool, owners ...*corev1.ConfigMap) (list []metav1.OwnerReference) {
	for _, o := range owners {
		list = append(list, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID, BlockOwnerDeletion: &blocks})
	}
	return list
}

func (w *world) configMap(name string) *corev1.ConfigMap {
	return get[*corev1.ConfigMap](w, "default", name)
}

func (w *world) deleteMap(name string, policy metav1.DeletionPropagation) {
	w.Helper()
	remove(w, w.configMap(name), metav1.DeleteOptions{PropagationPolicy: &policy})
	w.settle()
}

// there checks which ConfigMaps are left.
func (w *world) there(want ...string) {
	w.Helper()
	have := map[string]bool{}
	for _, cm := range all[*corev1.ConfigMap](w, "default") {
		have[cm.Name] = true
	}
	for _, name := range want {
		if !have[name] {
			w.Errorf("%s is gone", name)
		}
		delete(have, name)
	}
	for name := range have {
		w.Errorf("%s is still there: %+v", name, w.configMap(name).ObjectMeta)
	}
}

func garden(t *testing.T) *world {
	w := newWorld(t)
	w.run(collector)
	return w
}

// Documentation: "Garbage Collection", "Cascading deletion".
func TestCascades(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			w := garden(t)
			a := w.owned("a")
			b := w.owned("b", a)
			c := w.owned("c", b)
			w.owned("d", b, c)
			w.owned("e")
			w.settle()
			w.rests()
			w.deleteMap("a", policy)
			w.there("e")
			w.rests()
		})
	}
	t.Run("Orphan", func(t *testing.T) {
		w := garden(t)
		a := w.owned("a")
		b := w.owned("b", a)
		w.owned("c", a, b)
		w.deleteMap("a", metav1.DeletePropagationOrphan)
		w.there("b", "c")
		if n := len(w.configMap("b").OwnerReferences) + len(w.configMap("c").OwnerReferences); n != 1 {
			t.Errorf("%d references are left, want that to b", n)
		}
		w.rests()
	})
}

// Whoever has another owner stays, and the one that waits does not wait for it.
func TestSecondOwnerKeeps(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			w := garden(t)
			a, b := w.owned("a"), w.owned("b")
			w.owned("c", a, b)
			w.deleteMap("a", policy)
			w.there("b", "c")
			if refs := w.configMap("c").OwnerReferences; len(refs) != 1 || refs[0].Name != "b" {
				t.Errorf("owners = %v", refs)
			}
			w.deleteMap("b", policy)
			w.there()
			w.rests()
		})
	}
}

// A foreground deletion waits for those that block it, and for no others.
func TestForegroundWaits(t *testing.T) {
	w := garden(t)
	a := w.owned("a")
	slow := w.owned("slow", a)
	update(w, slow, "", func(cm *corev1.ConfigMap) { cm.Finalizers = []string{"example.com/f"} })
	w.deleteMap("a", metav1.DeletePropagationForeground)
	w.there("a", "slow")
	w.rests()
	update(w, slow, "", func(cm *corev1.ConfigMap) { cm.OwnerReferences = refs(false, a) })
	w.settle()
	w.there("slow")
	update(w, slow, "", func(cm *corev1.ConfigMap) { cm.Finalizers = nil })
	w.settle()
	w.there()
	w.rests()
}

// Objects that own each other in a circle go all the same.
func TestCircles(t *testing.T) {
	w := garden(t)
	a := w.owned("a")
	b := w.owned("b", a)
	c := w.owned("c", b)
	update(w, a, "", func(cm *corev1.ConfigMap) { cm.OwnerReferences = refs(true, c) })
	w.settle()
	w.there("a", "b", "c")
	w.deleteMap("a", metav1.DeletePropagationForeground)
	w.there()
	w.rests()
}

// An owner that never was, one that has the name but not the identity, and one
// of a kind that is not served.
func TestOwnersThatAreNot(t *testing.T) {
	w := garden(t)
	a := w.owned("a")
	other := a.DeepCopy()
	other.UID = "another"
	w.owned("late", other)
	gone := a.DeepCopy()
	gone.Name, gone.UID = "gone", "gone"
	w.owned("orphan", gone)
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "foreign", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "example.com/v1", Kind: "Thing", Name: "t", UID: "t"},
	}}})
	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "a", UID: a.UID},
	}}})
	abroad := create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "abroad", OwnerReferences: refs(true, a)}})
	w.settle()
	w.there("a", "foreign")
	if get[*corev1.Node](w, "", "n") == nil {
		t.Error("an object in no namespace was deleted for an owner in one")
	}
	if get[*corev1.ConfigMap](w, "kube-system", abroad.Name) != nil {
		t.Error("an object was kept for an owner in another namespace")
	}
	w.said(
		`Warning OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: , name: a, uid: `+string(a.UID)+`] does not exist in namespace ""`,
		`Warning OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: kube-system, name: a, uid: `+string(a.UID)+`] does not exist in namespace "kube-system"`,
	)
	w.rests()
}

// On random graphs, with deaths at any write: what is reachable from a root
// that was not deleted stays, everything else goes.
func TestRandomGraphs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		loop := w.run(collector)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		n := rapid.IntRange(1, 8).Draw(r, "objects")
		var objects []*corev1.ConfigMap
		edges := map[string][]string{}
		for i := range n {
			var owners []*corev1.ConfigMap
			for j := range i {
				if rapid.IntRange(0, 2).Draw(r, "owns") == 0 {
					owners = append(owners, objects[j])
				}
			}
			name := string(rune('a' + i))
			objects = append(objects, create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: name, OwnerReferences: refs(rapid.Bool().Draw(r, "blocks"), owners...),
			}}))
			for _, o := range owners {
				edges[name] = append(edges[name], o.Name)
			}
		}
		w.settle()
		deleted := map[string]bool{}
		for range rapid.IntRange(0, 3).Draw(r, "deletions") {
			o := objects[rapid.IntRange(0, n-1).Draw(r, "object")]
			if w.configMap(o.Name) == nil || deleted[o.Name] {
				continue
			}
			loop.client.dieAt(rapid.IntRange(0, 5).Draw(r, "dies at"), rapid.Bool().Draw(r, "after it"))
			policy := rapid.SampledFrom([]metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground}).Draw(r, "policy")
			deleted[o.Name] = true
			w.deleteMap(o.Name, policy)
		}
		loop.client.heal()
		w.rests()
		want := []string{}
		stays := map[string]bool{}
		for _, o := range objects { // owners come before what they own
			stays[o.Name] = !deleted[o.Name] && len(edges[o.Name]) == 0
			for _, owner := range edges[o.Name] {
				stays[o.Name] = stays[o.Name] || stays[owner] && !deleted[o.Name]
			}
			if stays[o.Name] {
				want = append(want, o.Name)
			}
		}
		w.there(want...)
	})
}

// A deployment goes with all below it, in the foreground from the bottom up.
func TestDeletedDeployment(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			w := workloads(t)
			create(w, aDeployment("web", 3))
			w.live()
			remove(w, w.deployment("web"), metav1.DeleteOptions{PropagationPolicy: ptr.To(policy)})
			w.settle()
			if there := w.deployment("web") != nil; there != (policy == metav1.DeletePropagationForeground) {
				t.Errorf("while its pods end, the deployment is there: %v", there)
			}
			w.live()
			if w.deployment("web") != nil || len(w.sets())+len(w.pods()) > 0 {
				t.Errorf("%d sets and %d pods are left", len(w.sets()), len(w.pods()))
			}
			w.rests()
		})
	}
}
