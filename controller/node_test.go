package controller_test

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/nodelifecycle"
	"hansa.dev/hansa/controller/podgc"
	"hansa.dev/hansa/controller/tainteviction"
	"hansa.dev/hansa/internal/podstate"
)

func nodeLifecycle(c client.Interface, r events.Recorder) controller.Loop {
	return nodelifecycle.New(c, r)
}
func evictions(c client.Interface, r events.Recorder) controller.Loop { return tainteviction.New(c, r) }
func podCollector(c client.Interface, _ events.Recorder) controller.Loop {
	return podgc.New(c)
}

func fleet(t *testing.T) *world {
	w := newWorld(t)
	w.run(nodeLifecycle)
	w.run(evictions)
	w.run(podCollector)
	return w
}

func (w *world) node(name string) *corev1.Node { return get[*corev1.Node](w, "", name) }

// joins adds a node whose agent says that it is ready.
func (w *world) joins(name string) {
	w.Helper()
	n := create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	w.says(n.Name, corev1.ConditionTrue)
	create(w, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}})
	w.beats(name)
}

// says is what a node's agent reports.
func (w *world) says(name string, ready corev1.ConditionStatus) {
	w.Helper()
	update(w, w.node(name), "status", func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, LastHeartbeatTime: w.stamp(), LastTransitionTime: w.stamp()}}
	})
}

// beats renews the leases of nodes.
func (w *world) beats(names ...string) {
	w.Helper()
	for _, name := range names {
		now := metav1.NewMicroTime(w.clock.Now())
		update(w, get[*coordinationv1.Lease](w, corev1.NamespaceNodeLease, name), "", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &now })
	}
}

// on puts a running pod on a node.
func (w *world) on(node, name string, tolerations ...corev1.Toleration) *corev1.Pod {
	w.Helper()
	p := aPod(name, template(nil, "one"))
	p.Spec.NodeName, p.Spec.Tolerations = node, tolerations
	return w.runs(create(w, p))
}

func (w *world) taints(name string) string {
	var keys []string
	for _, t := range w.node(name).Spec.Taints {
		keys = append(keys, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	return strings.Join(keys, " ")
}

// time lets time pass while the agents of some nodes are heard.
func (w *world) time(d time.Duration, heard ...string) {
	w.Helper()
	for end := w.clock.Now().Add(d); w.clock.Now().Before(end); {
		w.beats(heard...)
		w.pass(10 * time.Second)
	}
}

// Documentation: "Nodes", "Node heartbeats", "Rate limits on eviction".
func TestSilentNode(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.joins("b")
	w.settle()
	w.said("Normal RegisteredNode Node b event: Registered Node b in Controller")
	brief := w.on("b", "brief", corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300)})
	loyal := w.on("b", "loyal", corev1.Toleration{Operator: corev1.TolerationOpExists})
	w.time(time.Hour, "a", "b")
	w.rests()
	w.time(49*time.Second, "a")
	w.time(20*time.Second, "a")
	if got := w.taints("b"); got != "unreachable:NoSchedule unreachable:NoExecute" {
		t.Fatalf("taints = %s", got)
	}
	if podstate.Ready(w.pod("brief")) || podstate.Ready(w.pod("loyal")) {
		t.Error("pods of a lost node are ready")
	}
	w.said("Normal NodeNotReady Node b status is now: NodeNotReady", "Warning NodeNotReady Node is not ready")
	w.time(270*time.Second, "a")
	if w.pod("brief").DeletionTimestamp != nil {
		t.Error("evicted too early")
	}
	w.time(20*time.Second, "a")
	brief = w.pod("brief")
	if brief.DeletionTimestamp == nil || podstate.Condition(brief, corev1.DisruptionTarget) == nil || w.pod("loyal").DeletionTimestamp != nil {
		t.Errorf("brief is deleted at %v, loyal at %v", brief.DeletionTimestamp, w.pod("loyal").DeletionTimestamp)
	}
	w.said("Normal TaintManagerEviction Marking for deletion Pod default/brief")
	w.rests()

	// It comes back.
	w.beats("b")
	w.says("b", corev1.ConditionTrue)
	w.runs(loyal)
	w.settle()
	if got := w.taints("b"); got != "" || !podstate.Ready(w.pod("loyal")) {
		t.Errorf("taints = %s", got)
	}
	w.rests()
	remove(w, w.node("b"), metav1.DeleteOptions{})
	w.settle()
	w.said("Normal RemovingNode Node b event: Removing Node b from Controller")
}

