package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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
	"hansa.dev/hansa/internal/podstate"
)

func deployments(c client.Interface, r events.Recorder) controller.Loop { return deployment.New(c, r) }
func replicaSets(c client.Interface, r events.Recorder) controller.Loop { return replicaset.New(c, r) }
func collector(c client.Interface, r events.Recorder) controller.Loop   { return garbage.New(c, r) }

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

func workloads(t *testing.T) *world {
	w := newWorld(t)
	w.run(deployments)
	w.run(replicaSets)
	w.run(collector)
	return w
}

func (w *world) deployment(name string) *appsv1.Deployment {
	return get[*appsv1.Deployment](w, "default", name)
}

// setImage is `kubectl set image`.
func (w *world) setImage(name, image string) {
	w.Helper()
	update(w, w.deployment(name), "", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image })
}

func (w *world) sets() []*appsv1.ReplicaSet { return all[*appsv1.ReplicaSet](w, "default") }

// setWith is the set of an image.
func (w *world) setWith(image string) *appsv1.ReplicaSet {
	w.Helper()
	for _, rs := range w.sets() {
		if rs.Spec.Template.Spec.Containers[0].Image == image {
			return rs
		}
	}
	w.Fatalf("no set with image %s", image)
	return nil
}

// rolledOut is what `kubectl rollout status` waits for.
func (w *world) rolledOut(name string, replicas int32) {
	w.Helper()
	d := w.deployment(name)
	s := d.Status
	if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != replicas || s.Replicas != replicas || s.AvailableReplicas != replicas || s.UnavailableReplicas != 0 {
		w.Errorf("not rolled out: generation %d, status %+v", d.Generation, s)
	}
	if !slices.ContainsFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentProgressing && c.Reason == "NewReplicaSetAvailable"
	}) {
		w.Errorf("conditions = %+v", s.Conditions)
	}
	for _, p := range w.running() {
		if p.Labels["app"] != name {
			continue
		}
		if got, want := p.Spec.Containers[0].Image, d.Spec.Template.Spec.Containers[0].Image; got != want {
			w.Errorf("a pod runs %s, not %s", got, want)
		}
	}
}

const revisionAnnotation = "deployment.kubernetes.io/revision"

// Documentation: "Deployments", "Updating", "Rolling Back".
func TestRolloutAndUndo(t *testing.T) {
	w := workloads(t)
	create(w, aDeployment("web", 3))
	w.live()
	w.rolledOut("web", 3)
	w.said("Normal ScalingReplicaSet Scaled up replica set web-", "from 0 to 3", "Normal SuccessfulCreate Created pod: web-")
	w.rests()

	w.setImage("web", "two")
	w.live()
	w.rolledOut("web", 3)
	w.said("from 0 to 1", "Scaled down replica set web-")
	if d := w.deployment("web"); d.Annotations[revisionAnnotation] != "2" || d.Generation != 2 {
		t.Errorf("generation %d, annotations %v", d.Generation, d.Annotations)
	}

	// kubectl rollout undo puts the template of the earlier set back.
	w.setImage("web", "one")
	w.live()
	w.rolledOut("web", 3)
	first := w.setWith("one")
	if len(w.sets()) != 2 || first.Annotations[revisionAnnotation] != "3" || first.Annotations["deployment.kubernetes.io/revision-history"] != "1" || w.deployment("web").Annotations[revisionAnnotation] != "3" {
		t.Errorf("%d sets; annotations %v", len(w.sets()), first.Annotations)
	}

	// kubectl rollout restart changes an annotation of the template.
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
		d.Annotations["kubernetes.io/change-cause"] = "because"
	})
	w.live()
	w.rolledOut("web", 3)
	if !slices.ContainsFunc(w.sets(), func(rs *appsv1.ReplicaSet) bool {
		return rs.Annotations[revisionAnnotation] == "4" && rs.Annotations["kubernetes.io/change-cause"] == "because"
	}) {
		t.Error("no set of revision 4 that says why")
	}
	w.rests()
}

