package pod

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	resourcehelper "k8s.io/component-helpers/resource"
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
	return !samePodResources(s.Pod.Spec.Resources, s.Resources.Allocated)
}

// Grant gives the pod what its spec asks for. That something else could not be
// applied before delays nothing.
func (s *State) Grant() {
	for _, c := range s.Containers {
		c.Allocated = c.Spec.Resources
		c.Resize.afresh()
	}
	s.Resources.Allocated = s.Pod.Spec.Resources
	s.Resources.Resize.afresh()
	s.Pending = nil
	s.granted = nil
}

// Defer notes why the pod does not get what its spec asks for, since the first time
// that it was told so.
func (s *State) Defer(reason, message string, now time.Time) {
	s.Pending = &Failure{Reason: reason, Message: message, At: s.PendingSince(now)}
}

// PendingSince is since when the pod waits for what its spec asks for; now when it
// does not yet.
func (s *State) PendingSince(now time.Time) time.Time {
	if s.Pending != nil {
		return s.Pending.At
	}
	return now
}

// Requests are those that a pod's spec names.
func Requests(p *v1.Pod) v1.ResourceList {
	return resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
}

// Larger has the larger quantity of each resource.
func Larger(a, b v1.ResourceList) v1.ResourceList {
	out := a.DeepCopy()
	if out == nil {
		out = v1.ResourceList{}
	}
	for name, q := range b {
		if old, ok := out[name]; !ok || q.Cmp(old) > 0 {
			out[name] = q
		}
	}
	return out
}

// Holds are the requests that others cannot have: what is granted or, until it is
// taken away, what the pod has.
func (s *State) Holds() v1.ResourceList {
	granted := Requests(s.Granted())
	if !s.Resizing() {
		return granted
	}
	return Larger(granted, Requests(s.applied()))
}

// applied is the object with the resources that its running containers and its group
// have.
func (s *State) applied() *v1.Pod {
	p := s.Granted().DeepCopy()
	for spec := range Containers(&p.Spec) {
		if c := s.Containers[spec.Name]; c.resizing() {
			spec.Resources = *c.Applied.DeepCopy()
		}
	}
	if s.Resources.resizing() && s.anyRunning() {
		p.Spec.Resources = s.Resources.Applied.DeepCopy()
	}
	return p
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
	p.Spec.Resources = s.Resources.Allocated.DeepCopy()
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

func samePodResources(a, b *v1.ResourceRequirements) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameResources(*a, *b)
}

func sameResources(a, b v1.ResourceRequirements) bool {
	return equality.Semantic.DeepEqual(a.Requests, b.Requests) && equality.Semantic.DeepEqual(a.Limits, b.Limits)
}

// resizing says that a running container has other resources than granted.
func (c *Container) resizing() bool {
	return c.Running() != nil && !sameResources(c.Applied, c.Allocated)
}

// renewing says that a run was killed to be followed by one with what is granted,
// and that this one is not there yet.
func (c *Container) renewing() bool {
	r := c.Newest()
	return r != nil && r.Ended() && r.Again && !sameResources(c.Applied, c.Allocated)
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
	if o := s.resize(); o != nil {
		cond := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue}
		if o.Err != nil {
			cond.Reason, cond.Message = v1.PodReasonError, o.Err.Error()
		}
		out = append(out, cond)
	}
	return out
}

// Resizing says that what runs has other resources than granted.
func (s *State) Resizing() bool { return s.resize() != nil }

// ResizeError is why what runs has not been given what is granted; empty when nothing
// has failed.
func (s *State) ResizeError() string {
	if o := s.resize(); o != nil && o.Err != nil {
		return o.Err.Error()
	}
	return ""
}

// resize is the step that gives what runs what is granted; nil when it has that.
func (s *State) resize() *Op {
	for _, c := range s.list(Init, Sidecar, Regular) {
		if c.resizing() || s.Stop == nil && c.renewing() {
			return &c.Resize
		}
	}
	if s.Resources.resizing() && s.anyRunning() {
		return &s.Resources.Resize
	}
	return nil
}

// anyRunning says that a container runs.
func (s *State) anyRunning() bool {
	for _, c := range s.Containers {
		if c.Running() != nil {
			return true
		}
	}
	return false
}

// adoptResources takes what the status says of the pod's own resources for what
// is granted and for what its group has: both outlive the agent, and so does since
// when a resize is pending.
func (s *State) adoptResources() {
	if i := index(s.Pod.Status.Conditions, v1.PodResizePending); i >= 0 {
		c := &s.Pod.Status.Conditions[i]
		s.Pending = &Failure{Reason: c.Reason, Message: c.Message, At: c.LastTransitionTime.Time}
	}
	spec, was := s.Pod.Spec.Resources, s.Pod.Status.Resources
	if spec == nil || was == nil {
		return
	}
	r := spec.DeepCopy()
	for name := range r.Requests {
		if q, ok := s.Pod.Status.AllocatedResources[name]; ok {
			r.Requests[name] = q
		}
	}
	for name := range r.Limits {
		if q, ok := was.Limits[name]; ok {
			r.Limits[name] = q
		}
	}
	s.Resources.Allocated, s.Resources.Applied = r, r
}

// podResources shows what is granted to the pod as a whole, and what it has.
func (s *State) podResources(out *v1.PodStatus) {
	p := s.Granted()
	out.AllocatedResources = Requests(p)
	if s.Resizing() {
		p = s.applied()
	}
	out.Resources = &v1.ResourceRequirements{Requests: Requests(p), Limits: resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{})}
}
