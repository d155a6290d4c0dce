package work

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
)

// Reconsider tells that other pods changed what is left on the node: a resize
// that did not fit may.
func (w *Worker) Reconsider() {
	if w.pending.Load() {
		w.post(func(time.Time) {}) // each turn asks
	}
}

// resize tells the node what the pod holds and asks for what its spec wants. It is
// called at each turn and does nothing while neither changes.
func (w *Worker) resize(now time.Time) {
	s := w.state
	if s.Refused != nil {
		return // it holds nothing
	}
	differs := s.WantsResize()
	if !differs {
		s.Pending = nil
	}
	asks := differs && s.Stop == nil && !pod.Terminal(s.Pod)
	settled := !asks && !s.Resizing()
	if settled && w.settled {
		return
	}
	w.settled = settled
	var wants v1.ResourceList
	if asks {
		wants = pod.Requests(s.Pod)
	}
	w.pending.Store(asks) // before the question: the answer may change at once
	granted, why := w.node.Claim(s.Pod, s.Holds(), wants, s.PendingSince(now))
	switch {
	case !asks:
	case granted:
		w.pending.Store(false)
		s.Grant()
		w.resizing = s.Pod.Generation
		w.resizeEvent(v1.EventTypeNormal, "ResizeStarted", "started", s.Pod.Generation, "")
		w.regroup = true
		w.resize(now) // tells what it holds now
	case why != nil:
		if old := s.Pending; old == nil || old.Reason != why.Reason || old.Message != why.Message {
			w.resizeEvent(v1.EventTypeWarning, "Resize"+why.Reason, why.Reason, s.Pod.Generation, why.Message)
		}
		s.Defer(why.Reason, why.Message, now)
	}
}

// tellResize has events say how the resize that was granted goes. It is called at each
// turn and says nothing twice.
func (w *Worker) tellResize() {
	s := w.state
	wrong := s.ResizeError()
	switch {
	case s.Resizing():
		w.resizing = cmp.Or(w.resizing, s.Pod.Generation) // granted by a former agent
		if wrong != "" && wrong != w.resizeError {
			w.resizeEvent(v1.EventTypeWarning, "ResizeError", "error", w.resizing, wrong)
		}
	case w.resizing != 0:
		if s.Stop == nil && !pod.Terminal(s.Pod) {
			w.resizeEvent(v1.EventTypeNormal, "ResizeCompleted", "completed", w.resizing, "")
		}
		w.resizing = 0
	}
	w.resizeError = wrong
}

// resizeEvent tells in the kubelet's form how far a resize is, and of which resources.
func (w *Worker) resizeEvent(kind, reason, how string, generation int64, wrong string) {
	p := w.state.Granted()
	if generation == w.state.Pod.Generation {
		p = w.state.Pod
	}
	type sized struct {
		Name      string                  `json:"name"`
		Resources v1.ResourceRequirements `json:"resources"`
	}
	said := struct {
		InitContainers []sized `json:"initContainers,omitempty"`
		Containers     []sized `json:"containers,omitempty"`
		Generation     int64   `json:"generation"`
		Error          string  `json:"error,omitempty"`
	}{Generation: generation, Error: wrong}
	for _, c := range p.Spec.InitContainers {
		said.InitContainers = append(said.InitContainers, sized{c.Name, c.Resources})
	}
	for _, c := range p.Spec.Containers {
		said.Containers = append(said.Containers, sized{c.Name, c.Resources})
	}
	message := "Pod resize " + how
	if b, err := json.Marshal(said); err == nil { // quantities can be written
		message += ": " + string(b)
	}
	w.podEvent(p, kind, reason, message)
}

// setGroup gives the pod's group what is granted, before a container is started
// after a grant that no running one has seen to.
func (w *Worker) setGroup(p *v1.Pod) error {
	return w.node.Groups.Set(w.group(p), unbounded(cgroup.PodLimits(p, w.node.Rules)))
}

// resizeContainer gives a run what is granted. The pod's group holds the larger
// of both in between.
func (w *Worker) resizeContainer(a pod.Action) step {
	p := w.state.Granted()
	c := w.state.Containers[a.Container]
	spec := w.state.GrantedSpec(c)
	before := c.Applied
	return func(ctx context.Context) (func(), error) {
		n := w.node
		if err := n.mayShrink(ctx, a.ID, spec, before); err != nil {
			return nil, err
		}
		group := w.group(p)
		room := unbounded(cgroup.PodLimits(p, n.Rules))
		if before.Limits.Cpu().Cmp(*spec.Resources.Limits.Cpu()) > 0 {
			room.CPUQuota = -1
		}
		if before.Limits.Memory().Cmp(*spec.Resources.Limits.Memory()) > 0 {
			room.Memory = -1
		}
		if err := n.Groups.Set(group, room); err != nil {
			return nil, err
		}
		if err := n.Runtime.UpdateContainer(ctx, a.ID, n.containerResources(p, spec)); err != nil {
			return nil, fmt.Errorf("resize container %s: %w", a.Container, err)
		}
		if err := w.setGroup(p); err != nil {
			return nil, err
		}
		n.PodsChanged()
		return func() { w.regroup = false }, nil
	}
}