// The annotation that has been spec.rollbackTo takes a deployment back to a
// revision, or by 0 to the one before; Kubernetes' pkg/controller/deployment/rollback.go.
func TestRollbackTo(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 1)
	d.Annotations = map[string]string{"kubernetes.io/change-cause": "first"}
	create(w, d)
	w.live()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = "two"
		d.Annotations["kubernetes.io/change-cause"] = "second"
	})
	w.live()
	back := func(to, image, revision, said string) {
		t.Helper()
		update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Annotations[appsv1.DeprecatedRollbackTo] = to })
		w.live()
		w.rolledOut("web", 1)
		d := w.deployment("web")
		if _, left := d.Annotations[appsv1.DeprecatedRollbackTo]; left || d.Spec.Template.Spec.Containers[0].Image != image || d.Annotations[revisionAnnotation] != revision {
			t.Errorf("back to %s: %s, annotations %v", to, d.Spec.Template.Spec.Containers[0].Image, d.Annotations)
		}
		w.said(said)
	}
	back("0", "one", "3", `Normal DeploymentRollback Rolled back deployment "web" to revision 1`)
	if cause := w.deployment("web").Annotations["kubernetes.io/change-cause"]; cause != "first" {
		t.Errorf("its cause is %q", cause)
	}
	back("2", "two", "4", `Normal DeploymentRollback Rolled back deployment "web" to revision 2`)
	back("4", "two", "4", `Warning DeploymentRollbackTemplateUnchanged The rollback revision contains the same template as current deployment "web"`)
	back("9", "two", "4", "Warning DeploymentRollbackRevisionNotFound Unable to find the revision to rollback to.")
	// Of a template that comes with the wish, the one before it is that of now.
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = "three"
		d.Annotations[appsv1.DeprecatedRollbackTo] = "0"
	})
	w.live()
	w.rolledOut("web", 1)
	if d := w.deployment("web"); d.Spec.Template.Spec.Containers[0].Image != "two" || d.Annotations[revisionAnnotation] != "6" || len(w.sets()) != 3 {
		t.Errorf("%d sets, annotations %v", len(w.sets()), d.Annotations)
	}
	w.rests()

	create(w, aDeployment("new", 1))
	w.live()
	update(w, w.deployment("new"), "", func(d *appsv1.Deployment) { d.Annotations[appsv1.DeprecatedRollbackTo] = "0" })
	w.live()
	w.said("Warning DeploymentRollbackRevisionNotFound Unable to find last revision.")
	w.rests()
}

// Documentation: "Deployments", "Pausing and Resuming a rollout".
func TestPauseAndResume(t *testing.T) {
	w := workloads(t)
	create(w, aDeployment("web", 3))
	w.live()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Paused = true })
	w.setImage("web", "two")
	w.live()
	if len(w.sets()) != 1 {
		t.Fatalf("a paused deployment has %d sets", len(w.sets()))
	}
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](5) })
	w.live()
	if len(w.running()) != 5 {
		t.Errorf("%d pods run while paused, want 5", len(w.running()))
	}
	w.pass(time.Hour)
	w.rests()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Paused = false })
	w.live()
	w.rolledOut("web", 5)
	w.rests()
}

// Documentation: "Deployments", "Failed Deployment".
// progressing is that condition of a deployment.
func (w *world) progressing(name string) appsv1.DeploymentCondition {
	for _, c := range w.deployment(name).Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c
		}
	}
	return appsv1.DeploymentCondition{}
}

func TestProgressDeadline(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 2)
	d.Spec.ProgressDeadlineSeconds = ptr.To[int32](60)
	create(w, d)
	w.settle()
	progressing := func() string { return w.progressing("web").Reason }
	w.pass(59 * time.Second)
	if r := progressing(); r != "ReplicaSetUpdated" {
		t.Errorf("before the deadline: %s", r)
	}
	w.pass(2 * time.Second)
	if r := progressing(); r != "ProgressDeadlineExceeded" {
		t.Errorf("after the deadline: %s", r)
	}
	w.rests()
	w.live()
	w.rolledOut("web", 2)
	w.rests()
}

// Documentation: "Deployments", "Min Ready Seconds".
func TestMinReadySeconds(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 2)
	d.Spec.MinReadySeconds = 30
	create(w, d)
	w.live()
	if s := w.deployment("web").Status; s.ReadyReplicas != 2 || s.AvailableReplicas != 0 {
		t.Errorf("status = %+v", s)
	}
	w.pass(31 * time.Second)
	w.rolledOut("web", 2)
	w.rests()
}

// Documentation: "Deployments", "Recreate Deployment".
func TestRecreate(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 3)
	d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	create(w, d)
	w.live()
	w.setImage("web", "two")
	w.settle()
	if len(w.running()) != 0 || len(w.pods()) != 3 {
		t.Fatalf("%d of %d pods run while the old ones end", len(w.running()), len(w.pods()))
	}
	if c := w.progressing("web"); c.Reason != "ReplicaSetUpdated" || c.Message != `Deployment "web" is progressing.` {
		t.Errorf("while the old pods end: %+v", c)
	}
	w.live()
	w.rolledOut("web", 3)
	w.rests()
}

func TestHistoryLimit(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 1)
	d.Spec.RevisionHistoryLimit = ptr.To[int32](1)
	create(w, d)
	w.live()
	for i := range 4 {
		w.setImage("web", fmt.Sprint("v", i))
		w.live()
	}
	if len(w.sets()) != 2 {
		t.Errorf("%d sets, want the current and one old one", len(w.sets()))
	}
	w.setWith("v2")
	w.setWith("v3")
	w.rests()
}

