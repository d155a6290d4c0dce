package rollback

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/podstate"
)

// Reasons of the condition RolledBack; those of what happened are those of
// events, too. A failure has one of the first two.
const (
	reasonPods       = "PodsFailed"
	reasonDeadline   = "ProgressDeadlineExceeded"
	reasonRolledBack = "RolledBack"
	reasonPaused     = "Paused"
	reasonNoGood     = "NoGoodRevision"
	reasonMonitoring = "Monitoring"
	reasonWaiting    = "WaitingForDependencies"
	reasonGood       = "Good"
	reasonResumed    = "Resumed"
)

// snapshot is one workload with its revisions, whatever its kind. What it points
// to is not written to.
type snapshot struct {
	policy onfailure.Policy
	on     bool // there is a policy
	// observed: the loop of the kind has seen the present spec.
	observed bool
	// suspended: by spec, no pod is replaced by itself.
	suspended bool
	// pausesFirst: a rollback pauses before it undoes, by which clients hear of it.
	pausesFirst bool
	// handsOff: somebody paused the workload, so nothing is judged.
	handsOff bool
	// desired is how many pods the revision that is asked for shall have; whole
	// is whether those are all pods.
	desired  int32
	whole    bool
	minReady time.Duration
	// depends: the workload waits for others, all its pods with it.
	depends  bool
	asked    *revision // that spec asks for; nil: not made yet
	old      []*revision
	lastGood *revision // to go back to, never the one that is asked for
	// expired is when the kind's own deadline passed, if it has one; its length is
	// that of the policy then.
	hasDeadline bool
	expired     time.Time
	// Marks of the workload, and its condition.
	undoneFrom, undoneTo, paused string
	condition                    *condition
}

type revision struct {
	name     string
	number   int64
	good     bool // since it has this number
	everGood bool
	failed   *onfailure.Failure
	pods     []*corev1.Pod
	refused  *refusal // why pods of it cannot be made
}

type refusal struct {
	missing int32 // pods that there should be by now
	since   time.Time
	message string
	waits   bool // for what they depend on
}

type condition struct {
	status          corev1.ConditionStatus
	reason, message string
	since           time.Time // not part of what is compared
}

func (c *condition) same(d *condition) bool {
	if c == nil || d == nil {
		return c == d
	}
	return c.status == d.status && c.reason == d.reason && c.message == d.message
}

// decision is what one step writes, in this order: marks of revisions, the
// condition, the workload itself.
type decision struct {
	failed    *onfailure.Failure // of the revision that is asked for
	forgive   bool               // its failure counts no longer
	good      []*revision
	condition *condition
	undo      *revision // its template is put back
	suspend   bool
	resume    bool // and forget that it was suspended
	resumed   bool // somebody else did: note it
	forget    bool // marks of what is over
	after     time.Duration
}

// resumedSuffix ends the mark of a pause once somebody resumed it.
const resumedSuffix = " resumed"

// plan decides one step. A revision is on trial until it was found good or
// failed; only a trial ends in a rollback, and what is rolled back to is not on
// trial. So a rollback never rolls back.
func plan(s snapshot, now time.Time) decision {
	if !s.on {
		return decision{forget: s.undoneTo != "" || s.paused != ""}
	}
	dec := decision{condition: s.condition}
	if s.asked == nil || s.asked.failed == nil {
		dec.good, dec.after = provenOld(s, now)
	}
	if s.paused != "" && (s.asked == nil || s.paused != s.asked.name && s.paused != s.asked.name+resumedSuffix) {
		// The pause was for another template.
		dec.resume = true
		return dec
	}
	if !s.observed || s.asked == nil {
		return dec
	}
	r := s.asked
	switch {
	case r.name == s.undoneTo:
		if s.condition == nil || s.condition.status != corev1.ConditionTrue {
			dec.condition = s.rolledBack()
		}
	case r.failed != nil:
		s.carryOut(&dec, now)
	case r.good:
		dec.condition = s.says(corev1.ConditionFalse, reasonGood, "Revision %d became ready and stayed so", r.number)
		dec.forget = s.paused != ""
	case s.paused == r.name && !s.suspended:
		dec.resumed = true
		dec.condition = s.resumed()
	case s.paused != "":
		s.proves(&dec, now)
	default:
		s.try(&dec, now)
	}
	dec.forget = dec.forget || s.undoneTo != "" && r.name != s.undoneTo && r.name != s.undoneFrom
	return dec
}

