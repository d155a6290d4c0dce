package pod

import (
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plan says what to do now, and when to ask again if nothing happens earlier
// (zero: not before something does). Actions are independent of each other and
// may be carried out at the same time.
func (s *State) Plan(now time.Time) (actions []Action, wake time.Time) {
	p := &planner{s: s, now: now}
	s.setAside()
	s.expire(p)
	switch {
	case s.Stop != nil:
		p.windDown()
	case s.Refused != nil:
		p.release()
	case s.settled():
		p.windDown()
	default:
		p.run()
	}
	p.collect()
	return p.actions, p.wake
}

// Over says that nothing of the pod is left on the node.
func (s *State) Over() bool { return s.Remove.Done }

// expire ends a pod that has been active for longer than it may.
func (s *State) expire(p *planner) {
	limit := s.Pod.Spec.ActiveDeadlineSeconds
	if limit == nil || s.Stop != nil || s.Refused != nil || s.settled() {
		return
	}
	due := s.StartTime.Add(time.Duration(*limit) * time.Second)
	if p.wait(due) {
		return
	}
	s.Terminate(Stop{
		Since: p.now, Grace: SpecGrace(s.Pod), Fail: true,
		Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline",
	})
}

type planner struct {
	s       *State
	now     time.Time
	wake    time.Time
	actions []Action
}

func (p *planner) do(a Action) { p.actions = append(p.actions, a) }

// wait says whether t is still to come, and if so asks to be woken then.
func (p *planner) wait(t time.Time) bool {
	if !t.After(p.now) {
		return false
	}
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
	return true
}

// step emits a when its step is due; it answers whether the step is done.
func (p *planner) step(o *Op, a Action) bool {
	if o.Done {
		return true
	}
	if !o.Busy && !p.wait(o.RetryAt) {
		p.do(a)
	}
	return false
}

// run is what a pod that shall live needs next.
func (p *planner) run() {
	s := p.s
	if !p.step(&s.Host, Action{Verb: Prepare}) {
		return
	}
	mounted := p.step(&s.Volumes, Action{Verb: Mount})
	if mounted {
		p.refresh()
	}
	ready := p.sandbox()
	if s.restartingAll() && !p.restartAll() {
		return
	}
	p.mend()
	if s.Sandbox.ID != "" && !ready {
		return // what is wanted is known once the sandbox is replaced
	}
	for _, c := range s.wanted() {
		p.start(c, mounted && ready)
	}
}

// restartAll kills all containers, at once and without their hooks, so that the
// pod begins anew in its sandbox, init containers first. It answers whether it
// may begin.
func (p *planner) restartAll() bool {
	gone := true
	for _, c := range p.s.All() {
		gone = gone && !c.alive()
		if run := c.Running(); run != nil {
			p.kill(c, run, Action{Message: "Stopping container " + c.Name})
		}
	}
	if !gone {
		return false
	}
	for _, c := range p.s.list(Init, Sidecar, Regular) {
		if r := c.Newest(); r != nil {
			r.Stale = true
		}
	}
	return true
}

// refresh renews the content of volumes when it is due.
func (p *planner) refresh() {
	r := &p.s.Refresh
	due := r.Stale || !r.At.IsZero() && !p.wait(r.At)
	if due && !r.Busy && !p.wait(r.RetryAt) {
		p.do(Action{Verb: RefreshVolumes})
	}
}

// sandbox makes sure that there is a ready sandbox.
func (p *planner) sandbox() bool {
	s := p.s
	if s.Sandbox.Ready {
		return true
	}
	attempt := int(s.Sandbox.Attempt)
	if s.Sandbox.ID != "" {
		// What ran in the sandbox that died is killed first.
		if !p.killAll(s.All()...) {
			return false
		}
		if !p.step(&s.StopSandbox, Action{Verb: StopSandbox, ID: s.Sandbox.ID}) {
			return false
		}
		attempt++
	}
	if o := &s.Sandbox.Run; !o.Busy && !p.wait(o.RetryAt) {
		p.do(Action{Verb: RunSandbox, Attempt: attempt})
	}
	return false
}

// mend kills runs that have to be restarted, and resizes those that need not.
func (p *planner) mend() {
	for _, c := range p.s.All() {
		run := c.Running()
		if run == nil {
			continue
		}
		reason := c.Unfit
		if reason == "" && run.Asked != "" && run.Asked != c.Spec.Image && c.Kind != Ephemeral {
			reason = "Container " + c.Name + " definition changed, will be restarted"
		}
		if reason == "" && c.resizing() && c.restartsToResize() {
			reason = "Container " + c.Name + " resize requires restart"
		}
		switch {
		case reason != "":
			// A probe's verdict is one on a failure, so the policy may be to let it be.
			again := c.Kind != Init && (c.Unfit == "" || p.s.policy(c) != v1.RestartPolicyNever)
			p.kill(c, run, Action{Grace: p.s.graceFor(c), Message: reason, Again: again})
		case c.resizing() && !c.Start.Busy && !c.Resize.Busy && !p.wait(c.Resize.RetryAt):
			p.do(Action{Verb: Resize, Container: c.Name, ID: run.ID})
		}
	}
	if r := &p.s.Resources; r.resizing() && p.s.Host.Done && !r.Resize.Busy && !p.wait(r.Resize.RetryAt) {
		p.do(Action{Verb: ResizePod})
	}
}

// graceFor is what a container is given that is killed to be restarted: its
// failed probe may have a grace period of its own.
func (s *State) graceFor(c *Container) time.Duration {
	probe := c.Spec.LivenessProbe
	if !c.Started {
		probe = c.Spec.StartupProbe
	}
	if c.Unfit != "" && probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	return SpecGrace(s.Pod)
}

// kill stops a run. A kill in progress is repeated only with an earlier
// deadline.
func (p *planner) kill(c *Container, run *Run, a Action) {
	if c.Kill.Busy {
		if !p.now.Add(a.Grace).Before(c.KillBy) {
			return
		}
	} else if p.wait(c.Kill.RetryAt) {
		return
	}
	a.Verb, a.Container, a.ID = Kill, c.Name, run.ID
	p.do(a)
}

// start brings a container up that is wanted.
func (p *planner) start(c *Container, ready bool) {
	s := p.s
	newest := c.Newest()
	if c.Start.Busy || c.Kill.Busy || newest != nil && newest.Running() {
		return
	}
	again := c.Kind == Init && newest != nil && newest.ExitCode == 0 // the pod begins anew
	if newest != nil && newest.Ended() && !again {
		until := c.Backoff.until(c.failed(), p.now)
		if p.wait(until) {
			if c.Failure != nil {
				p.wait(c.Failure.At.Add(settle)) // it is shown until then
			}
			if !p.wait(newest.Finished.Add(settle)) && c.told != newest.ID {
				p.do(Action{Verb: Report, Container: c.Name, ID: newest.ID, Reason: "BackOff",
					Message: fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, s.Pod.Name, s.Pod.Namespace, s.Pod.UID)})
			}
			return
		}
	}
	if p.wait(c.Start.RetryAt) {
		return
	}
	attempt := c.next()
	if c.Pull.For != attempt || !c.Pull.Done {
		p.pull(c, attempt)
		return
	}
	if ready && len(c.Cut) == 0 {
		p.do(Action{Verb: Start, Container: c.Name, Attempt: attempt})
	}
}

