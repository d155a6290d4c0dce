package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/daemonset"
	"hansa.dev/hansa/internal/podstate"
	"hansa.dev/hansa/internal/revision"
)

func daemonSets(c client.Interface, r events.Recorder) controller.Loop { return daemonset.New(c, r) }

func aDaemonSet(name string) *appsv1.DaemonSet {
	labels := map[string]string{"app": name}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "one")},
	}
}

func surging(ds *appsv1.DaemonSet, most string) *appsv1.DaemonSet {
	ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{
		Type:          appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.Parse(most))},
	}
	return ds
}

// daemons is a world with nodes, and the loops that daemon sets need.
func daemons(t testing.TB, in tester, nodes ...string) *world {
	w := newWorldIn(t, in)
	w.run(daemonSets)
	w.run(collector)
	for _, name := range nodes {
		create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return w
}

func (w *world) daemonSet(name string) *appsv1.DaemonSet {
	return get[*appsv1.DaemonSet](w, "default", name)
}

// setDaemonImage is `kubectl set image`.
func (w *world) setDaemonImage(name, image string) {
	w.Helper()
	update(w, w.daemonSet(name), "", func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = image })
}

// where are the nodes and images of the pods of an app that are not on their way
// out.
func (w *world) where(app string) string {
	var out []string
	for _, p := range w.pods() {
		if p.Labels["app"] == app && p.DeletionTimestamp == nil {
			out = append(out, placeFor(p)+":"+p.Spec.Containers[0].Image)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// uidsOf are the pods of an app.
func (w *world) uidsOf(app string) []types.UID {
	var out []types.UID
	for _, p := range w.pods() {
		if p.Labels["app"] == app {
			out = append(out, p.UID)
		}
	}
	slices.Sort(out)
	return out
}

// revisionsOf are the numbers and images of a history.
func (w *world) revisionsOf(app string) string {
	all := slices.DeleteFunc(all[*appsv1.ControllerRevision](w, "default"), func(r *appsv1.ControllerRevision) bool { return r.Labels["app"] != app })
	revision.Sort(all)
	var out []string
	for _, r := range all {
		t, err := revision.Template(r)
		if err != nil {
			w.Fatal(err)
		}
		out = append(out, fmt.Sprint(r.Revision, ":", t.Spec.Containers[0].Image))
	}
	return strings.Join(out, " ")
}

// Documentation: "DaemonSet"; nodes come, go and change.
func TestDaemonSetFollowsNodes(t *testing.T) {
	w := daemons(t, t, "a", "b")
	ds := create(w, aDaemonSet("logs"))
	w.settle()
	if s := w.daemonSet("logs").Status; s.DesiredNumberScheduled != 2 || s.CurrentNumberScheduled != 2 || s.NumberReady != 0 || s.NumberUnavailable != 2 || s.UpdatedNumberScheduled != 2 || s.ObservedGeneration != 1 {
		t.Errorf("the status is %+v", s)
	}
	w.live()
	if got := w.where("logs"); got != "a:one b:one" {
		t.Errorf("pods: %s", got)
	}
	if s := w.daemonSet("logs").Status; s.NumberReady != 2 || s.NumberAvailable != 2 || s.NumberUnavailable != 0 || s.NumberMisscheduled != 0 {
		t.Errorf("the status is %+v", s)
	}
	w.said("Normal SuccessfulCreate Created pod: logs-")
	w.rests()
	if len(w.events) > 0 {
		t.Errorf("at rest: %v", w.events)
	}

	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c"}})
	w.live()
	if got := w.where("logs"); got != "a:one b:one c:one" {
		t.Errorf("pods: %s", got)
	}
	taint := func(name string, taints ...corev1.Taint) {
		update(w, w.node(name), "", func(n *corev1.Node) { n.Spec.Taints = taints })
		w.live()
	}
	taint("a", corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoSchedule})
	if s := w.daemonSet("logs").Status; w.where("logs") != "a:one b:one c:one" || s.NumberMisscheduled != 1 || s.DesiredNumberScheduled != 2 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	taint("a", corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute})
	if s := w.daemonSet("logs").Status; w.where("logs") != "b:one c:one" || s.NumberMisscheduled != 0 || s.DesiredNumberScheduled != 2 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	w.said("Normal SuccessfulDelete Deleted pod: logs-")
	taint("a")
	update(w, ds, "", func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
	w.live()
	if s := w.daemonSet("logs").Status; w.where("logs") != "" || s.DesiredNumberScheduled != 0 || s.ObservedGeneration != 2 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	update(w, w.node("b"), "", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	w.live()
	if got := w.where("logs"); got != "b:one" {
		t.Errorf("pods: %s", got)
	}
	w.rests()

	// A pod that could never be placed on a node that is gone goes.
	update(w, w.node("c"), "", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })
	w.settle()
	remove(w, w.node("c"), metav1.DeleteOptions{})
	w.settle()
	w.live()
	if s := w.daemonSet("logs").Status; w.where("logs") != "b:one" || s.DesiredNumberScheduled != 1 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	w.rests()

	remove(w, ds, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.live()
	if n := len(w.pods()) + len(all[*appsv1.ControllerRevision](w, "default")); n != 0 {
		t.Errorf("%d pods and revisions are left", n)
	}
}

// A node wakes only the sets to which it is something else than before.
func TestNodesWakeWhomTheyConcern(t *testing.T) {
	w := daemons(t, t, "a")
	d := w.loops[0]
	create(w, aDaemonSet("everywhere"))
	picky := aDaemonSet("picky")
	picky.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	create(w, picky)
	w.live()
	woken := func(change func(*corev1.Node)) string {
		update(w, w.node("a"), "", change)
		var names []string
		for _, key := range d.ready {
			names = append(names, key.Name)
		}
		w.live()
		return strings.Join(names, " ")
	}
	if got := woken(func(n *corev1.Node) { n.Annotations = map[string]string{"beat": "1"} }); got != "" {
		t.Errorf("an annotation wakes %s", got)
	}
	if got := woken(func(n *corev1.Node) { n.Labels = map[string]string{"color": "red"} }); got != "" {
		t.Errorf("a label that nobody asks for wakes %s", got)
	}
	if got := woken(func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} }); got != "picky" {
		t.Errorf("a label wakes %s", got)
	}
	if got := woken(func(n *corev1.Node) { n.Spec.Unschedulable = true }); got != "" {
		t.Errorf("cordoning wakes %s", got)
	}
}

// Documentation: "Perform a Rolling Update on a DaemonSet", "Perform a Rollback on a
// DaemonSet".
func TestDaemonSetUpdateAndUndo(t *testing.T) {
	w := daemons(t, t, "a", "b", "c")
	create(w, aDaemonSet("logs"))
	w.live()
	for _, p := range w.pods() {
		if p.Labels["controller-revision-hash"] == "" || p.Labels["pod-template-generation"] != "1" {
			t.Errorf("labels of pod %s: %v", p.Name, p.Labels)
		}
	}
	w.setDaemonImage("logs", "two")
	w.settle()
	ending := slices.DeleteFunc(w.pods(), func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil })
	if len(ending) != 1 {
		t.Errorf("%d pods are updated at once", len(ending))
	}
	w.live()
	if got := w.where("logs"); got != "a:two b:two c:two" {
		t.Errorf("pods: %s", got)
	}
	if s := w.daemonSet("logs").Status; s.UpdatedNumberScheduled != 3 || s.NumberAvailable != 3 || s.ObservedGeneration != 2 {
		t.Errorf("the status is %+v", s)
	}
	if got := w.revisionsOf("logs"); got != "1:one 2:two" {
		t.Errorf("revisions: %s", got)
	}
	w.rests()

	// An update that cannot succeed is undone; what it did not reach is not restarted
	// (conformance: "should rollback without unnecessary restarts").
	before := w.uidsOf("logs")
	w.setDaemonImage("logs", "broken")
	w.settle()
	for _, p := range w.pods() {
		if p.DeletionTimestamp != nil {
			w.gone(p)
		}
	}
	w.settle()
	if got := w.where("logs"); got != "a:broken b:two c:two" {
		t.Errorf("pods: %s", got)
	}
	for _, r := range all[*appsv1.ControllerRevision](w, "default") {
		if r.Revision == 2 { // kubectl rollout undo
			ds := w.daemonSet("logs")
			if _, err := w.api.Patch(t.Context(), api.RefTo(w.row(ds), ds), types.StrategicMergePatchType, r.Data.Raw, metav1.PatchOptions{}, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.live()
	after := w.uidsOf("logs")
	kept := slices.DeleteFunc(slices.Clone(before), func(uid types.UID) bool { return !slices.Contains(after, uid) })
	if got := w.where("logs"); got != "a:two b:two c:two" || len(kept) != 2 {
		t.Errorf("pods: %s, of which %d were there before", got, len(kept))
	}
	if got := w.revisionsOf("logs"); got != "1:one 3:broken 4:two" {
		t.Errorf("revisions: %s", got)
	}
	w.rests()

	// kubectl rollout restart, and a shorter history.
	update(w, w.daemonSet("logs"), "", func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
		ds.Spec.RevisionHistoryLimit = ptr.To[int32](1)
	})
	w.live()
	if got := w.revisionsOf("logs"); got != "4:two 5:two" || slices.ContainsFunc(w.uidsOf("logs"), func(uid types.UID) bool { return slices.Contains(after, uid) }) {
		t.Errorf("revisions: %s", got)
	}
	w.rests()
}

// With maxSurge a new pod is available before the old one goes.
func TestDaemonSetSurge(t *testing.T) {
	w := daemons(t, t, "a", "b")
	ds := surging(aDaemonSet("logs"), "1")
	ds.Spec.MinReadySeconds = 10
	create(w, ds)
	w.live()
	w.pass(10 * time.Second)
	if s := w.daemonSet("logs").Status; s.NumberReady != 2 || s.NumberAvailable != 2 {
		t.Errorf("the status is %+v", s)
	}
	w.setDaemonImage("logs", "two")
	w.settle()
	if got := w.where("logs"); got != "a:one a:two b:one" {
		t.Errorf("pods: %s", got)
	}
	w.live()
	w.pass(8 * time.Second)
	if got := w.where("logs"); got != "a:one a:two b:one" {
		t.Errorf("pods: %s", got)
	}
	w.pass(3 * time.Second)
	if got := w.where("logs"); got != "a:two b:one b:two" && got != "a:two b:one" {
		t.Errorf("pods: %s", got)
	}
	for range 4 {
		w.live()
		w.pass(11 * time.Second)
	}
	if got := w.where("logs"); got != "a:two b:two" {
		t.Errorf("pods: %s", got)
	}
	w.rests()
}

func TestDaemonSetOnDelete(t *testing.T) {
	w := daemons(t, t, "a", "b")
	ds := aDaemonSet("logs")
	ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
	create(w, ds)
	w.live()
	w.setDaemonImage("logs", "two")
	w.live()
	if s := w.daemonSet("logs").Status; w.where("logs") != "a:one b:one" || s.UpdatedNumberScheduled != 0 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	for _, p := range w.pods() {
		if placeFor(p) == "b" {
			remove(w, p, metav1.DeleteOptions{})
		}
	}
	w.live()
	if s := w.daemonSet("logs").Status; w.where("logs") != "a:one b:two" || s.UpdatedNumberScheduled != 1 {
		t.Errorf("pods: %s, status %+v", w.where("logs"), s)
	}
	w.rests()
}

// Failed pods are replaced, those that fail again and again ever more rarely.
func TestDaemonSetReplacesFailedPods(t *testing.T) {
	w := daemons(t, t, "a")
	create(w, aDaemonSet("logs"))
	w.live()
	fail := func() string {
		w.clock.Step(100 * time.Millisecond)
		p := w.running()[0]
		w.exits(p, 1)
		w.settle()
		return p.Name
	}
	name := fail()
	w.said("Warning FailedDaemonPod Found failed daemon pod default/"+name+" on node a, will try to kill it", "Normal SuccessfulDelete Deleted pod: "+name)
	w.live()
	if len(w.running()) != 1 || w.running()[0].Name == name {
		t.Fatalf("pods: %s", w.where("logs"))
	}
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		name = fail()
		start := w.clock.Now()
		for w.pod(name) != nil && w.pod(name).DeletionTimestamp == nil {
			w.pass(100 * time.Millisecond)
			if w.clock.Now().Sub(start) > time.Minute {
				t.Fatalf("pod %s is still there", name)
			}
		}
		if got := w.clock.Now().Sub(start); got > pause || got < pause-3*time.Second {
			t.Errorf("deleted after %s, not %s", got, pause)
		}
		w.live()
	}
	w.exits(w.running()[0], 0)
	w.settle()
	w.said("Normal SucceededDaemonPod Found succeeded daemon pod")
	w.live()
	w.rests()
}

// Pods and revisions of a set that was deleted without them are those of one made
// anew; duplicates go, and what is no longer selected is let go of.
func TestDaemonSetAdopts(t *testing.T) {
	w := daemons(t, t, "a", "b")
	ds := create(w, aDaemonSet("logs"))
	w.live()
	before := w.uidsOf("logs")
	remove(w, ds, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan)})
	w.live()
	if n := len(w.running()); n != 2 || metav1.GetControllerOf(w.running()[0]) != nil {
		t.Fatalf("%d pods are left", n)
	}
	ds = create(w, aDaemonSet("logs"))
	w.live()
	if got := w.uidsOf("logs"); !slices.Equal(got, before) || w.revisionsOf("logs") != "1:one" {
		t.Errorf("other pods, or revisions: %s", w.revisionsOf("logs"))
	}
	w.rests()

	second := aPod("second", template(map[string]string{"app": "logs"}, "one"))
	second.Spec.NodeName = "a"
	create(w, second)
	w.live()
	if got := w.uidsOf("logs"); !slices.Equal(got, before) {
		t.Error("the duplicate did not go")
	}
	p := w.running()[0]
	update(w, p, "", func(p *corev1.Pod) { p.Labels["app"] = "mine" })
	w.live()
	if ref := metav1.GetControllerOf(w.pod(p.Name)); ref != nil || w.where("logs") != "a:one b:one" {
		t.Errorf("the released pod is controlled by %v; pods: %s", ref, w.where("logs"))
	}
	w.rests()

	// A revision that keeps the same template: its pods are not updated.
	twin := all[*appsv1.ControllerRevision](w, "default")[0].DeepCopy()
	twin.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "twin", Labels: map[string]string{"app": "logs", "controller-revision-hash": "twin"}}
	twin.Revision = 7
	create(w, twin)
	now := w.uidsOf("logs")
	w.live()
	if got := w.uidsOf("logs"); !slices.Equal(got, now) || w.revisionsOf("logs") != "7:one" {
		t.Errorf("revisions: %s", w.revisionsOf("logs"))
	}
	for _, p := range w.pods() {
		if p.Labels["app"] == "logs" && p.Labels["controller-revision-hash"] != "twin" {
			t.Errorf("pod %s has the revision %s", p.Name, p.Labels["controller-revision-hash"])
		}
	}
	w.rests()
}

