// Package podstate reads what a pod's status says, the same way for every loop,
// the scheduler and the network.
package podstate

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Condition is the pod's condition of a type, or nil.
func Condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready says whether the pod's condition Ready is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available says whether the pod has been ready for minReady. When it is ready
// but not yet for long enough, wait is how long it still takes.
func Available(p *corev1.Pod, minReady time.Duration, now time.Time) (available bool, wait time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, minReady
	}
	wait = c.LastTransitionTime.Add(minReady).Sub(now)
	return wait <= 0, max(wait, 0)
}

// Finished says whether the pod has ended for good.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active says whether the pod counts for its owner: neither ended nor on its
// way out.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }
