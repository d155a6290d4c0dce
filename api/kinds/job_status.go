package kinds

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// A job's status may be written by a loop of the user's own (managedBy), and
// everyone who waits for jobs relies on it: a finished job stays finished, and
// its numbers agree. A rule is applied when a field that it is about changes,
// so that a status which breaks one already can still be written.
//
// The order that the rules impose on a loop: FailureTarget no later than
// Failed, SuccessCriteriaMet no later than Complete, and either only when no
// pod is active or terminating and none is uncounted.

// jobChange is one update of a job's status.
type jobChange struct {
	job, old *batchv1.Job
	path     *field.Path
	errs     field.ErrorList
}

func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	c := &jobChange{job: j, old: old, path: field.NewPath("status")}
	c.numbers()
	c.conditions()
	c.finished()
	c.times()
	c.indexes()
	c.decreases()
	return c.errs
}

func (c *jobChange) invalid(name string, value any, why string) {
	c.errs = append(c.errs, field.Invalid(c.path.Child(name), value, why))
}

// condition refuses a combination of conditions.
func (c *jobChange) condition(why string) { c.invalid("conditions", field.OmitValueType{}, why) }

func (c *jobChange) has(kind batchv1.JobConditionType) bool { return hasJobCondition(c.job, kind) }
func (c *jobChange) had(kind batchv1.JobConditionType) bool { return hasJobCondition(c.old, kind) }

// turned says whether one of the conditions was switched.
func (c *jobChange) turned(kinds ...batchv1.JobConditionType) bool {
	return slices.ContainsFunc(kinds, func(kind batchv1.JobConditionType) bool { return c.has(kind) != c.had(kind) })
}

// endTurned says whether the job became, or stopped being, finished.
func (c *jobChange) endTurned() bool {
	return isFinished(c.job) != isFinished(c.old)
}

func isFinished(j *batchv1.Job) bool {
	return hasJobCondition(j, batchv1.JobComplete) || hasJobCondition(j, batchv1.JobFailed)
}

func (c *jobChange) numbers() {
	s, was := &c.job.Status, &c.old.Status
	c.errs = append(c.errs, nonNegative(c.path,
		counter{"active", int64(s.Active)},
		counter{"succeeded", int64(s.Succeeded)},
		counter{"failed", int64(s.Failed)},
		counter{"ready", int64(ptr.Deref(s.Ready, 0))},
		counter{"terminating", int64(ptr.Deref(s.Terminating, 0))})...)
	if u := s.UncountedTerminatedPods; u != nil {
		c.uncounted("succeeded", u.Succeeded, nil)
		c.uncounted("failed", u.Failed, u.Succeeded)
	}
	if changed := !ptr.Equal(s.Ready, was.Ready) || s.Active != was.Active; changed && s.Ready != nil && *s.Ready > s.Active {
		c.invalid("ready", *s.Ready, "cannot set more ready pods than active")
	}
}

func (c *jobChange) uncounted(name string, uids, others []types.UID) {
	path := c.path.Child("uncountedTerminatedPods", name)
	for i, uid := range uids {
		if uid == "" {
			c.errs = append(c.errs, field.Invalid(path.Index(i), uid, "must not be empty"))
		} else if slices.Contains(uids[:i], uid) || slices.Contains(others, uid) {
			c.errs = append(c.errs, field.Duplicate(path.Index(i), uid))
		}
	}
}

