package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Times after which a silent node is given up, those of Kubernetes
// (node-monitor-grace-period, node-startup-grace-period).
const (
	silence = 50 * time.Second
	startup = 60 * time.Second
)

// watched are the conditions that a silent node's agent would keep.
var watched = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// conditionTaints are the taints that a condition brings, by its status.
var conditionTaints = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeReady:              {corev1.ConditionFalse: corev1.TaintNodeNotReady, corev1.ConditionUnknown: corev1.TaintNodeUnreachable},
	corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
	corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
	corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
	corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
}

// ours says whether this loop decides about a taint.
func ours(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure,
		corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return false
}

// heard is when the node's agent last gave a sign, and how long it may be silent
// from then on. since is when this process first saw the node: silence before
// that may have been ours.
func heard(n *corev1.Node, renewed *metav1.MicroTime, since time.Time) (time.Time, time.Duration) {
	last, patience := n.CreationTimestamp.Time, startup
	if renewed != nil && renewed.After(last) {
		last, patience = renewed.Time, silence
	}
	if c := condition(n.Status.Conditions, corev1.NodeReady); c != nil && c.Status != corev1.ConditionUnknown && c.LastHeartbeatTime.After(last) {
		last, patience = c.LastHeartbeatTime.Time, silence
	}
	if last.Before(since) {
		last = since
	}
	return last, patience
}

func ready(list []corev1.NodeCondition) bool {
	c := condition(list, corev1.NodeReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// deserted says whether a pod still counts as ready on a node that has not been
// since a time. An agent that calls it ready again after that is right.
func deserted(p *corev1.Pod, since metav1.Time) bool {
	at := controller.ReadySince(p)
	return podstate.Ready(p) && !at.After(since.Time)
}

func condition(list []corev1.NodeCondition, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range list {
		if list[i].Type == kind {
			return &list[i]
		}
	}
	return nil
}

// conditions are the node's conditions as they should be: unchanged for a node
// that was heard of, unknown for a silent one. after is how long the node may
// still be silent.
func conditions(n *corev1.Node, renewed *metav1.MicroTime, since, now time.Time) (out []corev1.NodeCondition, after time.Duration) {
	last, patience := heard(n, renewed, since)
	out = slices.Clone(n.Status.Conditions)
	if left := last.Add(patience).Sub(now); left > 0 {
		return out, left
	}
	for _, kind := range watched {
		was := condition(out, kind)
		switch {
		case was == nil:
			out = append(out, corev1.NodeCondition{
				Type: kind, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
		case was.Status != corev1.ConditionUnknown:
			was.Status, was.Reason, was.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			was.LastTransitionTime = metav1.NewTime(now)
		}
	}
	return out, 0
}

// taints are the node's taints as its conditions ask for; others' stay. Where no
// node is ready the fault is more likely between us and them, or there is nowhere
// else to go: evict is false then, and no pod is driven away (documentation:
// "Nodes", "Rate limits on eviction").
func taints(n *corev1.Node, conditions []corev1.NodeCondition, evict bool, now time.Time) []corev1.Taint {
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	var want []id
	for _, c := range conditions {
		if key := conditionTaints[c.Type][c.Status]; key != "" {
			want = append(want, id{key, corev1.TaintEffectNoSchedule})
			if c.Type == corev1.NodeReady && evict {
				want = append(want, id{key, corev1.TaintEffectNoExecute})
			}
		}
	}
	if n.Spec.Unschedulable {
		want = append(want, id{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule})
	}
	var out []corev1.Taint
	for _, t := range n.Spec.Taints {
		if i := slices.Index(want, id{t.Key, t.Effect}); i >= 0 {
			want = slices.Delete(want, i, i+1)
		} else if ours(t) {
			continue
		}
		out = append(out, t)
	}
	for _, w := range want {
		added := metav1.NewTime(now)
		out = append(out, corev1.Taint{Key: w.key, Effect: w.effect, TimeAdded: &added})
	}
	return out
}
