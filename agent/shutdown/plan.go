// Package shutdown is what a node knows of the end of its machine: in which
// order pods end, and the inhibitor of logind that gives them the time
// ("Graceful node shutdown").
package shutdown

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"

	"hansa.dev/hansa/agent/pod"
)

// The words of Kubernetes.
const (
	// Reason and Message go to the status of a pod that is ended.
	Reason  = "Terminated"
	Message = "Pod was terminated in response to imminent node shutdown."
	// Refused and RefusedMessage go to that of one that comes too late.
	Refused        = "NodeShutdown"
	RefusedMessage = "Pod was rejected as the node is shutting down."
	// NotReady is the message of the node's condition.
	NotReady = "node is shutting down"
)

// Group are pods that end together.
type Group struct {
	Priority int32
	// Grace is what the group has at most.
	Grace time.Duration
	Pods  []*v1.Pod
}

// Periods are the priorities from which on pods have so long, lowest first: those
// that are configured or else regular pods and then critical ones.
func Periods(c *kubelet.KubeletConfiguration) []kubelet.ShutdownGracePeriodByPodPriority {
	list := slices.Clone(c.ShutdownGracePeriodByPodPriority)
	if len(list) == 0 {
		all, critical := c.ShutdownGracePeriod.Duration, c.ShutdownGracePeriodCriticalPods.Duration
		if all <= 0 || critical > all {
			return nil
		}
		list = []kubelet.ShutdownGracePeriodByPodPriority{
			{Priority: 0, ShutdownGracePeriodSeconds: int64((all - critical) / time.Second)},
			{Priority: pod.Critical, ShutdownGracePeriodSeconds: int64(critical / time.Second)},
		}
	}
	slices.SortStableFunc(list, func(a, b kubelet.ShutdownGracePeriodByPodPriority) int { return cmp.Compare(a.Priority, b.Priority) })
	return list
}

// Plan puts pods into the groups in which they end, one after the other; groups
// without pods are left out, for nobody waits for them. A pod is in the group of
// the highest priority that it reaches, or in the lowest one.
func Plan(periods []kubelet.ShutdownGracePeriodByPodPriority, pods []*v1.Pod) []Group {
	groups := make([]Group, len(periods))
	for i, p := range periods {
		groups[i] = Group{Priority: p.Priority, Grace: time.Duration(p.ShutdownGracePeriodSeconds) * time.Second}
	}
	for _, p := range pods {
		var priority int32
		if p.Spec.Priority != nil {
			priority = *p.Spec.Priority
		}
		at := 0
		for i := range groups {
			if groups[i].Priority <= priority {
				at = i
			}
		}
		if len(groups) > 0 {
			groups[at].Pods = append(groups[at].Pods, p)
		}
	}
	return slices.DeleteFunc(groups, func(g Group) bool { return len(g.Pods) == 0 })
}

// For is what a pod of the group is given to end: what it asks for, if the
// group has so much.
func (g Group) For(p *v1.Pod) time.Duration { return min(pod.SpecGrace(p), g.Grace) }
