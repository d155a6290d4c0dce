package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func aSet(unavailable, surge string) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "logs", UID: "logs", Generation: 3},
		Spec: appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
			Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{
				MaxUnavailable: ptr.To(intstr.Parse(unavailable)), MaxSurge: ptr.To(intstr.Parse(surge)),
			},
		}},
	}
}

func aNode(name string, taints ...corev1.TaintEffect) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": "ssd"}}}
	for _, effect := range taints {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "own", Effect: effect})
	}
	return n
}

var born int

// onNode is a pod of a revision: its name is the node's and the revision.
func onNode(node, hash string, change ...func(*corev1.Pod)) *corev1.Pod {
	born++
	p := newPod(aSet("1", "0"), hash, node)
	p.Name, p.UID = node+"-"+hash, types.UID(fmt.Sprint(born))
	p.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(born) * time.Second))
	p.Spec.NodeName, p.Status.Phase = node, corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}
	for _, f := range change {
		f(p)
	}
	return p
}

func unready(p *corev1.Pod)  { p.Status.Conditions = nil }
func ending(p *corev1.Pod)   { p.DeletionTimestamp = &metav1.Time{Time: now} }
func failed(p *corev1.Pod)   { p.Status.Phase = corev1.PodFailed; unready(p) }
func ended(p *corev1.Pod)    { p.Status.Phase = corev1.PodSucceeded; unready(p) }
func unplaced(p *corev1.Pod) { p.Spec.NodeName = ""; p.Status.Phase = corev1.PodPending; unready(p) }
func again(p *corev1.Pod)    { p.Name += "2" }

// text is what a decision comes to.
func text(d decision) string {
	var parts []string
	for _, n := range d.create {
		parts = append(parts, "+"+n)
	}
	for _, p := range d.remove {
		parts = append(parts, "-"+p.Name)
	}
	for _, n := range d.notes {
		parts = append(parts, n.reason)
	}
	if d.after > 0 {
		parts = append(parts, d.after.String())
	}
	return strings.Join(parts, " ")
}