// resizePod gives the pod's group what is granted, and the containers that have
// no limits of their own: theirs are the pod's.
func (w *Worker) resizePod() step {
	p := w.state.Granted()
	before := w.state.Resources.Applied
	running := map[string]*v1.Container{}
	for _, c := range w.state.Containers {
		if r := c.Running(); r != nil && c.Kind != pod.Ephemeral {
			running[r.ID] = w.state.GrantedSpec(c)
		}
	}
	return func(ctx context.Context) (func(), error) {
		n := w.node
		if err := n.podMayShrink(ctx, running, before, p.Spec.Resources); err != nil {
			return nil, err
		}
		room := unbounded(cgroup.PodLimits(p, n.Rules))
		if shrinks(before, p.Spec.Resources, v1.ResourceCPU) {
			room.CPUQuota = -1
		}
		if shrinks(before, p.Spec.Resources, v1.ResourceMemory) {
			room.Memory = -1
		}
		if err := n.Groups.Set(w.group(p), room); err != nil {
			return nil, err
		}
		for id, spec := range running {
			if !spec.Resources.Limits.Cpu().IsZero() && !spec.Resources.Limits.Memory().IsZero() {
				continue
			}
			if err := n.Runtime.UpdateContainer(ctx, id, n.containerResources(p, spec)); err != nil {
				return nil, fmt.Errorf("resize container %s with its pod: %w", spec.Name, err)
			}
		}
		if err := w.setGroup(p); err != nil {
			return nil, err
		}
		n.PodsChanged()
		return func() { w.regroup = false }, nil
	}
}

// shrinks says whether a limit of the pod becomes less. The group follows its
// containers then, which may not have more than it.
func shrinks(before, after *v1.ResourceRequirements, name v1.ResourceName) bool {
	if before == nil || after == nil {
		return false
	}
	old, now := before.Limits[name], after.Limits[name]
	return !now.IsZero() && (old.IsZero() || now.Cmp(old) < 0)
}

// podMayShrink refuses a memory limit of a pod below what its containers use.
func (n *Node) podMayShrink(ctx context.Context, running map[string]*v1.Container, before, after *v1.ResourceRequirements) error {
	if before == nil || after == nil {
		return nil
	}
	limit := after.Limits.Memory().Value()
	if old := before.Limits.Memory().Value(); limit == 0 || old != 0 && limit >= old {
		return nil
	}
	var used uint64
	for id := range running {
		stats, err := n.Runtime.ContainerStats(ctx, id)
		if err != nil {
			return fmt.Errorf("look at the memory in use: %w", err)
		}
		used += stats.GetMemory().GetUsageBytes().GetValue()
	}
	if int64(used) >= limit {
		return fmt.Errorf("cannot decrease memory limits: attempting to set pod memory limit (%d) below current usage (%d)", limit, used)
	}
	return nil
}

// unbounded takes away the limits that are not asked for.
func unbounded(l cgroup.Limits) cgroup.Limits {
	if l.CPUQuota == 0 {
		l.CPUQuota, l.CPUPeriod = -1, cgroup.Period
	}
	if l.Memory == 0 {
		l.Memory = -1
	}
	return l
}

// mayShrink refuses a memory limit of a container below what it uses: the kernel
// would kill it to enforce that.
func (n *Node) mayShrink(ctx context.Context, id string, spec *v1.Container, before v1.ResourceRequirements) error {
	limit := spec.Resources.Limits.Memory().Value()
	if old := before.Limits.Memory().Value(); limit == 0 || old != 0 && limit >= old {
		return nil
	}
	stats, err := n.Runtime.ContainerStats(ctx, id)
	if err != nil {
		return fmt.Errorf("look at the memory in use: %w", err)
	}
	if used := stats.GetMemory().GetUsageBytes().GetValue(); int64(used) >= limit {
		return fmt.Errorf("cannot decrease memory limits: attempting to set container %q memory limit (%d) below current usage (%d)", spec.Name, limit, used)
	}
	return nil
}