func (p *planner) pull(c *Container, attempt int) {
	if c.Pull.Busy {
		return
	}
	if p.wait(c.Pull.RetryAt) {
		key := fmt.Sprintf("pull/%d", c.Pull.Failures)
		if Fetched(c.Pull.Reason) && !p.wait(c.Failure.At.Add(settle)) && c.told != key {
			p.do(Action{Verb: Report, Container: c.Name, ID: key, Reason: ImagePullBackOff, Message: c.backoffMessage()})
		}
		return
	}
	p.do(Action{Verb: PullImage, Container: c.Name, Attempt: attempt})
}

// wanted are the containers that should be running now, in order.
func (s *State) wanted() []*Container {
	if !s.initialized() {
		return s.wantedToInitialize()
	}
	out := s.list(Sidecar)
	for _, c := range s.list(Regular) {
		newest := c.Newest()
		if newest == nil && c.Previous != nil && !s.restarts(c, c.Previous.ExitCode) {
			continue // ran to its end under a former agent
		}
		if newest == nil || !newest.Ended() || s.again(c, newest) {
			out = append(out, c)
		}
	}
	for _, c := range s.list(Ephemeral) {
		if c.Newest() == nil && c.Previous == nil {
			out = append(out, c)
		}
	}
	return out
}

// wantedToInitialize is the first init container that is not done, with the
// sidecars before it.
func (s *State) wantedToInitialize() []*Container {
	var out []*Container
	for _, c := range s.list(Init, Sidecar) {
		if c.Kind == Init && c.succeeded(s.Sandbox.ID) {
			continue
		}
		out = append(out, c)
		if c.Kind == Init || c.Running() == nil || !c.Up || !c.Started {
			break
		}
	}
	return out
}