// Documentation: "DaemonSet", "Perform a Rolling Update on a DaemonSet".
func TestPlan(t *testing.T) {
	abc := []*corev1.Node{aNode("a"), aNode("b"), aNode("c")}
	for name, tt := range map[string]struct {
		set   *appsv1.DaemonSet
		nodes []*corev1.Node
		pods  []*corev1.Pod
		want  string
	}{
		"every node gets one":                       {aSet("1", "0"), abc, nil, "+a +b +c"},
		"those that lack one":                       {aSet("1", "0"), abc, []*corev1.Pod{onNode("a", "new"), onNode("b", "new", unplaced)}, "+c"},
		"not while one is ending":                   {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", ending)}, ""},
		"with surge even then":                      {aSet("0", "1"), abc[:1], []*corev1.Pod{onNode("a", "new", ending)}, "+a"},
		"one that has ended and is ending is none":  {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", failed, ending)}, "+a"},
		"a node with NoSchedule gets none":          {aSet("1", "0"), []*corev1.Node{aNode("a", corev1.TaintEffectNoSchedule)}, nil, ""},
		"one that is there stays":                   {aSet("1", "0"), []*corev1.Node{aNode("a", corev1.TaintEffectNoSchedule)}, []*corev1.Pod{onNode("a", "new")}, ""},
		"not with NoExecute":                        {aSet("1", "0"), []*corev1.Node{aNode("a", corev1.TaintEffectNoExecute)}, []*corev1.Pod{onNode("a", "new")}, "-a-new"},
		"PreferNoSchedule is no matter":             {aSet("1", "0"), []*corev1.Node{aNode("a", corev1.TaintEffectPreferNoSchedule)}, nil, "+a"},
		"pods for nodes that are gone":              {aSet("1", "0"), nil, []*corev1.Pod{onNode("x", "new", unplaced), onNode("y", "new")}, "-x-new"},
		"a duplicate goes, the older stays":         {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new"), onNode("a", "new", again)}, "-a-new2"},
		"a duplicate goes, the placed one stays":    {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", unplaced), onNode("a", "new", again)}, "-a-new"},
		"a duplicate goes, what is available stays": {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", unready), onNode("a", "new", again)}, "-a-new"},
		"a failed pod":                              {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", failed)}, "-a-new FailedDaemonPod"},
		"a failed pod in its pause":                 {aSet("1", "0"), []*corev1.Node{aNode("p")}, []*corev1.Pod{onNode("p", "new", failed)}, "3s"},
		"the same with surge":                       {aSet("0", "1"), []*corev1.Node{aNode("p")}, []*corev1.Pod{onNode("p", "new", failed)}, "3s"},
		"a pod that succeeded":                      {aSet("1", "0"), abc[:1], []*corev1.Pod{onNode("a", "new", ended)}, "-a-new SucceededDaemonPod"},
		"one is updated":                            {aSet("1", "0"), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old"), onNode("c", "old")}, "-a-old"},
		"two are updated":                           {aSet("50%", "0"), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old"), onNode("c", "old")}, "-a-old -b-old"},
		"none while one is not available":           {aSet("1", "0"), abc, []*corev1.Pod{onNode("a", "new", unready), onNode("b", "old"), onNode("c", "old")}, ""},
		"none while one is ending":                  {aSet("1", "0"), abc, []*corev1.Pod{onNode("a", "old", ending), onNode("b", "old"), onNode("c", "old")}, ""},
		"one that is not available anyway":          {aSet("1", "0"), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old", unready), onNode("c", "new", unready)}, "-b-old"},
		"what should not be there is not waited for": {aSet("1", "0"), []*corev1.Node{aNode("a", corev1.TaintEffectNoSchedule), aNode("b")},
			[]*corev1.Pod{onNode("a", "old"), onNode("b", "new")}, "-a-old"},
		"surge beside one":                       {aSet("0", "1"), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old"), onNode("c", "old")}, "+a"},
		"surge beside two":                       {aSet("0", "2"), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old"), onNode("c", "old")}, "+a +b"},
		"surge waits":                            {aSet("0", "1"), abc, []*corev1.Pod{onNode("a", "old"), onNode("a", "new", unready), onNode("b", "old"), onNode("c", "old")}, ""},
		"the old one goes when the new is there": {aSet("0", "1"), abc[:2], []*corev1.Pod{onNode("a", "old"), onNode("a", "new"), onNode("b", "old")}, "-a-old"},
		"an old one that is not ready goes":      {aSet("0", "1"), abc[:1], []*corev1.Pod{onNode("a", "old", unready), onNode("a", "new", unready)}, "-a-old"},
		"beside what is not available anyway":    {aSet("0", "1"), abc, []*corev1.Pod{onNode("a", "old"), onNode("a", "new", unready), onNode("b", "old", unready), onNode("c", "old")}, "+b"},
		"no third":                               {aSet("0", "1"), abc[:1], []*corev1.Pod{onNode("a", "old"), onNode("a", "new", unready), onNode("a", "older")}, "-a-older"},
		"surge leaves a node when others are available": {aSet("0", "1"), []*corev1.Node{aNode("a", corev1.TaintEffectNoSchedule), aNode("b")},
			[]*corev1.Pod{onNode("a", "old"), onNode("b", "new")}, "-a-old"},
		"and not before": {aSet("0", "1"), []*corev1.Node{aNode("a", corev1.TaintEffectNoSchedule), aNode("b")},
			[]*corev1.Pod{onNode("a", "old"), onNode("b", "new", unready)}, ""},
		"surge on a node that is gone": {aSet("0", "1"), abc[:1], []*corev1.Pod{onNode("a", "old"), onNode("x", "old", unready)}, "+a -x-old"},
		"OnDelete updates nothing": {func() *appsv1.DaemonSet {
			ds := aSet("1", "0")
			ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
			return ds
		}(), abc, []*corev1.Pod{onNode("a", "old"), onNode("b", "old", unready)}, "+c"},
	} {
		pauses := map[string]pause{"p": {since: now.Add(-time.Second), length: 4 * time.Second}}
		got := plan(look(tt.set, "new", tt.nodes, tt.pods, pauses, now))
		if diff := cmp.Diff(tt.want, text(got)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// A node counts by name, selector and affinity, and by its taints.
func TestNeeds(t *testing.T) {
	in := func(key, value string) *corev1.NodeSelector {
		return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}}}}
	}
	for name, tt := range map[string]struct {
		spec corev1.PodSpec
		node *corev1.Node
		want fit
	}{
		"anything":         {node: aNode("a"), want: fit{true, true}},
		"no node":          {},
		"by name":          {spec: corev1.PodSpec{NodeName: "a"}, node: aNode("a"), want: fit{true, true}},
		"by another name":  {spec: corev1.PodSpec{NodeName: "b"}, node: aNode("a")},
		"by selector":      {spec: corev1.PodSpec{NodeSelector: map[string]string{"disk": "ssd"}}, node: aNode("a"), want: fit{true, true}},
		"another selector": {spec: corev1.PodSpec{NodeSelector: map[string]string{"disk": "tape"}}, node: aNode("a")},
		"by affinity": {spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: in("disk", "ssd")}}},
			node: aNode("a"), want: fit{true, true}},
		"another affinity": {spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: in("disk", "tape")}}},
			node: aNode("a")},
		"NoSchedule":             {node: aNode("a", corev1.TaintEffectNoSchedule), want: fit{false, true}},
		"NoExecute":              {node: aNode("a", corev1.TaintEffectNoExecute)},
		"NoSchedule, NoExecute":  {node: aNode("a", corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)},
		"a toleration":           {spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "own", Operator: corev1.TolerationOpExists}}}, node: aNode("a", corev1.TaintEffectNoSchedule), want: fit{true, true}},
		"a cordoned node":        {node: tainted(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule), want: fit{true, true}},
		"a node that is lost":    {node: tainted(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute), want: fit{true, true}},
		"no network":             {node: tainted(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule), want: fit{false, true}},
		"no network is no harm":  {spec: corev1.PodSpec{HostNetwork: true}, node: tainted(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule), want: fit{true, true}},
		"out of service by hand": {node: tainted(corev1.TaintNodeOutOfService, corev1.TaintEffectNoExecute)},
	} {
		ds := aSet("1", "0")
		ds.Spec.Template.Spec = tt.spec
		if got := needsOf(ds).on(tt.node); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func tainted(key string, effect corev1.TaintEffect) *corev1.Node {
	n := aNode("a")
	n.Spec.Taints = []corev1.Taint{{Key: key, Effect: effect}}
	return n
}

// Documentation: "DaemonSet", "How Daemon Pods are scheduled", "Taints and
// tolerations".
func TestNewPod(t *testing.T) {
	ds := aSet("1", "0")
	ds.Annotations = map[string]string{appsv1.DeprecatedTemplateGeneration: "7"}
	ds.Spec.Template.Labels = map[string]string{"app": "logs"}
	ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](30)}}
	preferred := []corev1.PreferredSchedulingTerm{{Weight: 1}}
	ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: preferred,
		RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}, {}}},
	}}
	before := ds.DeepCopy()
	p := newPod(ds, "abc", "n1")
	if diff := cmp.Diff(map[string]string{"app": "logs", "controller-revision-hash": "abc", "pod-template-generation": "7"}, p.Labels); diff != "" {
		t.Error(diff)
	}
	var keys []string
	for _, tol := range p.Spec.Tolerations {
		if tol.TolerationSeconds != nil || tol.Operator != corev1.TolerationOpExists {
			t.Errorf("toleration %+v", tol)
		}
		keys = append(keys, strings.TrimPrefix(tol.Key, "node.kubernetes.io/")+":"+string(tol.Effect))
	}
	if got := strings.Join(keys, " "); got != "not-ready:NoExecute unreachable:NoExecute disk-pressure:NoSchedule memory-pressure:NoSchedule pid-pressure:NoSchedule unschedulable:NoSchedule" {
		t.Errorf("tolerations %s", got)
	}
	want := []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{"n1"}}}}}
	a := p.Spec.Affinity.NodeAffinity
	if !cmp.Equal(a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, want) || !cmp.Equal(a.PreferredDuringSchedulingIgnoredDuringExecution, preferred) {
		t.Errorf("affinity %+v", a)
	}
	if node, err := nodeOf(p); err != nil || node != "n1" || !metav1.IsControlledBy(p, ds) {
		t.Errorf("it is for %q, %v", node, err)
	}
	if _, err := nodeOf(&corev1.Pod{}); err == nil {
		t.Error("a pod without affinity is for a node")
	}
	if diff := cmp.Diff(before, ds); diff != "" {
		t.Errorf("the set was written to:\n%s", diff)
	}
}