// A pod may tolerate a taint for less time than before.
func TestTolerationChanges(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.joins("b")
	long := corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](100000)}
	p := w.on("b", "p", long)
	w.time(5*time.Minute, "a")
	if w.pod("p").DeletionTimestamp != nil {
		t.Fatal("evicted too early")
	}
	update(w, p, "", func(p *corev1.Pod) { p.Spec.Tolerations[0].TolerationSeconds = ptr.To[int64](10) })
	w.settle()
	if w.pod("p").DeletionTimestamp == nil {
		t.Error("the pod stays longer than it tolerates")
	}
}

// kubectl taint does not say when it did: pods have their time from then on, though
// other things happen to the node meanwhile, and all of it when the taint comes again.
func TestTaintWithoutTime(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.joins("b")
	for name, seconds := range map[string]int64{"brief": 100, "patient": 300} {
		w.on("b", name, corev1.Toleration{Key: "own", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	}
	taint := func(taints ...corev1.Taint) {
		update(w, w.node("b"), "", func(n *corev1.Node) { n.Spec.Taints = taints })
		w.settle()
	}
	own := corev1.Taint{Key: "own", Effect: corev1.TaintEffectNoExecute}
	taint(own)
	w.time(90*time.Second, "a", "b")
	if w.pod("brief").DeletionTimestamp != nil {
		t.Error("evicted too early")
	}
	taint(own, corev1.Taint{Key: "other", Effect: corev1.TaintEffectNoSchedule})
	w.time(20*time.Second, "a", "b")
	if w.pod("brief").DeletionTimestamp == nil || w.pod("patient").DeletionTimestamp != nil {
		t.Errorf("brief is deleted at %v, patient at %v", w.pod("brief").DeletionTimestamp, w.pod("patient").DeletionTimestamp)
	}
	taint()
	w.time(time.Hour, "a", "b")
	taint(own)
	w.time(290*time.Second, "a", "b")
	if w.pod("patient").DeletionTimestamp != nil {
		t.Error("evicted before its time under the second taint")
	}
	w.time(20*time.Second, "a", "b")
	if w.pod("patient").DeletionTimestamp == nil {
		t.Error("never evicted")
	}
	w.rests()
}

// A pod that was to go stays when the taint goes, or when it tolerates it.
func TestEvictionIsCancelled(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.joins("b")
	brief := corev1.Toleration{Key: "own", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](300)}
	w.on("b", "first", brief)
	second := w.on("b", "second", brief)
	now := w.stamp()
	update(w, w.node("b"), "", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "own", Effect: corev1.TaintEffectNoExecute, TimeAdded: &now}}
	})
	w.time(time.Minute, "a", "b")
	update(w, second, "", func(p *corev1.Pod) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "own", Operator: corev1.TolerationOpExists})
		p.Spec.Tolerations[0], p.Spec.Tolerations[1] = p.Spec.Tolerations[1], p.Spec.Tolerations[0]
	})
	w.events = nil
	w.settle()
	if len(w.events) != 1 {
		t.Errorf("told %q", w.events)
	}
	w.said("Normal TaintManagerEviction Cancelling deletion of Pod default/second")
	update(w, w.node("b"), "", func(n *corev1.Node) { n.Spec.Taints = nil })
	w.settle()
	if len(w.events) != 1 {
		t.Errorf("told %q", w.events)
	}
	w.said("Normal TaintManagerEviction Cancelling deletion of Pod default/first")
	w.time(time.Hour, "a", "b")
	if w.pod("first").DeletionTimestamp != nil || w.pod("second").DeletionTimestamp != nil || len(w.events) > 0 {
		t.Errorf("a pod was evicted; told %q", w.events)
	}
	w.rests()
}

