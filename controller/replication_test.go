package controller_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/replicaset"
)

func replication(c client.Interface, r events.Recorder) controller.Loop {
	return replicaset.NewReplication(c, r)
}

// Documentation: "ReplicationController".
func TestReplicationController(t *testing.T) {
	w := workloads(t)
	w.run(replication)
	labels := map[string]string{"app": "old"}
	stray := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stray", Labels: labels}, Spec: template(labels, "x").Spec}
	create(w, stray)
	rc := create(w, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "old"},
		Spec:       corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](3), Selector: labels, Template: ptr.To(template(labels, "x"))},
	})
	create(w, aDeployment("web", 1)) // replica sets go on beside it
	w.live()
	w.rests()
	now := func() *corev1.ReplicationController {
		return get[*corev1.ReplicationController](w, "default", "old")
	}
	if s := now().Status; s.Replicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 || s.FullyLabeledReplicas != 3 || s.ObservedGeneration != 1 {
		t.Errorf("the status is %+v", s)
	}
	w.said("Normal SuccessfulCreate Created pod: old-")
	ref := metav1.GetControllerOf(get[*corev1.Pod](w, "default", "stray"))
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "ReplicationController" || ref.UID != rc.UID {
		t.Errorf("the stray's controller is %+v", ref)
	}
	update(w, rc, "", func(rc *corev1.ReplicationController) { rc.Spec.Replicas = ptr.To[int32](1) })
	w.live()
	w.rests()
	if s := now().Status; s.Replicas != 1 || len(w.pods()) != 2 {
		t.Errorf("the status is %+v, with %d pods", s, len(w.pods()))
	}
	w.said("Normal SuccessfulDelete Deleted pod: ")

	// The pods stay, unless told otherwise.
	remove(w, rc, metav1.DeleteOptions{})
	w.live()
	w.rests()
	if now() != nil || len(w.pods()) != 2 {
		t.Errorf("%d pods are left", len(w.pods()))
	}
}

// What keeps pods from being made is told by a condition.
func TestReplicationFails(t *testing.T) {
	w := newWorld(t)
	d := w.run(replication)
	d.client.refuse = apierrors.NewForbidden(corev1.Resource("pods"), "", nil)
	labels := map[string]string{"app": "old"}
	rc := create(w, &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "old"},
		Spec:       corev1.ReplicationControllerSpec{Selector: labels, Template: ptr.To(template(labels, "x"))},
	})
	d.step()
	failed := func() []corev1.ReplicationControllerCondition {
		return get[*corev1.ReplicationController](w, "default", rc.Name).Status.Conditions
	}
	if c := failed(); len(c) != 1 || c[0].Type != corev1.ReplicationControllerReplicaFailure || c[0].Reason != "FailedCreate" {
		t.Errorf("the conditions are %+v", c)
	}
	d.client.refuse = nil
	w.rests()
	if c := failed(); len(c) != 0 {
		t.Errorf("the conditions are %+v", c)
	}
}