// The name of a revision that is another's is counted, and another one is taken.
func TestDaemonSetCollision(t *testing.T) {
	w := daemons(t, t, "a")
	d := w.loops[0]
	w.loops = w.loops[1:]
	ds := create(w, aDaemonSet("logs"))
	data, err := revision.Data(&ds.Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	create(w, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "logs-" + revision.Hash(data, nil)}, Revision: 3, Data: runtime.RawExtension{Raw: []byte("{}")}})
	w.loops = append(w.loops, d)
	w.live()
	if s := w.daemonSet("logs").Status; ptr.Deref(s.CollisionCount, 0) != 1 || s.NumberAvailable != 1 {
		t.Errorf("the status is %+v", s)
	}
	w.rests()
}

// What keeps pods from being made is told, and tried again.
func TestDaemonSetFails(t *testing.T) {
	w := daemons(t, t, "a")
	d := w.loops[0]
	create(w, aDaemonSet("logs"))
	w.settle()
	create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}})
	d.client.refuse = apierrors.NewForbidden(corev1.Resource("pods"), "", nil)
	d.step()
	w.said("Warning FailedCreate Error creating: pods")
	if s := w.daemonSet("logs").Status; s.DesiredNumberScheduled != 2 || s.CurrentNumberScheduled != 1 {
		t.Errorf("the status is %+v", s)
	}
	d.client.refuse = nil
	w.live()
	w.rests()
}

