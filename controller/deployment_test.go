package controller_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/deployment"
	"hansa.dev/hansa/controller/garbage"
	"hansa.dev/hansa/controller/replicaset"
)

func deployments(c client.Interface, r events.Recorder) controller.Loop { return deployment.New(c, r) }
func replicaSets(c client.Interface, r events.Recorder) controller.Loop { return replicaset.New(c, r) }
func collector(c client.Interface, _ events.Recorder) controller.Loop   { return garbage.New(c) }

func template(labels map[string]string, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func aDeployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "one"),
		},
	}
}

func TestRollout(t *testing.T) {
	w := newWorld(t)
	w.run(deployments)
	w.run(replicaSets)
	w.run(collector)
	d := create(w, aDeployment("web", 3))
	w.live()
	w.rests()
	d = get[*appsv1.Deployment](w, "default", "web")
	if s := d.Status; s.AvailableReplicas != 3 || s.UpdatedReplicas != 3 || s.ObservedGeneration != d.Generation {
		t.Errorf("status = %+v", s)
	}
}