// proves lets a revision that is not on trial any more become good all the same.
func (s snapshot) proves(dec *decision, now time.Time) {
	_, good, after := judge(s, now, now)
	if dec.after = controller.Sooner(dec.after, after); good {
		dec.good = append(dec.good, s.asked)
	}
}

func (s snapshot) resumed() *condition {
	return s.says(corev1.ConditionFalse, reasonResumed, "Revision %d was resumed after it had failed, and is not monitored any more", s.asked.number)
}

func (s snapshot) says(status corev1.ConditionStatus, reason, format string, args ...any) *condition {
	return &condition{status: status, reason: reason, message: fmt.Sprintf(format, args...)}
}

// carryOut does to a revision that failed what the policy says.
func (s snapshot) carryOut(dec *decision, now time.Time) {
	r := s.asked
	switch {
	case s.policy.Action == onfailure.Pause:
		if s.paused == r.name && !s.suspended {
			dec.resumed, dec.forgive = true, true
			dec.condition = s.resumed()
			return
		}
		dec.condition = s.says(corev1.ConditionFalse, reasonPaused, "Revision %d failed, and the rollout is paused: %s", r.number, r.failed.Message)
		dec.suspend = s.paused != r.name
	case s.lastGood != nil:
		dec.condition = s.says(corev1.ConditionTrue, r.failed.Reason, "%s", rolledBackText(r, s.lastGood.name))
		switch {
		case s.undoneFrom == r.name:
		case s.pausesFirst && !s.suspended:
			dec.suspend = true
		default:
			dec.undo = s.lastGood
		}
	default:
		dec.condition = s.says(corev1.ConditionFalse, reasonNoGood, "Revision %d failed, and there is no earlier revision that was good: %s", r.number, r.failed.Message)
		s.proves(dec, now)
	}
}

func rolledBackText(from *revision, to string) string {
	return fmt.Sprintf("Revision %d (%s) failed, and was rolled back to %s: %s", from.number, from.name, to, from.failed.Message)
}

// rolledBack is the condition of what is there by a rollback, when it got lost.
func (s snapshot) rolledBack() *condition {
	for _, r := range s.old {
		if r.name == s.undoneFrom && r.failed != nil {
			return s.says(corev1.ConditionTrue, r.failed.Reason, "%s", rolledBackText(r, s.undoneTo))
		}
	}
	return s.says(corev1.ConditionTrue, reasonRolledBack, "%s was rolled back to %s", s.undoneFrom, s.undoneTo)
}

// try judges a revision that is on trial. The condition keeps since when it is;
// what waits for dependencies is on trial anew once it does not.
func (s snapshot) try(dec *decision, now time.Time) {
	r, since := s.asked, now
	dec.condition = s.says(corev1.ConditionFalse, reasonMonitoring, "Revision %d (%s) is monitored until its pods have stayed ready for %s", r.number, r.name, s.steady())
	if s.waits() {
		dec.condition = s.says(corev1.ConditionFalse, reasonWaiting, "Revision %d (%s) has pods that wait for what they depend on, and no deadline meanwhile", r.number, r.name)
	}
	if dec.condition.same(s.condition) {
		since = s.condition.since
	}
	if s.handsOff {
		return
	}
	failed, good, after := judge(s, since, now)
	dec.failed, dec.after = failed, controller.Sooner(dec.after, after)
	if good {
		dec.good = append(dec.good, r)
	}
}

// steady is for how long pods must stay ready.
func (s snapshot) steady() time.Duration { return max(s.policy.Monitor, s.minReady) }

// tolerated is how many pods may fail, with room for the rounding of a ratio.
func (s snapshot) tolerated() float64 { return s.policy.Ratio*float64(s.desired) + 1e-9 }

// waits says whether what keeps a revision from being ready is that pods of it
// wait for what they depend on, which is no failure of its own. Pods that are not
// made yet wait for those before them.
func (s snapshot) waits() bool {
	gated, others := 0, 0
	for _, p := range s.asked.pods {
		switch {
		case !podstate.Active(p):
		case dependency.Waits(p):
			gated++
		case podstate.Ready(p):
		default:
			others++
		}
	}
	if s.asked.refused != nil && s.asked.refused.waits {
		gated++
	}
	return gated > 0 && float64(others) <= s.tolerated()
}

// provenOld are earlier revisions whose pods have all stayed ready: where a
// policy is new, they are what there is to go back to. after is when the next one
// may be.
func provenOld(s snapshot, now time.Time) (out []*revision, after time.Duration) {
	for _, r := range s.old {
		if r.everGood || r.failed != nil {
			continue
		}
		if n := len(r.pods); n > 0 {
			steady, wait := steadyPods(r.pods, s.steady(), now)
			if steady == n {
				out = append(out, r)
			}
			after = controller.Sooner(after, wait)
		}
	}
	return out, after
}

// stampPrecision is how much later than its stamp a change may have been: stamps
// are whole seconds.
const stampPrecision = time.Second

// steadyPods counts the pods that have been ready for all of d, and says when the
// next one will have been.
func steadyPods(pods []*corev1.Pod, d time.Duration, now time.Time) (n int, after time.Duration) {
	if d > 0 {
		d += stampPrecision
	}
	for _, p := range pods {
		ok, wait := podstate.Available(p, d, now)
		if ok {
			n++
		}
		after = controller.Sooner(after, wait)
	}
	return n, after
}

// judge says whether a revision failed or is good, or when to look again if
// nothing happens. since is when its trial began.
func judge(s snapshot, since, now time.Time) (failed *onfailure.Failure, good bool, after time.Duration) {
	r := s.asked
	if s.desired <= 0 {
		return nil, false, 0 // no pod, no proof
	}
	most := s.tolerated()
	bad, why, after := failures(s, since, now)
	if float64(bad) > most {
		return &onfailure.Failure{Revision: r.number, Reason: reasonPods, Message: fmt.Sprintf("%d of %d pods failed: %s", bad, s.desired, why)}, false, 0
	}
	var live []*corev1.Pod
	unready := s.desired
	for _, p := range r.pods {
		if !podstate.Active(p) {
			continue
		}
		live = append(live, p)
		if podstate.Ready(p) {
			unready--
		}
	}
	if float64(unready) > most {
		if s.waits() {
			return nil, false, after
		}
		expired, wait := s.deadline(live, since, now)
		if expired {
			return &onfailure.Failure{Revision: r.number, Reason: reasonDeadline, Message: fmt.Sprintf("only %d of %d pods became ready in time%s", s.desired-unready, s.desired, explain(why, live))}, false, 0
		}
		return nil, false, controller.Sooner(after, wait)
	}
	if !s.whole || int32(len(live)) != s.desired || s.oldLeft() {
		return nil, false, after
	}
	steady, wait := steadyPods(live, s.steady(), now)
	return nil, float64(int(s.desired)-steady) <= most, controller.Sooner(after, wait)
}

func (s snapshot) oldLeft() bool {
	for _, r := range s.old {
		for _, p := range r.pods {
			if podstate.Active(p) {
				return true
			}
		}
	}
	return false
}

// explain adds to a deadline what may be known of a pod that is not ready.
func explain(why string, pods []*corev1.Pod) string {
	if why != "" {
		return ": " + why
	}
	for _, p := range pods {
		for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReady} {
			if c := podstate.Condition(p, kind); c != nil && c.Status == corev1.ConditionFalse {
				return fmt.Sprintf(": pod %s: %s", p.Name, cmp.Or(c.Message, c.Reason))
			}
		}
	}
	return ""
}

// deadline says whether nothing got on for too long. The loop of Deployments
// keeps theirs, and does not tell again if it passed while pods waited: then it
// runs from the beginning of the trial. For other kinds it runs from the last time
// a pod was made, became ready, or had to be gone.
func (s snapshot) deadline(live []*corev1.Pod, since, now time.Time) (expired bool, after time.Duration) {
	last := since
	switch {
	case s.hasDeadline && s.expired.IsZero():
		return false, 0
	case s.hasDeadline && s.expired.After(since):
		return true, 0
	case s.hasDeadline:
		return s.passed(since, now)
	}
	for _, p := range live {
		last = latest(last, p.CreationTimestamp.Time)
		if podstate.Ready(p) {
			last = latest(last, podstate.Condition(p, corev1.PodReady).LastTransitionTime.Time)
		}
	}
	for _, r := range s.old {
		for _, p := range r.pods {
			if p.DeletionTimestamp != nil {
				last = latest(last, p.DeletionTimestamp.Time)
			}
		}
	}
	return s.passed(last, now)
}

// passed says whether the deadline has passed that runs since then, or when it will
// have.
func (s snapshot) passed(since, now time.Time) (bool, time.Duration) {
	left := since.Add(s.policy.Deadline).Sub(now)
	return left <= 0, max(left, 0)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
