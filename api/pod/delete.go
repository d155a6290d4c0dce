package pod

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GracePeriod is how many seconds a pod is given to end when it is deleted:
// what the request says, or else the pod; none at all if it is on no node or
// has ended. Negative values count as 1.
func GracePeriod(p *corev1.Pod, opts *metav1.DeleteOptions) int64 {
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	if p.Spec.NodeName == "" || ended {
		return 0
	}
	seconds := deref(p.Spec.TerminationGracePeriodSeconds)
	if opts != nil && opts.GracePeriodSeconds != nil {
		seconds = *opts.GracePeriodSeconds
	}
	if seconds < 0 {
		return 1
	}
	return seconds
}
