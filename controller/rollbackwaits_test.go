package controller_test

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/dependency"
)

// What waits behind a dependency for longer than its deadline has not failed for
// that; what then does not become ready in time has (design/dependencies.md).
func TestWaitingForDependenciesIsNoFailure(t *testing.T) {
	w := monitored(t, nil)
	w.run(dependants)
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "configmap/settings"}
		d.Spec.Template.Spec.Containers[0].Image = "unready:2"
	})
	w.passFates(10 * time.Minute)
	w.tells("False WaitingForDependencies Revision 2 (web-")
	if c := w.progressing("web"); c.Reason != "ProgressDeadlineExceeded" {
		t.Errorf("Progressing %+v", c)
	}
	w.rests()
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}})
	w.passFates(100 * time.Second)
	w.tells("False Monitoring Revision 2")
	w.passFates(40 * time.Second)
	w.undone("one")
	w.tells("True ProgressDeadlineExceeded Revision 2")
	w.rests()
}

// Pods that name their node cannot be made before what they depend on.
func TestWaitingForDependenciesOnTheirNode(t *testing.T) {
	w := monitored(t, nil)
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "configmap/settings"}
		d.Spec.Template.Spec.NodeName = "n"
	})
	w.tryFor(3 * time.Minute)
	w.tells("False WaitingForDependencies Revision 2 (web-")
	if d := w.deployment("web"); d.Spec.Template.Spec.NodeName != "n" {
		t.Errorf("the template is %+v", d.Spec.Template)
	}
}

// What a dependency that failed does to pods is no failure of their revision.
func TestDependencyFailureIsNoFailure(t *testing.T) {
	w := monitored(t, nil)
	w.run(dependants)
	settings := func() *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}}
	}
	create(w, settings())
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "configmap/settings", dependency.OnFailure: dependency.Restart, dependency.Grace: "5s"}
	})
	w.fates()
	remove(w, settings(), metav1.DeleteOptions{})
	w.passFates(10 * time.Second)
	w.tells("False WaitingForDependencies Revision 2 (web-")
	before := w.running()
	w.unwell(before[0])
	w.passFates(5 * time.Minute)
	w.tells("False WaitingForDependencies Revision 2 (web-")
	create(w, settings())
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 2")
	for _, p := range before {
		if get[*corev1.Pod](w, p.Namespace, p.Name) != nil {
			t.Errorf("pod %s was not restarted", p.Name)
		}
	}
	w.rests()
}
