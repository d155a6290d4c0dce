package pod

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxInfo is a sandbox as the runtime knows it.
type SandboxInfo struct {
	ID      string
	Attempt uint32
	Ready   bool
	IPs     []string
	Created time.Time
}

// ObserveSandbox takes what the runtime says of a sandbox of the pod. The
// newest attempt is the current one, others are garbage.
func (s *State) ObserveSandbox(in SandboxInfo) {
	cur := &s.Sandbox
	switch {
	case in.ID == cur.ID:
		// A sandbox that was seen stopped does not come back: an event that
		// says otherwise was on its way for longer.
		if !s.StopSandbox.Done && !s.StopSandbox.Busy {
			cur.Ready = in.Ready
		}
		if len(in.IPs) > 0 {
			cur.IPs = in.IPs
		}
	case cur.ID == "" || in.Attempt > cur.Attempt || in.Attempt == cur.Attempt && in.Created.After(cur.CreatedAt):
		if cur.ID != "" {
			s.discard(cur.ID)
			s.Garbage[cur.ID].Stop = s.StopSandbox
		}
		if s.Garbage[in.ID] != nil {
			return
		}
		cur.ID, cur.Attempt, cur.Ready, cur.IPs, cur.CreatedAt = in.ID, in.Attempt, in.Ready, in.IPs, in.Created
		s.StopSandbox = Op{}
	default:
		s.discard(in.ID)
	}
}

// ForgetSandbox notes that the runtime has a sandbox no more.
func (s *State) ForgetSandbox(id string) {
	delete(s.Garbage, id)
	if s.Sandbox.ID == id {
		s.Sandbox = Sandbox{Run: s.Sandbox.Run, Attempt: s.Sandbox.Attempt, IPs: s.Sandbox.IPs}
	}
}

func (s *State) discard(id string) {
	if s.Garbage[id] == nil {
		s.Garbage[id] = &Garbage{}
	}
}

// ObserveRun takes what the runtime says of a run of a container. News may
// come late and twice: a run never goes back in its life.
func (s *State) ObserveRun(container string, run Run) {
	c := s.Containers[container]
	if c == nil {
		return
	}
	c.Attempts = max(c.Attempts, run.Attempt+1)
	if !c.isRun(run) {
		return
	}
	if run.keep(c.Previous) {
		c.Previous = nil // it is there after all
	}
	if i := slices.IndexFunc(c.Runs, func(r *Run) bool { return r.ID == run.ID }); i >= 0 {
		if rank(run.State) < rank(c.Runs[i].State) {
			return
		}
		run.Stale, run.Again, run.Told = c.Runs[i].Stale, c.Runs[i].Again, run.Told || c.Runs[i].Told
		*c.Runs[i] = run
	} else {
		c.Runs = append(c.Runs, &run)
		slices.SortFunc(c.Runs, func(a, b *Run) int {
			if a.Attempt != b.Attempt {
				return b.Attempt - a.Attempt
			}
			return b.Created.Compare(a.Created)
		})
		if c.Runs[0].ID == run.ID {
			c.Up, c.Started, c.Ready, c.Unfit = false, false, false, ""
			c.Kill, c.Resize, c.Applied = Op{}, Op{}, c.resizeTo
			c.anew = false
		}
	}
	if newest := c.Runs[0]; newest.ID == run.ID {
		if newest.Running() {
			c.Failure = nil
			if !c.Up && !c.Start.Busy {
				c.up() // whoever started it is gone
			}
		}
		if newest.Ended() {
			c.Ready, c.Started, c.Unfit = false, false, ""
		}
	}
}

// rank orders the states of a run's life.
func rank(state cri.ContainerState) int {
	switch state {
	case cri.ContainerState_CONTAINER_CREATED:
		return 0
	case cri.ContainerState_CONTAINER_RUNNING:
		return 1
	case cri.ContainerState_CONTAINER_UNKNOWN:
		return 2
	default:
		return 3
	}
}

// ForgetRun notes that the runtime has a run no more. The newest one leaves its
// last state behind, if it came to run; how one ended that was not over is unknown.
func (s *State) ForgetRun(id string) {
	for _, c := range s.Containers {
		c.forgetCut(id)
		i := slices.IndexFunc(c.Runs, func(r *Run) bool { return r.ID == id })
		if i < 0 {
			continue
		}
		r := c.Runs[i]
		c.Runs = slices.Delete(c.Runs, i, i+1)
		switch {
		case i > 0:
		case r.untold():
			c.redo(r)
		default:
			if !r.Ended() {
				r.State = cri.ContainerState_CONTAINER_UNKNOWN
			}
			c.Previous = terminated(r)
		}
		return
	}
}

// Adopt is called once after the first look at the runtime. What runs was
// started by a former agent, which also ran its postStart hook; what the runtime
// does not know of restarts and last states is in the object's status.
func (s *State) Adopt() {
	st := &s.Pod.Status
	for _, list := range [][]v1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			if c := s.Containers[list[i].Name]; c != nil {
				c.adopt(&list[i])
			}
		}
	}
	s.setAside()
	s.adoptResources()
	for _, c := range s.Containers {
		newest := c.Newest()
		if newest == nil {
			continue
		}
		c.Backoff = c.lastBackoff()
		if newest.Running() {
			c.Up = true
			c.Started = c.Started || c.Spec.StartupProbe == nil
			c.Ready = c.Ready || c.Started && c.Spec.ReadinessProbe == nil
		}
	}
}