// Whatever dies when, no node has two pods of a set without surge, nor three with
// it, and in the end each has the one that it should.
func TestDaemonSetSurvivesDeath(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		nodes := []string{"a", "b", "c"}
		w := daemons(t, r, nodes...)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		loop := w.loops[0]
		ds, limit := aDaemonSet("logs"), 1
		if rapid.Bool().Draw(r, "surges") {
			ds, limit = surging(ds, "2"), 2
		}
		create(w, ds)
		for i := range 20 {
			if rapid.Bool().Draw(r, "dies") {
				loop.client.dieAt(rapid.IntRange(0, 5).Draw(r, "at write"), rapid.Bool().Draw(r, "after it"))
			}
			pods := w.pods()
			switch what := rapid.SampledFrom([]string{"image", "agent", "agent", "fail", "taint", "delete", "time"}).Draw(r, "what"); {
			case what == "image":
				w.setDaemonImage("logs", fmt.Sprint("i", rapid.IntRange(0, i).Draw(r, "image")))
			case what == "time":
				w.pass(time.Minute)
			case what == "taint":
				update(w, w.node(rapid.SampledFrom(nodes).Draw(r, "node")), "", func(n *corev1.Node) {
					n.Spec.Taints = rapid.SampledFrom([][]corev1.Taint{nil, {{Key: "k", Effect: corev1.TaintEffectNoSchedule}}, {{Key: "k", Effect: corev1.TaintEffectNoExecute}}}).Draw(r, "taints")
				})
			case what == "agent":
				w.agent()
			case len(pods) == 0:
			case what == "fail":
				if p := rapid.SampledFrom(pods).Draw(r, "pod"); !podstate.Finished(p) && p.DeletionTimestamp == nil {
					w.exits(w.runs(p), 1)
				}
			case what == "delete":
				remove(w, rapid.SampledFrom(pods).Draw(r, "pod"), metav1.DeleteOptions{})
			}
			w.settle()
			count := map[string]int{}
			for _, p := range w.pods() {
				if podstate.Active(p) {
					if count[placeFor(p)]++; count[placeFor(p)] > limit {
						r.Fatalf("node %s has %d pods", placeFor(p), count[placeFor(p)])
					}
				}
			}
		}
		for range 6 {
			w.live()
			w.pass(20 * time.Minute)
		}
		s := w.daemonSet("logs").Status
		if s.NumberAvailable != s.DesiredNumberScheduled || s.UpdatedNumberScheduled != s.DesiredNumberScheduled || s.CurrentNumberScheduled != s.DesiredNumberScheduled {
			r.Errorf("at the end the status is %+v", s)
		}
		w.rests()
	})
}