func (c *jobChange) conditions() {
	const (
		complete, failed    = batchv1.JobComplete, batchv1.JobFailed
		target, criteriaMet = batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
	)
	for _, rule := range []struct {
		broken bool
		why    string
	}{
		{c.turned(complete, failed) && c.has(complete) && c.has(failed), "cannot set Complete=True and Failed=true conditions"},
		{c.turned(complete, target) && c.has(complete) && c.has(target), "cannot set Complete=True and FailureTarget=true conditions"},
		{c.turned(failed, target) && c.has(failed) && !c.has(target), "cannot set Failed=True condition without the FailureTarget=true condition"},
		{c.turned(complete, criteriaMet) && c.has(complete) && !c.has(criteriaMet), "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
		{c.has(criteriaMet) && c.has(failed), "cannot set SuccessCriteriaMet=True and Failed=true conditions"},
		{c.has(criteriaMet) && c.has(target), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"},
		{c.job.Spec.SuccessPolicy != nil && !c.has(criteriaMet) && c.has(complete), "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"},
		{c.had(failed) && !c.has(failed), "cannot disable the terminal Failed=True condition"},
		{c.had(complete) && !c.has(complete), "cannot disable the terminal Complete=True condition"},
		{c.had(target) && !c.has(target), "cannot disable the terminal FailureTarget=True condition"},
		{c.had(criteriaMet) && !c.has(criteriaMet), "cannot disable the SuccessCriteriaMet=True condition"},
		{c.had(complete) && !c.had(criteriaMet) && c.has(criteriaMet), "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"},
	} {
		if rule.broken {
			c.condition(rule.why)
		}
	}
}

func (c *jobChange) finished() {
	if !isFinished(c.job) {
		return
	}
	s, was := &c.job.Status, &c.old.Status
	if (c.endTurned() || s.Active != was.Active) && s.Active > 0 {
		c.invalid("active", s.Active, "active>0 is invalid for finished job")
	}
	if (c.endTurned() || !ptr.Equal(s.StartTime, was.StartTime)) && s.StartTime == nil {
		c.errs = append(c.errs, field.Required(c.path.Child("startTime"), "startTime is required for finished job"))
	}
	u := s.UncountedTerminatedPods
	if (c.endTurned() || !equality.Semantic.DeepEqual(u, was.UncountedTerminatedPods)) && u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		c.invalid("uncountedTerminatedPods", u, "must be empty for finished job")
	}
	if (c.endTurned() || !ptr.Equal(s.Terminating, was.Terminating)) && ptr.Deref(s.Terminating, 0) > 0 {
		c.invalid("terminating", *s.Terminating, "terminating>0 is invalid for finished job")
	}
}

func (c *jobChange) times() {
	s, was := &c.job.Status, &c.old.Status
	startChanged := !equality.Semantic.DeepEqual(s.StartTime, was.StartTime)
	endChanged := !equality.Semantic.DeepEqual(s.CompletionTime, was.CompletionTime)
	complete := c.has(batchv1.JobComplete)
	if c.turned(batchv1.JobComplete) || endChanged {
		if s.CompletionTime != nil && !complete {
			c.invalid("completionTime", s.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		}
		if s.CompletionTime == nil && complete {
			c.errs = append(c.errs, field.Required(c.path.Child("completionTime"), "completionTime is required for Complete jobs"))
		}
	}
	if (startChanged || endChanged) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		c.invalid("completionTime", s.CompletionTime, "must be equal to or after `startTime`")
	}
	if endChanged && s.CompletionTime != nil && was.CompletionTime != nil {
		c.invalid("completionTime", s.CompletionTime, "completionTime cannot be mutated")
	}
	if startChanged && was.StartTime != nil && !isTrue(c.job.Spec.Suspend) {
		c.invalid("startTime", s.StartTime, "field is immutable for unsuspended job once set")
	}
}

func (c *jobChange) indexes() {
	s, was := &c.job.Status, &c.old.Status
	completedChanged := s.CompletedIndexes != was.CompletedIndexes
	failedChanged := !ptr.Equal(s.FailedIndexes, was.FailedIndexes)
	if completedChanged && s.CompletedIndexes != "" && !isIndexed(c.job) {
		c.invalid("completedIndexes", s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if failedChanged && s.FailedIndexes != nil && c.job.Spec.BackoffLimitPerIndex == nil {
		c.invalid("failedIndexes", *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	}
	if c.job.Spec.Completions == nil {
		return
	}
	completed, err := parseIndexes(s.CompletedIndexes, *c.job.Spec.Completions)
	if err != nil && completedChanged {
		c.invalid("completedIndexes", s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err))
	}
	if s.FailedIndexes == nil {
		return
	}
	failed, err := parseIndexes(*s.FailedIndexes, *c.job.Spec.Completions)
	if err != nil && failedChanged && c.job.Spec.BackoffLimitPerIndex != nil {
		c.invalid("failedIndexes", *s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err))
	}
	if index, ok := commonIndex(completed, failed); ok && (completedChanged || failedChanged) {
		c.invalid("failedIndexes", *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", index))
	}
}

func (c *jobChange) decreases() {
	s, was := &c.job.Status, &c.old.Status
	if s.Failed < was.Failed {
		c.invalid("failed", s.Failed, "cannot decrease the failed counter")
	}
	// An indexed job that is scaled down forgets what it did above its end.
	elastic := isIndexed(c.job) && ptr.Equal(c.job.Spec.Completions, c.job.Spec.Parallelism)
	if s.Succeeded < was.Succeeded && !elastic {
		c.invalid("succeeded", s.Succeeded, "cannot decrease the succeeded counter")
	}
}
