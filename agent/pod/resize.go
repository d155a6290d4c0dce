package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// In-place resize of containers: the spec says what is wanted, Allocated what
// the node has granted, Applied what the running container has.
//
//	spec ──(does it fit the node?)──► Allocated ──(update or restart)──► Applied
//
// While it does not fit, the pod runs on with what it has been granted.

// Reasons why a resize is pending.
const (
	ResizeDeferred   = "Deferred"   // it may fit later
	ResizeInfeasible = "Infeasible" // it never fits this node
)

// WantsResize says that the spec asks for other resources than are granted.
func (s *State) WantsResize() bool {
	for _, c := range s.list(Init, Sidecar, Regular) {
		if !sameResources(c.Spec.Resources, c.Allocated) {
			return true
		}
	}
	return false
}

// Grant gives the pod what its spec asks for.
func (s *State) Grant() {
	for _, c := range s.Containers {
		c.Allocated = c.Spec.Resources
	}
	s.Pending = nil
	s.granted = nil
}

// Defer notes why the pod does not get what its spec asks for.
func (s *State) Defer(reason, message string, now time.Time) {
	s.Pending = &Failure{Reason: reason, Message: message, At: now}
}

// Granted is the object with the resources that are granted, frozen like the
// object. It is the object itself unless a resize is pending.
func (s *State) Granted() *v1.Pod {
	if !s.WantsResize() {
		return s.Pod
	}
	if s.granted != nil && s.grantedOf == s.Pod {
		return s.granted
	}
	p := s.Pod.DeepCopy()
	for spec := range Containers(&p.Spec) {
		spec.Resources = *s.Containers[spec.Name].Allocated.DeepCopy()
	}
	s.granted, s.grantedOf = p, s.Pod
	return p
}

// GrantedSpec is one container of Granted.
func (s *State) GrantedSpec(c *Container) *v1.Container {
	p := s.Granted()
	if p == s.Pod {
		return c.Spec
	}
	for spec := range Containers(&p.Spec) {
		if spec.Name == c.Name {
			return spec
		}
	}
	return c.Spec
}

func sameResources(a, b v1.ResourceRequirements) bool {
	return equality.Semantic.DeepEqual(a.Requests, b.Requests) && equality.Semantic.DeepEqual(a.Limits, b.Limits)
}

// resizing says that a running container has other resources than granted.
func (c *Container) resizing() bool {
	return c.Running() != nil && !sameResources(c.Applied, c.Allocated)
}

// restartsToResize says whether the change between what is applied and what is
// granted needs a new run, by the container's resize policy.
func (c *Container) restartsToResize() bool {
	for _, policy := range c.Spec.ResizePolicy {
		if policy.RestartPolicy != v1.RestartContainer {
			continue
		}
		for _, lists := range [][2]v1.ResourceList{{c.Applied.Requests, c.Allocated.Requests}, {c.Applied.Limits, c.Allocated.Limits}} {
			before, after := lists[0][policy.ResourceName], lists[1][policy.ResourceName]
			if before.Cmp(after) != 0 {
				return true
			}
		}
	}
	return false
}

// resizeConditions are there while a resize is.
func (s *State) resizeConditions() []v1.PodCondition {
	var out []v1.PodCondition
	if s.Pending != nil && s.WantsResize() {
		out = append(out, v1.PodCondition{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: s.Pending.Reason, Message: s.Pending.Message})
	}
	for _, c := range s.list(Init, Sidecar, Regular) {
		if !c.resizing() {
			continue
		}
		cond := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue}
		if c.Resize.Err != nil {
			cond.Reason, cond.Message = v1.PodReasonError, c.Resize.Err.Error()
		}
		return append(out, cond)
	}
	return out
}