func TestStatus(t *testing.T) {
	ds := aSet("1", "0")
	ds.Spec.MinReadySeconds = 10
	ds.Status.CollisionCount = ptr.To[int32](2)
	nodes := []*corev1.Node{aNode("a"), aNode("b"), aNode("c"), aNode("d"), aNode("e", corev1.TaintEffectNoSchedule)}
	long := func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Minute)) }
	pods := []*corev1.Pod{onNode("a", "new", long), onNode("b", "old"), onNode("c", "new", unready), onNode("e", "new", long), onNode("x", "new", long)}
	got, after := status(look(ds, "new", nodes, pods, nil, now))
	want := appsv1.DaemonSetStatus{
		ObservedGeneration: 3, CollisionCount: ptr.To[int32](2), DesiredNumberScheduled: 4, CurrentNumberScheduled: 3,
		NumberMisscheduled: 1, NumberReady: 2, NumberAvailable: 1, NumberUnavailable: 3, UpdatedNumberScheduled: 2,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if after != 10*time.Second {
		t.Errorf("again after %s", after)
	}
}

// Pods that fail again and again are deleted ever more rarely.
func TestPauses(t *testing.T) {
	var p pause
	at := now
	var got []string
	for range 12 {
		p = p.next(at)
		got = append(got, p.left(at).String())
		at = at.Add(p.left(at))
	}
	if want := strings.Fields("1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 8m32s 15m0s 15m0s"); !slices.Equal(got, want) {
		t.Errorf("pauses %v", got)
	}
	if p = p.next(at.Add(time.Hour)); p.length != firstPause || p.left(at.Add(3*time.Hour)) != 0 {
		t.Errorf("after an hour the pause is %s", p.length)
	}
}
