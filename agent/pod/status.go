package pod

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RuntimeName is the scheme of container IDs in statuses.
const RuntimeName = "containerd"

// Status is what the API shall show of the pod. What others own (conditions
// that the agent does not set, the nomination) is taken from the object. The
// result shares nothing with the object that may be written to.
func (s *State) Status(now time.Time) *v1.PodStatus {
	out := s.Pod.Status.DeepCopy()
	out.ObservedGeneration = s.Pod.Generation
	out.QOSClass = cmp.Or(out.QOSClass, QOS(s.Pod))
	start := stamp(s.StartTime)
	out.StartTime = &start
	if s.Refused != nil && !s.anyRun() {
		out.Phase, out.Reason, out.Message = v1.PodFailed, s.Refused.Reason, "Pod was rejected: "+s.Refused.Message
		s.conditions(out, now)
		return out
	}
	if Terminal(s.Pod) && !s.anyRun() {
		return out // what was said of it stands
	}
	s.addresses(out)
	s.podResources(out)
	out.InitContainerStatuses = s.containerStatuses(now, Init, Sidecar)
	out.ContainerStatuses = s.containerStatuses(now, Regular)
	out.EphemeralContainerStatuses = s.containerStatuses(now, Ephemeral)
	out.Phase = s.phase(out)
	if s.Stop != nil && s.Stop.Reason != "" && (out.Phase == v1.PodFailed || out.Phase == v1.PodSucceeded) {
		out.Reason, out.Message = s.Stop.Reason, s.Stop.Message
	}
	s.conditions(out, now)
	return out
}

func (s *State) addresses(out *v1.PodStatus) {
	out.HostIP, out.HostIPs = "", nil
	for _, ip := range s.HostIPs {
		out.HostIP = cmp.Or(out.HostIP, ip)
		out.HostIPs = append(out.HostIPs, v1.HostIP{IP: ip})
	}
	ips := s.Sandbox.IPs
	if s.Pod.Spec.HostNetwork && s.Sandbox.ID != "" {
		ips = s.HostIPs
	}
	if len(ips) == 0 {
		return // the last known ones stay
	}
	out.PodIP, out.PodIPs = ips[0], nil
	for _, ip := range ips {
		out.PodIPs = append(out.PodIPs, v1.PodIP{IP: ip})
	}
}

func (s *State) containerStatuses(now time.Time, kinds ...Kind) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	room := maxMessages / max(len(s.Containers), 1)
	for _, c := range s.list(kinds...) {
		cs := s.containerStatus(c, now)
		cs.State.Terminated = shortened(cs.State.Terminated, room)
		cs.LastTerminationState.Terminated = shortened(cs.LastTerminationState.Terminated, room)
		out = append(out, cs)
	}
	return out
}

// maxMessages bounds the termination messages of a pod together: each container
// has an equal part ("Customizing the termination message").
const maxMessages = 12 << 10

func shortened(t *v1.ContainerStateTerminated, room int) *v1.ContainerStateTerminated {
	if t == nil || len(t.Message) <= room {
		return t
	}
	out := *t
	out.Message = t.Message[:room]
	return &out
}

// containerStatus shows one container. The state is, in this order: running;
// how it ended, if it is not to be restarted; waiting, with the reason.
func (s *State) containerStatus(c *Container, now time.Time) v1.ContainerStatus {
	cs := v1.ContainerStatus{
		Name: c.Name, Image: c.Spec.Image, RestartCount: int32(max(c.Attempts-1, 0)),
		VolumeMounts: mountStatuses(c),
	}
	resources(&cs, c)
	stopSignal(&cs, c)
	newest := c.Newest()
	previous := c.Previous
	if newest != nil {
		cs.ContainerID, cs.Image, cs.ImageID = RuntimeName+"://"+newest.ID, cmp.Or(newest.Image, c.Spec.Image), newest.ImageID
		cs.User = user(newest.User)
		if len(c.Runs) > 1 {
			previous = terminated(c.Runs[1])
		}
	} else if previous != nil {
		cs.ContainerID = previous.ContainerID
	}
	started := false
	cs.Started = &started
	switch {
	case newest != nil && newest.Running() && !s.hooking(c):
		cs.State.Running = &v1.ContainerStateRunning{StartedAt: stamp(newest.Started)}
		cs.LastTerminationState.Terminated = previous
		started = c.Up && c.Started
		cs.Ready = started && c.Ready && c.Kind != Init
	case newest == nil && previous != nil && !(s.goesOn() && s.restarts(c, previous.ExitCode)):
		cs.State.Terminated = previous
		s.readyWhenDone(&cs, c)
	case c.ended() && s.showsEnd(c, newest, now):
		cs.State.Terminated = terminated(newest)
		cs.LastTerminationState.Terminated = previous
		s.readyWhenDone(&cs, c)
	default:
		cs.State.Waiting = s.waiting(c, now)
		cs.LastTerminationState.Terminated = previous
		if c.ended() {
			cs.LastTerminationState.Terminated = terminated(newest)
		}
	}
	return cs
}