// Where no node is ready, none is to be fled from: the only node of a cluster
// keeps its pods.
func TestOnlyNodeKeepsItsPods(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.on("a", "p")
	w.time(time.Hour)
	if got := w.taints("a"); got != "unreachable:NoSchedule" {
		t.Errorf("taints = %s", got)
	}
	if p := w.pod("p"); p.DeletionTimestamp != nil {
		t.Error("the pod was evicted")
	}
	w.rests()
	w.joins("b")
	w.settle()
	if got := w.taints("a"); got != "unreachable:NoSchedule unreachable:NoExecute" {
		t.Errorf("taints = %s", got)
	}
}

// A restarted server does not take its own absence for the node's.
func TestRestartIsPatient(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.on("a", "p")
	w.settle()
	w.clock.Step(time.Hour)
	for _, d := range w.loops {
		d.restart()
	}
	w.settle()
	w.pass(40 * time.Second)
	if !podstate.Ready(w.pod("p")) || w.taints("a") != "" {
		t.Fatalf("taints = %s", w.taints("a"))
	}
	w.beats("a")
	w.pass(40 * time.Second)
	if w.taints("a") != "" {
		t.Errorf("taints = %s", w.taints("a"))
	}
	w.time(60 * time.Second)
	if w.taints("a") == "" {
		t.Error("silence went unnoticed")
	}
}

// A node that says that it is not ready has its pods marked once, not against
// its agent's word.
func TestAgentHasTheLastWord(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	p := w.on("a", "p")
	w.settle()
	w.clock.Step(10 * time.Second)
	w.says("a", corev1.ConditionFalse)
	w.settle()
	if podstate.Ready(w.pod("p")) {
		t.Error("the pod was not marked")
	}
	w.clock.Step(10 * time.Second)
	w.runs(p)
	update(w, w.node("a"), "", func(n *corev1.Node) { n.Spec.Unschedulable = true })
	w.settle()
	if !podstate.Ready(w.pod("p")) || w.taints("a") != "not-ready:NoSchedule unschedulable:NoSchedule" {
		t.Errorf("taints = %s", w.taints("a"))
	}
	w.rests()
}

// Documentation: "Pod Lifecycle", "Garbage collection of Pods".
func TestPodsThatNobodyHas(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	lost := w.on("a", "lost")
	ended := w.on("a", "ended")
	w.exits(ended, 0)
	unplaced := create(w, aPod("unplaced", template(nil, "one")))
	update(w, unplaced, "", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/f"} })
	remove(w, unplaced, metav1.DeleteOptions{})
	w.settle()
	if p := w.pod("unplaced"); p.Status.Phase != corev1.PodFailed {
		t.Errorf("a pod that is deleted and will never run is %s: its owner waits for its end", p.Status.Phase)
	}
	held := w.on("a", "held")
	update(w, held, "", func(p *corev1.Pod) { p.Finalizers = []string{"example.com/f"} })
	w.settle()
	remove(w, w.node("a"), metav1.DeleteOptions{})
	w.settle()
	w.pass(39 * time.Second)
	if w.pod("lost") == nil {
		t.Fatal("removed too early")
	}
	w.pass(2 * time.Second)
	held = w.pod("held")
	if w.pod(lost.Name) != nil || w.pod("ended") != nil || held.Status.Phase != corev1.PodFailed || podstate.Condition(held, corev1.DisruptionTarget).Reason != "DeletionByPodGC" {
		t.Errorf("lost %v, held %+v", w.pod("lost"), held.Status)
	}
	w.pass(time.Minute)
	w.rests()
}

// Documentation: "Node Shutdowns", "Non-graceful node shutdown handling".
func TestNodeOutOfService(t *testing.T) {
	w := fleet(t)
	w.joins("a")
	w.joins("b")
	w.on("b", "going", corev1.Toleration{Operator: corev1.TolerationOpExists})
	w.on("b", "stays", corev1.Toleration{Operator: corev1.TolerationOpExists})
	w.settle()
	remove(w, w.pod("going"), metav1.DeleteOptions{})
	w.time(2*time.Minute, "a")
	if w.pod("going") == nil {
		t.Fatal("the pod is gone though its agent did not say so")
	}
	update(w, w.node("b"), "", func(n *corev1.Node) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute})
	})
	w.settle()
	if w.pod("going") != nil || w.pod("stays") == nil {
		t.Errorf("going %v, stays %v", w.pod("going"), w.pod("stays"))
	}
	w.rests()
}
