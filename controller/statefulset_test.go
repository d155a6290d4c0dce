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
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/statefulset"
)

func statefulSets(c client.Interface, r events.Recorder) controller.Loop {
	return statefulset.New(c, r)
}

func aStatefulSet(name string, replicas int32) *appsv1.StatefulSet {
	labels := map[string]string{"app": name}
	return &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To(replicas), ServiceName: name, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "one"),
		},
	}
}

// parallel makes a set one whose pods come and go at once.
func parallel(set *appsv1.StatefulSet) *appsv1.StatefulSet {
	set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	return set
}

func stateful(t *testing.T) *world {
	w := newWorld(t)
	w.run(statefulSets)
	w.run(collector)
	return w
}

func (w *world) statefulSet(name string) *appsv1.StatefulSet {
	return get[*appsv1.StatefulSet](w, "default", name)
}

// change is an update of the set web.
func (w *world) change(f func(spec *appsv1.StatefulSetSpec)) {
	w.Helper()
	update(w, w.statefulSet("web"), "", func(set *appsv1.StatefulSet) { f(&set.Spec) })
}

// image is `kubectl set image` of the set web.
func (w *world) image(image string) {
	w.Helper()
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Template.Spec.Containers[0].Image = image })
}

func (w *world) history() []*appsv1.ControllerRevision {
	return all[*appsv1.ControllerRevision](w, "default")
}

// images are those of the pods that there are, as ORDINAL:IMAGE, with a minus
// for one that is going.
func (w *world) images() string {
	var out []string
	for _, p := range all[*corev1.Pod](w, "default") {
		text := p.Name[strings.LastIndex(p.Name, "-")+1:] + ":" + p.Spec.Containers[0].Image
		if p.DeletionTimestamp != nil {
			text = "-" + text
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func (w *world) has(want string) {
	w.Helper()
	if got := w.images(); got != want {
		w.Errorf("the pods are %q, want %q", got, want)
	}
}

// updated is what `kubectl rollout status` waits for.
func (w *world) updated(name string, replicas int32) {
	w.Helper()
	set := w.statefulSet(name)
	s := set.Status
	if s.ObservedGeneration != set.Generation || s.Replicas != replicas || s.ReadyReplicas != replicas || s.AvailableReplicas != replicas ||
		s.UpdatedReplicas != replicas || s.CurrentReplicas != replicas || s.CurrentRevision != s.UpdateRevision || s.UpdateRevision == "" {
		w.Errorf("not updated: generation %d, status %+v", set.Generation, s)
	}
	pods := slices.DeleteFunc(w.running(), func(p *corev1.Pod) bool { return p.Labels["app"] != name })
	if len(pods) != int(replicas) {
		w.Errorf("%d pods run, want %d", len(pods), replicas)
	}
	for _, p := range pods {
		if p.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image || p.Labels[appsv1.ControllerRevisionHashLabelKey] != s.UpdateRevision {
			w.Errorf("pod %s runs %s of revision %s", p.Name, p.Spec.Containers[0].Image, p.Labels[appsv1.ControllerRevisionHashLabelKey])
		}
	}
}

// Documentation: "StatefulSets", "Pod Identity", "Deployment and Scaling
// Guarantees".
func TestStatefulSet(t *testing.T) {
	w := stateful(t)
	create(w, aStatefulSet("web", 3))
	w.settle()
	w.has("0:one")
	w.runs(w.pod("web-0"))
	w.settle()
	w.has("0:one 1:one")
	if s := w.statefulSet("web").Status; s.Replicas != 2 || s.ReadyReplicas != 1 || s.CurrentRevision == "" || s.CurrentRevision != s.UpdateRevision || *s.CollisionCount != 0 {
		t.Errorf("status = %+v", s)
	}
	w.live()
	w.has("0:one 1:one 2:one")
	w.updated("web", 3)
	w.said("Normal SuccessfulCreate Create Pod web-0 in StatefulSet web successful", "Create Pod web-2 in StatefulSet web successful")
	w.rests()

	p, set := w.pod("web-1"), w.statefulSet("web")
	if p.Spec.Hostname != "web-1" || p.Spec.Subdomain != "web" || !metav1.IsControlledBy(p, set) {
		t.Errorf("hostname %s, subdomain %s, owners %v", p.Spec.Hostname, p.Spec.Subdomain, p.OwnerReferences)
	}
	for label, want := range map[string]string{
		"app": "web", "statefulset.kubernetes.io/pod-name": "web-1", "apps.kubernetes.io/pod-index": "1", "controller-revision-hash": set.Status.CurrentRevision,
	} {
		if p.Labels[label] != want {
			t.Errorf("label %s = %q, want %q", label, p.Labels[label], want)
		}
	}

	// It shrinks from the end, one after the other.
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](1) })
	w.settle()
	w.has("0:one 1:one -2:one")
	w.gone(w.pod("web-2"))
	w.settle()
	w.has("0:one -1:one")
	w.live()
	w.updated("web", 1)
	w.said("Normal SuccessfulDelete Delete Pod web-2 in StatefulSet web successful")
	w.rests()
}

