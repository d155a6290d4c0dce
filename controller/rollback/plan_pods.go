package rollback

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// patience is for how long a pod may have what may pass by itself: a secret that
// is created a moment later, a registry that does not answer once. For so long, too, a
// pod may be broken until it turns out that what it depends on is lost.
const patience = 10 * time.Second

// hopeless are reasons of waiting containers that count at once, passing those
// that count once the pod has had them after patience.
var (
	hopeless = map[string]bool{"CrashLoopBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true}
	passing  = map[string]bool{
		"ErrImagePull": true, "ImagePullBackOff": true, "ImageInspectError": true, "RegistryUnavailable": true, "SignatureValidationFailed": true,
		"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true, "PreCreateHookError": true,
		"PreStartHookError": true, "PostStartHookError": true, "StartError": true,
	}
)

// failures counts the pods of a revision on trial that failed, with the words
// for the first of them, and says when one that may still get over it counts.
func failures(s snapshot, since, now time.Time) (n int32, why string, after time.Duration) {
	for _, p := range s.asked.pods {
		problem, wait := s.failing(p, since, now)
		after = controller.Sooner(after, wait)
		if problem == "" {
			continue
		}
		if n++; why == "" {
			why = "pod " + p.Name + ": " + problem
		}
	}
	refused := s.asked.refused
	if refused == nil || refused.missing <= 0 || refused.waits {
		return n, why, after
	}
	if wait := latest(refused.since, since).Add(patience).Sub(now); wait > 0 {
		return n, why, controller.Sooner(after, wait)
	}
	if why == "" {
		why = refused.message
	}
	return n + refused.missing, why, after
}

// failing says what is wrong with a pod, or when that would count. A pod that is
// on its way out, that somebody disrupted, or that lacks what it depends on, says
// nothing about its revision.
//
// A crash, or readiness that is lost, counts at once, unless the pod depends on others:
// then after patience, and if they were back only later, when the deadline has passed
// since.
func (s snapshot) failing(p *corev1.Pod, since, now time.Time) (problem string, after time.Duration) {
	if c := podstate.Condition(p, corev1.DisruptionTarget); p.DeletionTimestamp != nil || c != nil && c.Status == corev1.ConditionTrue || dependency.Waits(p) {
		return "", 0
	}
	if p.Status.Phase == corev1.PodFailed {
		if p.CreationTimestamp.Time.Before(since.Add(-patience)) {
			return "", 0 // a remainder of an earlier time
		}
		return strings.TrimSuffix(strings.TrimSpace(p.Status.Reason+" "+p.Status.Message), ".") + " (phase Failed)", 0
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range list {
			w := list[i].State.Waiting
			if w == nil || !hopeless[w.Reason] && !passing[w.Reason] {
				continue
			}
			text := fmt.Sprintf("container %s: %s", list[i].Name, w.Reason)
			if w.Message != "" {
				text += ": " + w.Message
			}
			if hopeless[w.Reason] {
				text, wait := s.broke(p, endOf(&list[i]), now, text+lastEnd(&list[i]))
				if text != "" {
					return text, 0
				}
				after = controller.Sooner(after, wait)
				continue
			}
			begun := latest(since, dependency.Back(p))
			if p.Status.StartTime != nil {
				begun = latest(begun, p.Status.StartTime.Time)
			}
			if wait := begun.Add(patience).Sub(now); wait > 0 {
				after = controller.Sooner(after, wait)
				continue
			}
			return text, 0
		}
	}
	if lostReadiness(p) {
		text, wait := s.broke(p, podstate.Condition(p, corev1.ContainersReady).LastTransitionTime.Time, now, unreadyText(p))
		return text, controller.Sooner(after, wait)
	}
	return "", after
}

// broke says whether a problem counts that a pod has since at, or when it will. Zero is
// long ago.
func (s snapshot) broke(p *corev1.Pod, at, now time.Time, problem string) (counts string, after time.Duration) {
	var wait time.Duration
	switch back := dependency.Back(p); {
	case !back.IsZero() && !at.After(back):
		wait = back.Add(s.policy.Deadline).Sub(now)
	case s.depends || dependency.Text(p) != "":
		wait = at.Add(patience).Sub(now)
	}
	if wait > 0 {
		return "", wait
	}
	return problem, 0
}

// endOf is when a container ended last; zero if it did not.
func endOf(c *corev1.ContainerStatus) time.Time {
	for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
		if t != nil {
			return t.FinishedAt.Time
		}
	}
	return time.Time{}
}

// lastEnd is how a container that crashes ended.
func lastEnd(c *corev1.ContainerStatus) string {
	if t := c.LastTerminationState.Terminated; t != nil {
		return fmt.Sprintf(" (exit code %d, %s)", t.ExitCode, t.Reason)
	}
	return ""
}

// lostReadiness says whether the containers were all ready once and are not now.
// The condition is false from the pod's start, before any container's, until they
// are for the first time; one that changed later was true meanwhile. Stamps are
// whole seconds: what happens within the first goes unnoticed. A node that is lost
// does not show in it.
func lostReadiness(p *corev1.Pod) bool {
	c := podstate.Condition(p, corev1.ContainersReady)
	if c == nil || c.Status != corev1.ConditionFalse || p.Status.StartTime == nil {
		return false
	}
	at := c.LastTransitionTime.Time
	if !at.After(p.Status.StartTime.Time) {
		return false
	}
	for i := range p.Status.ContainerStatuses {
		if began := firstStart(&p.Status.ContainerStatuses[i]); !began.IsZero() && at.After(began) {
			return true
		}
	}
	return false
}

// firstStart is the earliest known start of a container.
func firstStart(c *corev1.ContainerStatus) time.Time {
	switch {
	case c.LastTerminationState.Terminated != nil:
		return c.LastTerminationState.Terminated.StartedAt.Time
	case c.State.Terminated != nil:
		return c.State.Terminated.StartedAt.Time
	case c.State.Running != nil:
		return c.State.Running.StartedAt.Time
	}
	return time.Time{}
}

// unreadyText says why a pod that was ready is not any more.
func unreadyText(p *corev1.Pod) string {
	for i := range p.Status.ContainerStatuses {
		c := &p.Status.ContainerStatuses[i]
		for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			if t != nil && !c.Ready {
				return fmt.Sprintf("container %s ended after the pod was ready (exit code %d, %s)", c.Name, t.ExitCode, t.Reason)
			}
		}
	}
	for i := range p.Status.ContainerStatuses {
		if c := &p.Status.ContainerStatuses[i]; !c.Ready {
			return fmt.Sprintf("container %s did not stay ready", c.Name)
		}
	}
	return "it did not stay ready"
}
