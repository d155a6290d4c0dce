package statefulset

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// patience is how long a pod whose containers all run may be unready until it
// counts as broken. A member of a group that is not ready while another one
// restarts comes back; one that will not is worth a minute.
const patience = time.Minute

// hopeless are the reasons for which a container waits that waiting rarely
// mends: those that the node agent gives.
var hopeless = map[string]bool{
	"CrashLoopBackOff": true, "ImagePullBackOff": true, "ErrImagePull": true, "ErrImageNeverPull": true, "InvalidImageName": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true,
}

// heal decides about a pod that is not ready and holds up all others. In
// Kubernetes it does so for ever when its revision can never become ready, even
// once the template is mended, until somebody deletes it by hand (documentation:
// "StatefulSets", "Forced rollback"). Here a broken pod of another revision than
// it should have makes way, the one with the highest ordinal first, one at a time.
func (s *snapshot) heal(held member) decision {
	if !s.rolling() || !s.outdated(held) {
		return decision{}
	}
	var after time.Duration
	for _, m := range slices.Backward(s.inside) {
		if going(m.pod) {
			return decision{} // one at a time
		}
		why, wait := s.brokenFor(m)
		if why != "" {
			return decision{remove: []removal{{m.pod, why}}}
		}
		after = controller.Sooner(after, wait)
	}
	return decision{after: after}
}

// brokenFor says why a pod of another revision than it should have will not
// become ready, or, if that is not certain yet, how long to wait until it is.
func (s *snapshot) brokenFor(m member) (why string, wait time.Duration) {
	p := m.pod
	if !s.rolling() || !s.outdated(m) || ready(p) || going(p) || podstate.Finished(p) {
		return "", 0
	}
	if c := podstate.Condition(p, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
		return "it cannot be scheduled", 0
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && hopeless[w.Reason] {
			return fmt.Sprintf("container %s is in %s", c.Name, w.Reason), 0
		}
	}
	since := p.CreationTimestamp.Time
	if c := podstate.Condition(p, corev1.PodReady); c != nil && c.LastTransitionTime.After(since) {
		since = c.LastTransitionTime.Time
	}
	if wait = since.Add(patience).Sub(s.now); wait > 0 {
		return "", wait
	}
	return fmt.Sprintf("it has not been ready for %s", patience), 0
}
