package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// conditions sets the conditions that the agent owns, with the reasons and
// messages that the pod lifecycle documents. Those of others stay.
func (s *State) conditions(st *v1.PodStatus, now time.Time) {
	old := st.Conditions
	st.Conditions = nil
	set := func(c v1.PodCondition) {
		c.ObservedGeneration = s.Pod.Generation
		c.LastTransitionTime = stamp(now)
		for _, before := range [][]v1.PodCondition{s.reported, old} {
			if i := index(before, c.Type); i >= 0 {
				if before[i].Status == c.Status {
					c.LastTransitionTime = before[i].LastTransitionTime
				}
				break
			}
		}
		st.Conditions = append(st.Conditions, c)
	}

	set(v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: boolStatus(s.Sandbox.Ready && !s.StopSandbox.Busy && !s.StopSandbox.Done)})
	set(s.initializedCondition(st))
	containers := s.containersReady(st)
	set(s.ready(st, containers))
	set(containers)
	set(v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
	for _, c := range s.resizeConditions() {
		set(c)
	}
	if all := s.restartingAll(); all || index(old, v1.AllContainersRestarting) >= 0 || index(s.reported, v1.AllContainersRestarting) >= 0 {
		set(v1.PodCondition{Type: v1.AllContainersRestarting, Status: boolStatus(all)})
	}
	if s.Stop != nil && s.Stop.Fail && (s.Stop.Reason == "Evicted" || s.Stop.Reason == "Terminated") {
		set(v1.PodCondition{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: s.Stop.Message})
	}
	s.reported = slices.Clone(st.Conditions)
	for _, c := range old {
		if index(st.Conditions, c.Type) < 0 && c.Type != v1.PodResizePending && c.Type != v1.PodResizeInProgress {
			st.Conditions = append(st.Conditions, c)
		}
	}
}

func index(list []v1.PodCondition, t v1.PodConditionType) int {
	return slices.IndexFunc(list, func(c v1.PodCondition) bool { return c.Type == t })
}

func boolStatus(b bool) v1.ConditionStatus {
	if b {
		return v1.ConditionTrue
	}
	return v1.ConditionFalse
}

func (s *State) initializedCondition(st *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if st.Phase == v1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if missing := s.uninitialized(st); len(missing) > 0 && !slices.ContainsFunc(st.ContainerStatuses, hasRun) {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", missing)
	}
	return c
}

// uninitialized are the init containers that have not done their work and the
// sidecars that have not come up.
func (s *State) uninitialized(st *v1.PodStatus) []string {
	var out []string
	for i := range st.InitContainerStatuses {
		cs := &st.InitContainerStatuses[i]
		done := cs.State.Terminated != nil && cs.State.Terminated.ExitCode == 0
		if c := s.Containers[cs.Name]; c != nil && c.Kind == Sidecar {
			done = *cs.Started
		}
		if !done {
			out = append(out, cs.Name)
		}
	}
	return out
}

func hasRun(cs v1.ContainerStatus) bool { return cs.ContainerID != "" }

func (s *State) containersReady(st *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch st.Phase {
	case v1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case v1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	for i := range st.InitContainerStatuses {
		cs := &st.InitContainerStatuses[i]
		if c := s.Containers[cs.Name]; c != nil && c.Kind == Sidecar && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	for i := range st.ContainerStatuses {
		if !st.ContainerStatuses[i].Ready {
			unready = append(unready, st.ContainerStatuses[i].Name)
		}
	}
	if len(unready) > 0 || len(st.ContainerStatuses) == 0 {
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

func (s *State) ready(st *v1.PodStatus, containers v1.PodCondition) v1.PodCondition {
	c := containers
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var problems []string
	for _, gate := range s.Pod.Spec.ReadinessGates {
		i := index(s.Pod.Status.Conditions, gate.ConditionType)
		switch {
		case i < 0:
			problems = append(problems, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case s.Pod.Status.Conditions[i].Status != v1.ConditionTrue:
			problems = append(problems, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, s.Pod.Status.Conditions[i].Status))
		}
	}
	if len(problems) > 0 {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(problems, ", ")
	}
	return c
}