// Recall tells, before Adopt, of a run that a former agent had begun to kill for
// another to follow, and why. That is gone on with.
func (s *State) Recall(container, id, why string) {
	c := s.Containers[container]
	if c == nil {
		return
	}
	for _, r := range c.Runs {
		if r.ID != id {
			continue
		}
		r.Again = true
		if r.Running() {
			c.Unfit = why
		}
	}
}

func (c *Container) adopt(cs *v1.ContainerStatus) {
	c.Previous = cs.LastTerminationState.Terminated
	for _, r := range c.Runs {
		r.keep(cs.State.Terminated)
		r.keep(cs.LastTerminationState.Terminated)
	}
	newest := c.Newest()
	if cs.Resources != nil && c.Kind != Ephemeral {
		c.Allocated = v1.ResourceRequirements{Requests: cs.AllocatedResources, Limits: cs.Resources.Limits}
		c.Applied = *cs.Resources
	}
	switch same := newest != nil && TrimScheme(cs.ContainerID) == newest.ID; {
	case same && newest.Running():
		c.Started, c.Ready = cs.Started != nil && *cs.Started, cs.Ready
	case same && newest.Unborn() && cs.State.Running != nil:
		// A disk that lost its last writes shows it as it was before.
		newest.State, newest.Started, newest.Told = cri.ContainerState_CONTAINER_UNKNOWN, cs.State.Running.StartedAt.Time, true
	case same:
	case cs.State.Terminated != nil:
		c.Previous = cs.State.Terminated
	case cs.State.Running != nil && newest == nil:
		c.Previous = lost(cs)
	}
	if cs.RestartCount > 0 || cs.ContainerID != "" || c.Previous != nil {
		c.Attempts = max(c.Attempts, int(cs.RestartCount)+1)
	}
	// A status that counts an attempt after the run that it shows tells of one that was
	// cut off and taken away, and is to be made once more.
	if newest != nil && newest.Ended() && TrimScheme(cs.ContainerID) == newest.ID && newest.Attempt < c.Attempts-1 {
		c.anew = true
	}
}

// keep gives a run that has ended the end that was told of it before, if it is that
// run's: a runtime that died meanwhile may know less of it now.
func (r *Run) keep(told *v1.ContainerStateTerminated) bool {
	if told == nil || !r.Ended() || TrimScheme(told.ContainerID) != r.ID {
		return false
	}
	r.State, r.Told = cri.ContainerState_CONTAINER_EXITED, true
	r.ExitCode, r.Reason, r.Message = told.ExitCode, told.Reason, told.Message
	return true
}

// lost is the end of a run that the runtime no longer knows of.
func lost(cs *v1.ContainerStatus) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode:    137,
		Reason:      "ContainerStatusUnknown",
		Message:     "The container could not be located when the pod was terminated",
		StartedAt:   cs.State.Running.StartedAt,
		ContainerID: cs.ContainerID,
	}
}

func (s *State) anyRun() bool {
	for _, c := range s.Containers {
		if len(c.Runs) > 0 {
			return true
		}
	}
	return false
}

// TrimScheme takes "containerd://ID", the form in statuses, to "ID".
func TrimScheme(id string) string {
	if _, rest, ok := strings.Cut(id, "://"); ok {
		return rest
	}
	return id
}

// ProbeKind is what a probe is for.
type ProbeKind string

// The kinds of probes.
const (
	Startup   ProbeKind = "startup"
	Liveness  ProbeKind = "liveness"
	Readiness ProbeKind = "readiness"
)

// Probed takes a result of a probe that has passed its threshold. A result for
// a run that is no longer the newest is of no interest.
func (s *State) Probed(container string, runID string, kind ProbeKind, ok bool) {
	c := s.Containers[container]
	if c == nil {
		return
	}
	run := c.Running()
	if run == nil || run.ID != runID {
		return
	}
	switch kind {
	case Readiness:
		c.Ready = ok
	case Startup:
		if ok {
			c.Started = true
			if c.Spec.ReadinessProbe == nil {
				c.Ready = true
			}
		} else {
			c.Unfit = s.unfit(c, "startup")
		}
	case Liveness:
		if !ok {
			c.Unfit = s.unfit(c, "liveness")
		}
	}
}

// unfit says, in the kubelet's words, why a container is killed whose probe has
// failed. The rules of the container are not asked: it has no exit code yet.
func (s *State) unfit(c *Container, probe string) string {
	text := "ontainer " + c.Name + " failed " + probe + " probe"
	if c.Kind == Sidecar {
		return "Init c" + text
	}
	if s.policy(c) != v1.RestartPolicyNever {
		text += ", will be restarted"
	}
	return "C" + text
}

// up notes that the newest run is running and its postStart hook done.
func (c *Container) up() {
	c.Up = true
	if c.Spec.StartupProbe == nil {
		c.Started = true
		if c.Spec.ReadinessProbe == nil {
			c.Ready = true
		}
	}
}
