package controller_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/revision"
)

// A history is adopted, taken further, gone back in and pruned.
func TestControllerRevisions(t *testing.T) {
	w := newWorld(t)
	labels := map[string]string{"app": "web"}
	set := create(w, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       appsv1.StatefulSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "one")},
	})
	gvk := appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	owner := controller.Owner{Resource: w.row(set), Kind: gvk, Object: set}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	collisions := int32(0)
	keep := func(image string) (history []*appsv1.ControllerRevision, collided bool) {
		t.Helper()
		history, err := controller.Revisions(t.Context(), w.api, owner, selector)
		if err != nil {
			t.Fatal(err)
		}
		of := revision.Owner{Object: set, Kind: gvk, Template: ptr.To(template(labels, image)), HashLabel: revision.HashLabel, Collisions: &collisions}
		history, collided, err = controller.KeepRevision(t.Context(), w.api, of, history)
		if err != nil {
			t.Fatal(err)
		}
		return history, collided
	}

	history, _ := keep("one")
	first := history[0]
	if len(history) != 1 || first.Revision != 1 || !metav1.IsControlledBy(first, set) {
		t.Fatalf("the history begins with %+v", first)
	}
	keep("two")
	if history, _ = keep("two"); len(history) != 2 || history[1].Revision != 2 {
		t.Fatalf("the history is %+v", history)
	}
	if history, _ = keep("one"); len(history) != 2 || history[1].Name != first.Name || history[1].Revision != 3 {
		t.Fatalf("once back, the history is %+v", history)
	}

	// An orphan comes back; one whose labels do not match goes.
	update(w, history[0], "", func(r *appsv1.ControllerRevision) { r.OwnerReferences = nil })
	update(w, history[1], "", func(r *appsv1.ControllerRevision) { r.Labels = nil })
	// The name of the revision that is needed again is taken now.
	if history, collided := keep("one"); !collided || len(history) != 1 || !metav1.IsControlledBy(history[0], set) {
		t.Errorf("collided: %v, history %+v", collided, history)
	}
	collisions++
	history, collided := keep("one")
	if collided || len(history) != 2 || history[1].Name == first.Name || !strings.HasPrefix(history[1].Name, "web-") {
		t.Errorf("collided: %v, history %+v", collided, history)
	}

	if err := controller.PruneRevisions(t.Context(), w.api, history[:1]); err != nil {
		t.Fatal(err)
	}
	if history, _ = keep("one"); len(history) != 1 {
		t.Errorf("%d revisions are left", len(history))
	}
}
