package nodelifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func node(conditions ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
	for _, c := range conditions {
		kind, status, _ := strings.Cut(c, "=")
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: corev1.NodeConditionType(kind), Status: corev1.ConditionStatus(status), LastHeartbeatTime: metav1.NewTime(now.Add(-30 * time.Minute)),
		})
	}
	return n
}

// Documentation: "Nodes", "Node controller": 50 s of silence are too much; 60 s
// before a node was first heard of.
func TestConditions(t *testing.T) {
	ago := func(d time.Duration) *metav1.MicroTime { m := metav1.NewMicroTime(now.Add(-d)); return &m }
	young := node()
	young.CreationTimestamp = metav1.NewTime(now.Add(-20 * time.Second))
	for _, c := range []struct {
		name    string
		node    *corev1.Node
		renewed *metav1.MicroTime
		since   time.Duration
		lost    bool
		after   time.Duration
	}{
		{"lease renewed", node("Ready=True"), ago(10 * time.Second), time.Hour, false, 40 * time.Second},
		{"lease old", node("Ready=True"), ago(50 * time.Second), time.Hour, true, 0},
		{"no lease, old status", node("Ready=True"), nil, time.Hour, true, 0},
		{"new node", young, nil, time.Hour, false, 40 * time.Second},
		{"never heard of", node(), nil, time.Hour, true, 0},
		{"we were not there to hear", node("Ready=True"), ago(time.Hour), 10 * time.Second, false, 40 * time.Second},
		{"lost already", node("Ready=Unknown", "MemoryPressure=Unknown", "DiskPressure=Unknown", "PIDPressure=Unknown"), ago(time.Hour), time.Hour, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.node.Status.Conditions)
			got, after := conditions(c.node, c.renewed, now.Add(-c.since), now)
			if after != c.after {
				t.Errorf("after %v, want %v", after, c.after)
			}
			if !slices.Equal(before, c.node.Status.Conditions) {
				t.Error("the node was written to")
			}
			if changed := !slices.Equal(before, got); changed != c.lost {
				t.Errorf("changed %v: %+v", changed, got)
			}
			for _, kind := range watched {
				if c := condition(got, kind); after == 0 && (c == nil || c.Status != corev1.ConditionUnknown) {
					t.Errorf("%s is %+v", kind, c)
				}
			}
		})
	}
}

// Documentation: "Taints and Tolerations", "Taint Nodes by Condition", "Taint
// based Evictions".
func TestTaints(t *testing.T) {
	for _, c := range []struct {
		name   string
		node   *corev1.Node
		evict  bool
		before string
		want   string
	}{
		{"well", node("Ready=True"), true, "", ""},
		{"not ready", node("Ready=False"), true, "", "not-ready:NoSchedule not-ready:NoExecute"},
		{"silent", node("Ready=Unknown"), true, "not-ready:NoSchedule not-ready:NoExecute", "unreachable:NoSchedule unreachable:NoExecute"},
		{"nobody is ready", node("Ready=Unknown"), false, "unreachable:NoExecute", "unreachable:NoSchedule"},
		{"well again", node("Ready=True", "MemoryPressure=False"), true, "not-ready:NoSchedule memory-pressure:NoSchedule", ""},
		{"pressure", node("Ready=True", "MemoryPressure=True", "DiskPressure=True", "PIDPressure=True", "NetworkUnavailable=True"), true, "",
			"memory-pressure:NoSchedule disk-pressure:NoSchedule pid-pressure:NoSchedule network-unavailable:NoSchedule"},
		{"others' taints stay", node("Ready=True"), true, "mine:NoExecute unschedulable:NoExecute", "mine:NoExecute unschedulable:NoExecute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, text := range strings.Fields(c.before) {
				key, effect, _ := strings.Cut(text, ":")
				c.node.Spec.Taints = append(c.node.Spec.Taints, corev1.Taint{Key: "node.kubernetes.io/" + key, Effect: corev1.TaintEffect(effect)})
			}
			var got []string
			for _, taint := range taints(c.node, c.node.Status.Conditions, c.evict, now) {
				got = append(got, fmt.Sprintf("%s:%s", strings.TrimPrefix(taint.Key, "node.kubernetes.io/"), taint.Effect))
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("taints = %s, want %s", text, c.want)
			}
		})
	}
	n := node("Ready=True")
	n.Spec.Unschedulable = true
	if got := taints(n, n.Status.Conditions, true, now); len(got) != 1 || got[0].Key != corev1.TaintNodeUnschedulable || !got[0].TimeAdded.Time.Equal(now) {
		t.Errorf("taints of a cordoned node = %+v", got)
	}
}
