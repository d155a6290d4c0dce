package node

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditions sets the conditions of the agent, in Kubernetes' words.
func (k *Keeper) conditions(st *v1.NodeStatus, readyErr error, pressed []v1.NodeConditionType, now time.Time) {
	stamp := metav1.NewTime(now.Truncate(time.Second))
	set := func(c v1.NodeCondition) {
		c.LastHeartbeatTime, c.LastTransitionTime = stamp, stamp
		i := slices.IndexFunc(st.Conditions, func(o v1.NodeCondition) bool { return o.Type == c.Type })
		if i < 0 {
			st.Conditions = append(st.Conditions, c)
			return
		}
		if st.Conditions[i].Status == c.Status {
			c.LastTransitionTime = st.Conditions[i].LastTransitionTime
		} else {
			k.transition(c)
		}
		st.Conditions[i] = c
	}
	set(pressure(v1.NodeMemoryPressure, slices.Contains(pressed, v1.NodeMemoryPressure),
		"KubeletHasInsufficientMemory", "kubelet has insufficient memory available",
		"KubeletHasSufficientMemory", "kubelet has sufficient memory available"))
	set(pressure(v1.NodeDiskPressure, slices.Contains(pressed, v1.NodeDiskPressure),
		"KubeletHasDiskPressure", "kubelet has disk pressure",
		"KubeletHasNoDiskPressure", "kubelet has no disk pressure"))
	set(pressure(v1.NodePIDPressure, slices.Contains(pressed, v1.NodePIDPressure),
		"KubeletHasInsufficientPID", "kubelet has insufficient PID available",
		"KubeletHasSufficientPID", "kubelet has sufficient PID available"))
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if readyErr != nil {
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", readyErr.Error()
	}
	k.ready = readyErr == nil
	set(ready)
}

func pressure(t v1.NodeConditionType, on bool, badReason, bad, goodReason, good string) v1.NodeCondition {
	if on {
		return v1.NodeCondition{Type: t, Status: v1.ConditionTrue, Reason: badReason, Message: bad}
	}
	return v1.NodeCondition{Type: t, Status: v1.ConditionFalse, Reason: goodReason, Message: good}
}

// transition reports a change of a condition.
func (k *Keeper) transition(c v1.NodeCondition) {
	reason := "Node" + string(c.Type)
	switch {
	case c.Type == v1.NodeReady && c.Status == v1.ConditionTrue:
		reason = "NodeReady"
	case c.Type == v1.NodeReady:
		reason = "NodeNotReady"
	default:
		reason = "Node" + c.Reason[len("Kubelet"):]
	}
	k.event("Normal", reason, "Node "+k.Name+" status is now: "+reason)
}