// Two templates with the same hash: the name of the set is taken.
func TestHashCollision(t *testing.T) {
	w := workloads(t)
	create(w, aDeployment("web", 1))
	w.live()
	name := w.sets()[0].Name
	remove(w, w.deployment("web"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.live()
	labels := map[string]string{"app": "other"}
	create(w, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "x")},
	})
	create(w, aDeployment("web", 1))
	w.live()
	w.rolledOut("web", 1)
	if n := w.deployment("web").Status.CollisionCount; n == nil || *n != 1 {
		t.Errorf("collisions = %v", n)
	}
	w.rests()
}

// An existing set with the same selector is adopted, and taken over as what it
// is (documentation: "Label selector updates", "Non-Template Pod acquisitions").
func TestAdoptsSetsAndPods(t *testing.T) {
	w := workloads(t)
	d := create(w, aDeployment("web", 2))
	w.live()
	orphan := metav1.DeletePropagationOrphan
	remove(w, d, metav1.DeleteOptions{PropagationPolicy: &orphan})
	w.live()
	rs := w.sets()[0]
	if len(rs.OwnerReferences) != 0 || len(w.running()) != 2 {
		t.Fatalf("owners %v, %d pods", rs.OwnerReferences, len(w.running()))
	}
	remove(w, rs, metav1.DeleteOptions{PropagationPolicy: &orphan})
	w.live()
	ended := create(w, aPod("ended", template(map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]}, "one")))
	w.exits(ended, 0)
	pods := w.running()
	create(w, aDeployment("web", 2))
	w.live()
	w.rolledOut("web", 2)
	if !slices.EqualFunc(pods, w.running(), func(a, b *corev1.Pod) bool { return a.UID == b.UID }) {
		t.Error("the pods were replaced")
	}
	if p := w.pod("ended"); len(p.OwnerReferences) != 0 {
		t.Error("a pod that has ended was adopted")
	}

	// A pod whose label is changed is let go, and replaced.
	p := update(w, pods[0], "", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "debug"} })
	w.live()
	if p = w.pod(p.Name); len(p.OwnerReferences) != 0 || p.DeletionTimestamp != nil || len(w.running()) != 3 {
		t.Errorf("owners %v, %d pods run", p.OwnerReferences, len(w.running()))
	}
	w.rests()
}

// Why pods cannot be made reaches the deployment, and goes when they can.
func TestPodsThatAreRefused(t *testing.T) {
	w := workloads(t)
	d := aDeployment("web", 2)
	d.Spec.Template.Spec.PriorityClassName = "missing"
	create(w, d)
	loop := w.loops[1]
	for range 5 {
		if len(loop.ready) > 0 {
			loop.step()
		}
		if len(w.loops[0].ready) > 0 {
			w.loops[0].step()
		}
	}
	failure := func() string {
		for _, c := range w.deployment("web").Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure {
				return c.Reason + " " + c.Message
			}
		}
		return ""
	}
	if f := failure(); !strings.HasPrefix(f, `FailedCreate pods "web-`) || !strings.Contains(f, "no PriorityClass with name missing was found") {
		t.Errorf("failure = %q", f)
	}
	w.said("Warning FailedCreate Error creating: pods \"web-")
	class := aPriorityClass("missing")
	create(w, class)
	w.live()
	w.rolledOut("web", 2)
	if f := failure(); f != "" {
		t.Errorf("failure = %q", f)
	}
	w.rests()
}

// A scale down takes the pods that are missed least.
func TestScaleDownSparesReadyPods(t *testing.T) {
	w := workloads(t)
	create(w, aDeployment("web", 3))
	w.settle()
	w.runs(w.running()[1])
	w.settle()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](1) })
	w.settle()
	if left := w.running(); len(left) != 1 || !podstate.Ready(left[0]) {
		t.Errorf("%d pods are left", len(left))
	}
	w.rests()
}

// Any write of any loop may be the last one of its process.
func TestRolloutSurvivesCrashes(t *testing.T) {
	for at := range 8 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", at, after), func(t *testing.T) {
				w := workloads(t)
				create(w, aDeployment("web", 3))
				w.live()
				w.setImage("web", "two")
				for _, d := range w.loops {
					d.client.dieAt(at, after)
				}
				w.live()
				w.rolledOut("web", 3)
				if len(w.pods()) != 3 || len(w.sets()) != 2 {
					t.Errorf("%d pods, %d sets", len(w.pods()), len(w.sets()))
				}
				w.rests()
			})
		}
	}
}