// Documentation: "StatefulSets", "Start ordinal"; a name is taken once, also
// when the ordinals move.
func TestStartOrdinal(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 2)
	set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5}
	create(w, set)
	w.live()
	w.has("5:one 6:one")
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Ordinals.Start = 6 })
	w.live()
	w.has("6:one 7:one")
	w.updated("web", 2)
	w.rests()
}

// Documentation: "StatefulSets", "Parallel Pod Management".
func TestParallelPodManagement(t *testing.T) {
	w := stateful(t)
	create(w, parallel(aStatefulSet("web", 3)))
	w.settle()
	w.has("0:one 1:one 2:one")
	w.live()
	w.updated("web", 3)
	w.image("two")
	w.settle()
	w.has("0:one 1:one -2:one")
	w.live()
	w.updated("web", 3)
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](0) })
	w.settle()
	w.has("-0:two -1:two -2:two")
	w.live()
	w.updated("web", 0)
	w.rests()
}

// Documentation: "StatefulSets", "Rolling Updates", "Maximum unavailable Pods".
func TestMaxUnavailable(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 5)
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
		Type:          appsv1.RollingUpdateStatefulSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr.To(intstr.FromString("40%"))},
	}
	create(w, set)
	w.live()
	w.image("two")
	w.settle()
	w.has("0:one 1:one 2:one -3:one -4:one")
	w.live()
	w.updated("web", 5)
	w.rests()
}

// Documentation: "StatefulSets", "Partitioned rolling updates": a canary, then
// phases; pods below the partition are made again as they were.
func TestPartition(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 3)
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{
		Type:          appsv1.RollingUpdateStatefulSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](3)},
	}
	create(w, set)
	w.live()
	w.image("two")
	w.live()
	w.has("0:one 1:one 2:one")
	to := func(n int32) {
		w.change(func(spec *appsv1.StatefulSetSpec) { spec.UpdateStrategy.RollingUpdate.Partition = ptr.To(n) })
		w.live()
	}
	to(2)
	w.has("0:one 1:one 2:two")
	first, second := w.statefulSet("web").Status.CurrentRevision, w.statefulSet("web").Status.UpdateRevision
	if s := w.statefulSet("web").Status; first == second || s.CurrentReplicas != 2 || s.UpdatedReplicas != 1 {
		t.Errorf("status = %+v", s)
	}
	for _, p := range w.running() {
		remove(w, p, metav1.DeleteOptions{})
	}
	w.live()
	w.has("0:one 1:one 2:two")
	for n, want := range []string{first, first, second} {
		if got := w.pod(fmt.Sprint("web-", n)).Labels[appsv1.ControllerRevisionHashLabelKey]; got != want {
			t.Errorf("pod %d is of revision %s, want %s", n, got, want)
		}
	}
	w.rests()
	to(1)
	w.has("0:one 1:two 2:two")
	to(3) // stops the update, and takes nothing back
	w.has("0:one 1:two 2:two")
	w.rests()
	to(0)
	w.updated("web", 3)
	w.rests()
}

// Documentation: "StatefulSets", "Update strategies".
func TestOnDelete(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 2)
	set.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
	create(w, set)
	w.live()
	w.image("two")
	w.live()
	w.has("0:one 1:one")
	remove(w, w.pod("web-0"), metav1.DeleteOptions{})
	w.live()
	w.has("0:two 1:one")
	remove(w, w.pod("web-1"), metav1.DeleteOptions{})
	w.live()
	w.updated("web", 2)
	w.rests()
}