// succeeded says that a container has run to its end in the current sandbox.
func (c *Container) succeeded(sandbox string) bool {
	r := c.Newest()
	return r != nil && r.State == cri.ContainerState_CONTAINER_EXITED && r.ExitCode == 0 && r.Sandbox == sandbox && !r.Stale
}

// initialized says that all init containers have done their work in the
// current sandbox. The proof that outlives their removal is a regular container
// that has been created in it.
func (s *State) initialized() bool {
	for _, c := range s.list(Regular) {
		if r := c.Newest(); r != nil && r.Sandbox == s.Sandbox.ID && !r.Stale {
			return true
		}
	}
	for _, c := range s.list(Init, Sidecar) {
		if c.Kind == Sidecar && !(c.Started && c.Up) || c.Kind == Init && !c.succeeded(s.Sandbox.ID) {
			return false
		}
	}
	return true
}

// settled says that the pod's work is over: all regular containers have ended
// for good, or an init container has failed for good.
func (s *State) settled() bool {
	if Terminal(s.Pod) {
		return true
	}
	if s.restartingAll() {
		return false
	}
	for _, c := range s.list(Init) {
		if code, over := s.over(c); over && code != 0 {
			return true
		}
	}
	regular := s.list(Regular)
	for _, c := range regular {
		if _, over := s.over(c); !over {
			return false
		}
	}
	return len(regular) > 0
}

// over says that a container has ended for good, and with which code.
func (s *State) over(c *Container) (code int32, over bool) {
	last := c.last()
	if last == nil || c.Start.Busy {
		return 0, false
	}
	if r := c.Newest(); r != nil {
		return last.ExitCode, !s.again(c, r)
	}
	return last.ExitCode, !s.restarts(c, last.ExitCode)
}

// last is how the newest run ended, or nil when there is none or it goes on.
func (c *Container) last() *v1.ContainerStateTerminated {
	r := c.Newest()
	if r == nil {
		return c.Previous
	}
	if !r.Ended() {
		return nil
	}
	return terminated(r)
}

// windDown ends all containers, then gives back what the pod holds.
func (p *planner) windDown() {
	s := p.s
	if !p.killInOrder() {
		return
	}
	if s.Sandbox.Run.Busy {
		return
	}
	if s.Sandbox.ID != "" && !p.step(&s.StopSandbox, Action{Verb: StopSandbox, ID: s.Sandbox.ID}) {
		return
	}
	p.release()
}

