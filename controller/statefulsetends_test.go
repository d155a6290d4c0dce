package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod that has ended, with whatever code, is made again under its name.
func TestEndedPodsAreReplaced(t *testing.T) {
	for _, code := range []int32{0, 1} {
		w := stateful(t)
		create(w, aStatefulSet("web", 2))
		w.live()
		was := w.exits(w.pod("web-0"), code)
		w.live()
		w.updated("web", 2)
		if w.pod("web-0").UID == was.UID {
			t.Error("the pod is the same")
		}
		w.rests()
		// One that fails at once is tried again after a second.
		was = w.exits(w.pod("web-1"), code)
		w.live()
		w.exits(w.pod("web-1"), code)
		w.settle()
		if p := w.pod("web-1"); p.UID == was.UID || p.DeletionTimestamp != nil {
			t.Errorf("the pod is %+v", p.ObjectMeta)
		}
		w.pass(time.Second)
		w.live()
		w.updated("web", 2)
	}
}

// Pods of the right name are adopted, with all revisions, and others let go.
func TestStatefulSetAdoptsAndReleases(t *testing.T) {
	w := stateful(t)
	set := create(w, aStatefulSet("web", 3))
	w.live()
	orphan := metav1.DeletePropagationOrphan
	remove(w, set, metav1.DeleteOptions{PropagationPolicy: &orphan})
	w.live()
	pods, history := w.running(), w.history()
	if len(pods) != 3 || len(pods[0].OwnerReferences) != 0 || len(history) != 1 || len(history[0].OwnerReferences) != 0 {
		t.Fatalf("%d pods with %v, revisions %+v", len(pods), pods[0].OwnerReferences, history)
	}
	update(w, pods[1], "", func(p *corev1.Pod) {
		delete(p.Labels, appsv1.PodIndexLabel)
		delete(p.Labels, appsv1.StatefulSetPodNameLabel)
	})
	stranger := create(w, aPod("web-01", template(map[string]string{"app": "web"}, "one")))
	create(w, aStatefulSet("web", 3))
	w.live()
	w.adopted(3, pods, history[0])
	if p := w.pod("web-1"); p.Labels[appsv1.PodIndexLabel] != "1" || p.Labels[appsv1.StatefulSetPodNameLabel] != "web-1" {
		t.Errorf("labels %v", p.Labels)
	}
	w.said("Normal SuccessfulUpdate Update Pod web-1 in StatefulSet web successful")
	if len(w.pod(stranger.Name).OwnerReferences) != 0 {
		t.Error("a pod that is no member was adopted")
	}
	w.rests()

	// A pod that is not the set's any more holds its name until it is gone.
	update(w, w.pod("web-1"), "", func(p *corev1.Pod) { p.Labels["app"] = "debug" })
	w.live()
	if p := w.pod("web-1"); len(p.OwnerReferences) != 0 || p.DeletionTimestamp != nil {
		t.Errorf("owners %v", p.OwnerReferences)
	}
	w.said(`Warning FailedCreate Create Pod web-1 in StatefulSet web failed error: pods "web-1" already exists`)
	w.rests()
	w.gone(w.pod("web-1"))
	w.live()
	if p := w.pod("web-1"); p == nil || p.Labels["app"] != "web" {
		t.Errorf("the pod is %+v", p)
	}
	w.rests()
}

// adopted checks that pods and a revision are those that were there.
func (w *world) adopted(replicas int, pods []*corev1.Pod, first *appsv1.ControllerRevision) {
	w.Helper()
	set := w.statefulSet("web")
	if s := set.Status; int(s.ReadyReplicas) != replicas || s.CurrentRevision != first.Name || len(w.history()) != 1 || !metav1.IsControlledBy(w.history()[0], set) {
		w.Errorf("status %+v, history %+v", set.Status, w.history())
	}
	for _, p := range pods {
		if now := w.pod(p.Name); now == nil || now.UID != p.UID || !metav1.IsControlledBy(now, set) {
			w.Errorf("pod %s was not adopted", p.Name)
		}
	}
}

// A set that has the name of another one, whose pods are still ending, waits.
func TestSetAfterItsNamesake(t *testing.T) {
	w := stateful(t)
	set := create(w, aStatefulSet("web", 2))
	w.live()
	background := metav1.DeletePropagationBackground
	remove(w, set, metav1.DeleteOptions{PropagationPolicy: &background})
	create(w, aStatefulSet("web", 2))
	w.events = nil
	w.settle()
	w.has("-0:one -1:one")
	if i := slices.IndexFunc(w.events, func(e string) bool { return strings.Contains(e, "Failed") }); i >= 0 {
		t.Errorf("event %s", w.events[i])
	}
	w.live()
	w.updated("web", 2)
	if n := len(w.history()); n != 1 {
		t.Errorf("%d revisions", n)
	}
	w.rests()
}

// The name of the next revision is taken by something else.
func TestRevisionCollision(t *testing.T) {
	w := stateful(t)
	set := create(w, aStatefulSet("web", 1))
	w.live()
	name := w.history()[0].Name
	remove(w, set, metav1.DeleteOptions{})
	w.live()
	create(w, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: w.data()})
	create(w, aStatefulSet("web", 1))
	w.live()
	w.updated("web", 1)
	if s := w.statefulSet("web").Status; *s.CollisionCount != 1 || s.UpdateRevision == name {
		t.Errorf("status = %+v", s)
	}
	w.rests()
}

// Documentation: "StatefulSets", "Deletion and Scaling": what a set leaves.
func TestStatefulSetIsDeleted(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		w := stateful(t)
		set := create(w, aStatefulSet("web", 3))
		w.live()
		remove(w, set, metav1.DeleteOptions{PropagationPolicy: &policy})
		w.live()
		if w.statefulSet("web") != nil || len(w.pods()) != 0 || len(w.history()) != 0 {
			t.Errorf("%s: set %v, %d pods, %d revisions", policy, w.statefulSet("web"), len(w.pods()), len(w.history()))
		}
		w.rests()
	}
}

// Documentation: scale subresource.
func TestScaleStatefulSet(t *testing.T) {
	w := stateful(t)
	set := create(w, aStatefulSet("web", 1))
	w.live()
	scale := func() *autoscalingv1.Scale {
		t.Helper()
		to := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
		got, err := w.api.Update(t.Context(), w.row(set), to, "scale")
		if err != nil {
			t.Fatal(err)
		}
		return got.(*autoscalingv1.Scale)
	}
	scale()
	w.live()
	w.updated("web", 3)
	if s := scale().Status; s.Replicas != 3 || s.Selector != "app=web" {
		t.Errorf("the scale's status is %+v", s)
	}
}

// Why pods cannot be made is told by events.
func TestStatefulSetPodsAreRefused(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 1)
	set.Spec.Template.Spec.PriorityClassName = "missing"
	create(w, set)
	w.loops[0].step()
	w.said("Warning FailedCreate Create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: no PriorityClass with name missing was found")
	create(w, aPriorityClass("missing"))
	w.live()
	w.updated("web", 1)
	w.rests()
}
