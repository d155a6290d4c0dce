package pod

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Delays of retries and restarts.
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
	// settle is how long a failure is shown as itself (Error, ErrImagePull)
	// before it is shown as a back-off.
	settle = time.Second
)

// imageRetry is the delay before a failed pull is tried again.
func imageRetry(failures int) time.Duration { return double(backoffFirst, backoffMax, failures) }

// stepRetry is the delay before any other failed step is tried again. The
// first retries are quick, for what is missing often arrives within seconds.
func stepRetry(failures int) time.Duration { return double(time.Second, time.Minute, failures) }

// createRetry is the delay after a container could not be created.
func createRetry(failures int) time.Duration { return double(2*time.Second, time.Minute, failures) }

func double(first, limit time.Duration, failures int) time.Duration {
	d := first
	for i := 1; i < failures && d < limit; i++ {
		d *= 2
	}
	return min(d, limit)
}

// Backoff delays the restarts of one container: none before the first, 10 s
// before the second, doubling to 5 minutes, and forgotten once a run has lasted
// twice the maximum (pod lifecycle, "Container restarts").
type Backoff struct {
	Delay time.Duration
	// At is when Delay was last raised: when the newest run was asked for.
	At time.Time
}

// until is when a container that ended at finished may be restarted. When that
// is further away than the delay, the clock was set back since: then it is now.
func (b Backoff) until(finished, now time.Time) time.Time {
	if b.forgotten(finished) || finished.After(now) {
		return now
	}
	return finished.Add(b.Delay)
}

func (b Backoff) forgotten(at time.Time) bool {
	return b.Delay == 0 || at.Sub(b.At) > 2*backoffMax
}

// raise is the back-off after a restart asked for at now of a run that ended at
// finished; most is its limit.
func (b Backoff) raise(finished, now time.Time, most time.Duration) Backoff {
	if b.forgotten(finished) {
		return Backoff{Delay: min(backoffFirst, most), At: now}
	}
	return Backoff{Delay: min(2*b.Delay, most), At: now}
}

// failed is the end that the back-off counts from: of the newest run, or, when that
// was killed for another to follow, of the one before; zero for none.
func (c *Container) failed() time.Time {
	switch newest := c.Newest(); {
	case !newest.Again:
		return newest.Finished
	case len(c.Runs) > 1:
		return c.Runs[1].Finished
	case c.Previous != nil:
		return c.Previous.FinishedAt.Time
	}
	return time.Time{}
}

// again says whether a container is started again after its newest run, which
// has ended.
func (s *State) again(c *Container, r *Run) bool {
	return r.Stale || r.Again || s.restarts(c, r.ExitCode)
}

// restarts says whether a container is started again after a run that ended
// with code. The first of its own rules that matches decides, then its own
// policy, then the pod's.
func (s *State) restarts(c *Container, code int32) bool {
	if c.Kind == Ephemeral {
		return false
	}
	if c.Kind == Sidecar || c.rule(code) != "" {
		return true
	}
	switch s.policy(c) {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	default:
		return c.Kind != Init || code != 0
	}
}

// policy is the container's own restart policy, or else the pod's.
func (s *State) policy(c *Container) v1.RestartPolicy {
	if p := c.Spec.RestartPolicy; p != nil {
		return v1.RestartPolicy(*p)
	}
	return s.Pod.Spec.RestartPolicy
}

// rule is the action of the container's first rule that matches, or nothing.
func (c *Container) rule(code int32) v1.ContainerRestartRuleAction {
	if c.Kind == Ephemeral {
		return ""
	}
	for _, rule := range c.Spec.RestartPolicyRules {
		if ruleMatches(rule.ExitCodes, code) {
			return rule.Action
		}
	}
	return ""
}

// restartingAll says that a container has ended in a way that restarts all of
// the pod's containers, and that this has not been done yet.
func (s *State) restartingAll() bool {
	for _, c := range s.list(Init, Sidecar, Regular) {
		r := c.Newest()
		if r != nil && r.Ended() && !r.Stale && c.rule(r.ExitCode) == v1.ContainerRestartRuleActionRestartAllContainers {
			return true
		}
	}
	return false
}

func ruleMatches(on *v1.ContainerRestartRuleOnExitCodes, code int32) bool {
	if on == nil {
		return false
	}
	in := slices.Contains(on.Values, code)
	switch on.Operator {
	case v1.ContainerRestartRuleOnExitCodesOpIn:
		return in
	case v1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !in
	}
	return false
}