// In Kubernetes a revision that cannot become ready stays until its pod is
// deleted by hand, even once the template is mended (documentation:
// "StatefulSets", "Forced rollback"). Here the pod makes way.
func TestRevisionThatNeverBecameReadyHeals(t *testing.T) {
	w := stateful(t)
	create(w, aStatefulSet("web", 3))
	w.live()
	w.image("broken")
	w.settle()
	w.gone(w.pod("web-2"))
	w.settle()
	update(w, w.runs(w.pod("web-2")), "status", func(p *corev1.Pod) {
		setReady(p, false, w.stamp())
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "broken", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
	})
	w.rests()
	w.has("0:one 1:one 2:broken")
	w.image("one") // kubectl rollout undo
	w.settle()
	w.has("0:one 1:one -2:broken")
	w.said("Normal ReplacingPod Pod web-2 of revision web-", "container c is in ImagePullBackOff")
	w.live()
	w.updated("web", 3)
	if n := len(w.history()); n != 2 {
		t.Errorf("%d revisions", n)
	}

	// One that runs and is not ready is given a minute.
	w.image("dull")
	w.settle()
	w.gone(w.pod("web-2"))
	w.settle()
	p := w.runs(w.pod("web-2"))
	update(w, p, "status", func(p *corev1.Pod) { setReady(p, false, w.stamp()) })
	w.pass(time.Second)
	w.image("two")
	w.settle()
	w.has("0:one 1:one 2:dull")
	w.pass(time.Minute)
	w.has("0:one 1:one -2:dull")
	w.said("it has not been ready for 1m0s")
	w.live()
	w.updated("web", 3)
	w.rests()
}

// Documentation: "StatefulSets", "Revision history"; kubectl rollout undo,
// restart.
func TestRevisionHistory(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 1)
	set.Spec.RevisionHistoryLimit = ptr.To[int32](1)
	set.Annotations = map[string]string{"kubernetes.io/change-cause": "because"}
	create(w, set)
	w.live()
	for _, image := range []string{"two", "three", "four"} {
		w.image(image)
		w.live()
	}
	numbers := func() (out []int64) {
		for _, r := range w.history() {
			out = append(out, r.Revision)
		}
		slices.Sort(out)
		return out
	}
	if got := numbers(); !slices.Equal(got, []int64{3, 4}) {
		t.Errorf("revisions %v", got)
	}
	// Undo is a patch with a revision's data.
	i := slices.IndexFunc(w.history(), func(r *appsv1.ControllerRevision) bool { return r.Revision == 3 })
	old := w.history()[i]
	ref := api.RefTo(w.row(set), w.statefulSet("web"))
	if _, err := w.api.Patch(t.Context(), ref, "application/strategic-merge-patch+json", old.Data.Raw, metav1.PatchOptions{}, ""); err != nil {
		t.Fatal(err)
	}
	w.live()
	w.has("0:three")
	w.updated("web", 1)
	if got := numbers(); !slices.Equal(got, []int64{4, 5}) || w.statefulSet("web").Status.UpdateRevision != old.Name || old.Annotations["kubernetes.io/change-cause"] != "because" {
		t.Errorf("revisions %v, status %+v", got, w.statefulSet("web").Status)
	}
	w.rests()
	// Two revisions are live, and one beside them is kept, however many pods there are.
	w.change(func(spec *appsv1.StatefulSetSpec) {
		spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](1)
		spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	})
	w.live()
	if got := numbers(); !slices.Equal(got, []int64{4, 5, 6}) {
		t.Errorf("revisions %v", got)
	}
	w.rests()
}

// Documentation: "StatefulSets", "Minimum ready seconds".
func TestStatefulSetMinReadySeconds(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 2)
	set.Spec.MinReadySeconds = 30
	create(w, set)
	w.live()
	w.has("0:one")
	if s := w.statefulSet("web").Status; s.ReadyReplicas != 1 || s.AvailableReplicas != 0 {
		t.Errorf("status = %+v", s)
	}
	w.pass(31 * time.Second)
	w.live()
	w.has("0:one 1:one")
	w.pass(31 * time.Second)
	w.updated("web", 2)
	w.rests()
}

// Any write may be the last one of its process, the loops may take turns in any
// order: no pod is made twice, or out of order, and all are there at the end.
func TestStatefulSetSurvivesCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		loop := w.run(statefulSets)
		w.run(collector)
		set := aStatefulSet("web", 3)
		set.Spec.RevisionHistoryLimit = ptr.To[int32](0)
		set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{aClaimTemplate("data")}
		if rapid.Bool().Draw(r, "parallel") {
			set = parallel(set)
		}
		set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
		dies := func() {
			loop.client.dieAt(rapid.IntRange(0, 12).Draw(r, "write"), rapid.Bool().Draw(r, "after"))
		}
		dies()
		create(w, set)
		w.live()
		w.updated("web", 3)
		dies()
		w.image("two")
		w.live()
		w.updated("web", 3)
		dies()
		w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](1) })
		w.live()
		w.updated("web", 1)
		if n := len(all[*corev1.PersistentVolumeClaim](w, "default")); n != 1 {
			r.Errorf("%d claims are left", n)
		}
		loop.client.heal()
		w.rests()
		if n := len(w.history()); n != 1 {
			r.Errorf("%d revisions are left", n)
		}
	})
}