// hooking says that the postStart hook of a running container is not done: until
// then the container does not count as running ("Container Lifecycle Hooks").
func (s *State) hooking(c *Container) bool {
	l := c.Spec.Lifecycle
	return s.Stop == nil && !c.Up && l != nil && l.PostStart != nil
}

// readyWhenDone: an init container that has done its work counts as ready.
func (s *State) readyWhenDone(cs *v1.ContainerStatus, c *Container) {
	cs.Ready = c.Kind == Init && cs.State.Terminated.ExitCode == 0
}

// goesOn says that the pod is to run on, so that containers may be restarted.
func (s *State) goesOn() bool { return s.Stop == nil && s.Refused == nil && !s.settled() }

// showsEnd says that the end of the newest run is what there is to be said, not
// the restart that follows.
func (s *State) showsEnd(c *Container, newest *Run, now time.Time) bool {
	if !s.goesOn() || !s.again(c, newest) {
		return true
	}
	if newest.Again && !s.restarts(c, newest.ExitCode) {
		return false // an end that nothing may follow, as the API sees it
	}
	return c.Failure == nil && (c.Start.Busy || now.Before(newest.Finished.Add(settle)))
}

// waiting is why a container that is to run does not.
func (s *State) waiting(c *Container, now time.Time) *v1.ContainerStateWaiting {
	newest := c.Newest()
	if f := c.Failure; f != nil {
		if Fetched(c.Pull.Reason) && f.image && !now.Before(f.At.Add(settle)) {
			return &v1.ContainerStateWaiting{Reason: ImagePullBackOff, Message: c.backoffMessage() + ": " + f.Reason + ": " + f.Message}
		}
		if newest == nil || f.image || now.Before(f.At.Add(settle)) || !c.Backoff.until(c.failed(), now).After(now) {
			return &v1.ContainerStateWaiting{Reason: f.Reason, Message: f.Message}
		}
	}
	if newest != nil && newest.Ended() && c.Backoff.until(c.failed(), now).After(now) {
		return &v1.ContainerStateWaiting{
			Reason: "CrashLoopBackOff",
			Message: "back-off " + c.Backoff.Delay.String() + " restarting failed container=" + c.Name +
				" pod=" + s.Pod.Name + "_" + s.Pod.Namespace + "(" + string(s.Pod.UID) + ")",
		}
	}
	if len(s.Pod.Spec.InitContainers) > 0 && (c.Kind == Init || c.Kind == Sidecar || !s.initialized()) {
		return &v1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &v1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

// terminated is how a run ended.
func terminated(r *Run) *v1.ContainerStateTerminated {
	t := &v1.ContainerStateTerminated{
		ExitCode:    r.ExitCode,
		Reason:      r.Reason,
		Message:     r.Message,
		StartedAt:   stamp(r.Started),
		FinishedAt:  stamp(r.Finished),
		ContainerID: RuntimeName + "://" + r.ID,
	}
	if r.State == cri.ContainerState_CONTAINER_UNKNOWN {
		t.ExitCode, t.Reason = 137, "ContainerStatusUnknown"
	}
	if t.Reason == "" {
		t.Reason = "Error"
		if t.ExitCode == 0 {
			t.Reason = "Completed"
		}
	}
	return t
}

// stamp is an API time, which has whole seconds; no time stays none.
func stamp(t time.Time) metav1.Time {
	if t.IsZero() || t.UnixNano() == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

func user(u *cri.ContainerUser) *v1.ContainerUser {
	if u.GetLinux() == nil {
		return nil
	}
	return &v1.ContainerUser{Linux: &v1.LinuxContainerUser{
		UID: u.Linux.Uid, GID: u.Linux.Gid, SupplementalGroups: slices.Clone(u.Linux.SupplementalGroups),
	}}
}

// resources shows what is granted, and what the run has.
func resources(cs *v1.ContainerStatus, c *Container) {
	r := c.Allocated.DeepCopy()
	cs.AllocatedResources = r.Requests
	if c.Running() != nil {
		r = c.Applied.DeepCopy()
	}
	r.Claims = nil
	cs.Resources = r
}

func mountStatuses(c *Container) []v1.VolumeMountStatus {
	var out []v1.VolumeMountStatus
	for i := range c.Spec.VolumeMounts {
		m := &c.Spec.VolumeMounts[i]
		st := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != v1.RecursiveReadOnlyDisabled {
				mode = v1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		out = append(out, st)
	}
	return out
}

func stopSignal(cs *v1.ContainerStatus, c *Container) {
	if l := c.Spec.Lifecycle; l != nil && l.StopSignal != nil {
		sig := *l.StopSignal
		cs.StopSignal = &sig
	}
}

// phase follows the rules of "Pod phase" in the pod lifecycle.
func (s *State) phase(st *v1.PodStatus) v1.PodPhase {
	if old := s.Pod.Status.Phase; old == v1.PodFailed || old == v1.PodSucceeded {
		return old // a terminal phase is never left
	}
	if s.Stop != nil && !s.anyAlive() {
		return s.finalPhase(st)
	}
	if s.settled() && !s.anyAlive() {
		return s.finalPhase(st)
	}
	if len(s.uninitialized(st)) > 0 && !s.anyRegularRun() {
		return v1.PodPending
	}
	for i := range st.ContainerStatuses {
		cs := &st.ContainerStatuses[i]
		if cs.State.Waiting != nil && cs.LastTerminationState.Terminated == nil {
			return v1.PodPending
		}
	}
	return v1.PodRunning
}

// finalPhase is the phase of a pod of which nothing runs or will run.
func (s *State) finalPhase(st *v1.PodStatus) v1.PodPhase {
	if s.Stop != nil && s.Stop.Fail {
		return v1.PodFailed
	}
	for i := range st.ContainerStatuses {
		t := st.ContainerStatuses[i].State.Terminated
		if t == nil || t.ExitCode != 0 {
			return v1.PodFailed
		}
	}
	return v1.PodSucceeded
}

func (s *State) anyAlive() bool {
	for _, c := range s.Containers {
		if c.alive() {
			return true
		}
	}
	return false
}

func (s *State) anyRegularRun() bool {
	for _, c := range s.list(Regular) {
		if c.Newest() != nil || c.Previous != nil {
			return true
		}
	}
	return false
}

// QOS is the pod's quality of service class: guaranteed when every container
// has limits for cpu and memory and requests equal to them, best effort when
// none asks for anything.
func QOS(p *v1.Pod) v1.PodQOSClass {
	any, all := false, true
	judge := func(r v1.ResourceRequirements) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := r.Requests[name], r.Limits[name]
			any = any || !req.IsZero() || !lim.IsZero()
			asked := req
			if _, ok := r.Requests[name]; !ok {
				asked = lim
			}
			all = all && !lim.IsZero() && asked.Cmp(lim) == 0
		}
	}
	if p.Spec.Resources != nil {
		judge(*p.Spec.Resources)
	} else {
		each(&p.Spec, func(kind Kind, c *v1.Container) {
			if kind != Ephemeral {
				judge(c.Resources)
			}
		})
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case all:
		return v1.PodQOSGuaranteed
	default:
		return v1.PodQOSBurstable
	}
}
