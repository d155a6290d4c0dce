package controller_test

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/internal/podstate"
)

// What breaks without what it depends on says nothing of its revision, before the loss
// is noticed, while it lasts, and until there was time to recover.
func TestRollbackLeavesLossesOfDependenciesAlone(t *testing.T) {
	w := workloads(t)
	w.run(rollbacks)
	w.run(dependants)
	create(w, aDeployment("db", 1))
	w.fates()
	w.guard(func(d *appsv1.Deployment) { d.Annotations[dependency.DependsOn] = "deployment/db" })
	lacks := func(want corev1.ConditionStatus) {
		t.Helper()
		if c := podstate.Condition(w.onePodOf("web"), dependency.Failed); c == nil || c.Status != want {
			t.Errorf("the pod says %+v, want %s", c, want)
		}
	}

	w.setImage("web", "two")
	w.fates()
	loses(w, "db")
	lacks(corev1.ConditionUnknown)
	w.unwell(w.onePodOf("web"))
	w.passFates(10 * time.Minute)
	w.tells("False WaitingForDependencies Revision 2")
	w.rests()
	finds(w, "db")
	lacks(corev1.ConditionFalse)
	w.passFates(time.Minute)
	w.tells("False Monitoring Revision 2")
	update(w, w.onePodOf("web"), "status", func(p *corev1.Pod) {
		setReady(p, true, w.stamp())
		p.Status.ContainerStatuses[0].Ready = true
	})
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 2")

	w.setImage("web", "three")
	w.fates()
	w.unwell(w.onePodOf("web"))
	w.pass(5 * time.Second)
	loses(w, "db")
	w.passFates(time.Minute)
	w.tells("False WaitingForDependencies Revision 3")
	finds(w, "db")
	w.passFates(time.Minute)
	w.tells("False Monitoring Revision 3")
	w.passFates(2 * time.Minute)
	w.tells("True PodsFailed Revision 3")

	w.setImage("web", "four")
	w.fates()
	w.unwell(w.onePodOf("web"))
	w.passFates(5 * time.Second)
	w.tells("False Monitoring Revision")
	w.passFates(10 * time.Second)
	w.tells("True PodsFailed Revision")
	w.rests()
}