// killInOrder kills regular containers first, then sidecars from the last to
// the first, each once those after it have ended. It answers whether all have.
func (p *planner) killInOrder() bool {
	s := p.s
	if !p.killAll(s.list(Init, Regular, Ephemeral)...) {
		return false
	}
	sidecars := s.list(Sidecar)
	for _, c := range slices.Backward(sidecars) {
		if !p.killAll(c) {
			return false
		}
	}
	return true
}

// killAll kills what runs of some containers; it answers whether nothing does.
func (p *planner) killAll(containers ...*Container) bool {
	gone := true
	for _, c := range containers {
		if c.alive() {
			gone = false
		}
		if run := c.Running(); run != nil {
			p.kill(c, run, Action{Grace: p.remaining(), Message: "Stopping container " + c.Name})
		}
	}
	return gone
}

// remaining is the grace that is left, at least a second.
func (p *planner) remaining() time.Duration {
	if stop := p.s.Stop; stop != nil {
		return max(stop.Deadline().Sub(p.now), minGrace)
	}
	return SpecGrace(p.s.Pod)
}

// release gives back volumes and cgroup, and then, when the pod is being
// deleted, the object and what is left on the node.
func (p *planner) release() {
	s := p.s
	if s.Host.Busy || s.Volumes.Busy || s.Refresh.Busy {
		return
	}
	if !p.step(&s.Release, Action{Verb: ReleaseHost}) {
		return
	}
	if s.Pod.DeletionTimestamp != nil && !s.Gone {
		p.step(&s.Finish, Action{Verb: FinishPod})
	}
	if s.Gone {
		p.step(&s.Remove, Action{Verb: RemovePod})
	}
}

// collect removes runs and sandboxes that nobody looks at any more.
func (p *planner) collect() {
	s := p.s
	if s.Remove.Busy || s.Remove.Done || s.Gone {
		return // all is removed at once
	}
	inUse := map[string]bool{}
	for _, c := range s.All() {
		for i, r := range c.Runs {
			if !s.unwanted(c, i) || s.Keep.MinAge > 0 && p.wait(r.Created.Add(s.Keep.MinAge)) {
				inUse[r.Sandbox] = true
				continue
			}
			p.remove(c, r)
		}
		for _, r := range c.Cut {
			p.remove(c, r)
		}
	}
	for _, id := range sortedKeys(s.Garbage) {
		g := s.Garbage[id]
		if p.step(&g.Stop, Action{Verb: StopSandbox, ID: id}) && !inUse[id] {
			p.step(&g.Remove, Action{Verb: RemoveSandbox, ID: id})
		}
	}
}

func (p *planner) remove(c *Container, r *Run) {
	o := c.removals[r.ID]
	if o == nil {
		o = &Op{}
		c.removals[r.ID] = o
	}
	p.step(o, Action{Verb: RemoveContainer, Container: c.Name, ID: r.ID})
}

// unwanted says whether a run of a container may go once it is old enough. When
// a pod is over its older runs go first: the newest is what is shown.
func (s *State) unwanted(c *Container, i int) bool {
	run := c.Runs[i]
	if run.Running() || i == 0 && !(Terminal(s.Pod) && len(c.Runs) == 1) {
		return false
	}
	return s.Excess[run.ID] || s.Shed && Terminal(s.Pod) || i > 0 && s.Keep.Old >= 0 && i > s.Keep.Old
}

// Ended is a run that is over and may be removed.
type Ended struct {
	Container, ID string
	Created       time.Time
}

// Old are the ended runs that nothing needs, of all containers: those beside the
// newest, and once the pod is over that one, too.
func (s *State) Old() []Ended {
	var out []Ended
	for _, c := range s.All() {
		for i, r := range c.Runs {
			if !r.Running() && (i > 0 || Terminal(s.Pod)) {
				out = append(out, Ended{c.Name, r.ID, r.Created})
			}
		}
	}
	return out
}
