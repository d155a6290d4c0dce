package kinds

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
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

// validateJobStatus tells flaws in Kubernetes' order.
func validateJobStatus(j, old *batchv1.Job) field.ErrorList {
	c := &jobChange{job: j, old: old, path: field.NewPath("status")}
	c.numbers()
	c.ends()
	c.finished()
	c.indexes()
	c.left()
	c.successes()
	c.kept()
	return c.errs
}

func (c *jobChange) invalid(name string, value any, why string) {
	c.errs = append(c.errs, field.Invalid(c.path.Child(name), value, why))
}

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
	s := &c.job.Status
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

// Conditions by short names.
const (
	jobComplete, jobFailed    = batchv1.JobComplete, batchv1.JobFailed
	jobTarget, jobCriteriaMet = batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet
)

// conditionRule is broken by a combination of conditions.
type conditionRule struct {
	broken bool
	why    string
}

func (c *jobChange) conditions(rules ...conditionRule) {
	for _, rule := range rules {
		if rule.broken {
			c.invalid("conditions", field.OmitValueType{}, rule.why)
		}
	}
}

func (c *jobChange) timesChanged() (start, end bool) {
	s, was := &c.job.Status, &c.old.Status
	return !s.StartTime.Equal(was.StartTime), !s.CompletionTime.Equal(was.CompletionTime)
}

// ends is about how, and when, a job ended.
func (c *jobChange) ends() {
	c.conditions(
		conditionRule{c.turned(jobComplete, jobFailed) && c.has(jobComplete) && c.has(jobFailed), "cannot set Complete=True and Failed=true conditions"},
		conditionRule{c.turned(jobComplete, jobTarget) && c.has(jobComplete) && c.has(jobTarget), "cannot set Complete=True and FailureTarget=true conditions"})
	s := &c.job.Status
	startChanged, endChanged := c.timesChanged()
	if c.turned(jobComplete) || endChanged {
		if s.CompletionTime != nil && !c.has(jobComplete) {
			c.invalid("completionTime", s.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		}
		if s.CompletionTime == nil && c.has(jobComplete) {
			c.errs = append(c.errs, field.Required(c.path.Child("completionTime"), "completionTime is required for Complete jobs"))
		}
	}
	if (startChanged || endChanged) && s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		c.invalid("completionTime", s.CompletionTime, "must be equal to or after `startTime`")
	}
	failureChanged := c.turned(jobFailed) || !ptr.Equal(s.FailedIndexes, c.old.Status.FailedIndexes)
	c.conditions(
		conditionRule{failureChanged && c.has(jobFailed) && !c.has(jobTarget), "cannot set Failed=True condition without the FailureTarget=true condition"},
		conditionRule{c.turned(jobComplete, jobCriteriaMet) && c.has(jobComplete) && !c.has(jobCriteriaMet), "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"})
}

// finished is about what a finished job has no more.
func (c *jobChange) finished() {
	if !isFinished(c.job) {
		return
	}
	s, was := &c.job.Status, &c.old.Status
	if (c.endTurned() || s.Active != was.Active) && s.Active > 0 {
		c.invalid("active", s.Active, "active>0 is invalid for finished job")
	}
	// A job without anything to do may end before it began.
	spec := &c.job.Spec
	nothing := isTrue(spec.Suspend) && ptr.Equal(spec.Completions, ptr.To[int32](0))
	if startChanged, _ := c.timesChanged(); (c.endTurned() || startChanged) && s.StartTime == nil && !nothing {
		c.errs = append(c.errs, field.Required(c.path.Child("startTime"), "startTime is required for finished job"))
	}
	u := s.UncountedTerminatedPods
	if (c.endTurned() || !equality.Semantic.DeepEqual(u, was.UncountedTerminatedPods)) && u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		c.invalid("uncountedTerminatedPods", u, "must be empty for finished job")
	}
}

// left is about the pods that there still are.
func (c *jobChange) left() {
	s, was := &c.job.Status, &c.old.Status
	if (c.endTurned() || !ptr.Equal(s.Terminating, was.Terminating)) && ptr.Deref(s.Terminating, 0) > 0 && isFinished(c.job) {
		c.invalid("terminating", *s.Terminating, "terminating>0 is invalid for finished job")
	}
	if changed := !ptr.Equal(s.Ready, was.Ready) || s.Active != was.Active; changed && s.Ready != nil && *s.Ready > s.Active {
		c.invalid("ready", *s.Ready, "cannot set more ready pods than active")
	}
}

func (c *jobChange) successes() {
	c.conditions(
		conditionRule{c.has(jobCriteriaMet) && c.has(jobFailed), "cannot set SuccessCriteriaMet=True and Failed=true conditions"},
		conditionRule{c.has(jobCriteriaMet) && c.has(jobTarget), "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"},
		conditionRule{c.job.Spec.SuccessPolicy != nil && !c.has(jobCriteriaMet) && c.has(jobComplete), "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"})
}

func (c *jobChange) indexes() {
	s, was := &c.job.Status, &c.old.Status
	completedChanged := s.CompletedIndexes != was.CompletedIndexes
	failedChanged := !ptr.Equal(s.FailedIndexes, was.FailedIndexes)
	var completed, failed []interval
	if end := c.job.Spec.Completions; end != nil {
		var err error
		if completed, err = parseIndexes(s.CompletedIndexes, *end); err != nil && completedChanged {
			c.invalid("completedIndexes", s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err))
		}
		if failed, err = parseIndexes(ptr.Deref(s.FailedIndexes, ""), *end); err != nil && failedChanged && c.job.Spec.BackoffLimitPerIndex != nil {
			c.invalid("failedIndexes", *s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err))
		}
	}
	if completedChanged && s.CompletedIndexes != "" && !isIndexed(c.job) {
		c.invalid("completedIndexes", s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if failedChanged && s.FailedIndexes != nil && c.job.Spec.BackoffLimitPerIndex == nil {
		c.invalid("failedIndexes", *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	}
	if index, ok := commonIndex(completed, failed); ok && (completedChanged || failedChanged) {
		c.invalid("failedIndexes", *s.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", index))
	}
}

// kept is about what is never taken back.
func (c *jobChange) kept() {
	c.conditions(
		conditionRule{c.had(jobFailed) && !c.has(jobFailed), "cannot disable the terminal Failed=True condition"},
		conditionRule{c.had(jobComplete) && !c.has(jobComplete), "cannot disable the terminal Complete=True condition"},
		conditionRule{c.had(jobTarget) && !c.has(jobTarget), "cannot disable the terminal FailureTarget=True condition"})
	s, was := &c.job.Status, &c.old.Status
	if s.Failed < was.Failed {
		c.invalid("failed", s.Failed, "cannot decrease the failed counter")
	}
	// An indexed job that is scaled down forgets what it did above its end.
	elastic := isIndexed(c.job) && ptr.Equal(c.job.Spec.Completions, c.job.Spec.Parallelism)
	if s.Succeeded < was.Succeeded && !elastic {
		c.invalid("succeeded", s.Succeeded, "cannot decrease the succeeded counter")
	}
	startChanged, endChanged := c.timesChanged()
	if endChanged && s.CompletionTime != nil && was.CompletionTime != nil {
		c.invalid("completionTime", s.CompletionTime, apivalidation.FieldImmutableErrorMsg)
	}
	// A job that goes on begins anew, also when its suspension is told of late.
	resumed := hasJobCondition(c.old, batchv1.JobSuspended) && slices.ContainsFunc(s.Conditions, func(o batchv1.JobCondition) bool {
		return o.Type == batchv1.JobSuspended && o.Status == corev1.ConditionFalse
	})
	if startChanged && was.StartTime != nil && !isTrue(c.job.Spec.Suspend) && !resumed {
		c.invalid("startTime", s.StartTime, "field is immutable for unsuspended job once set")
	}
	c.conditions(
		conditionRule{c.had(jobCriteriaMet) && !c.has(jobCriteriaMet), "cannot disable the SuccessCriteriaMet=True condition"},
		conditionRule{c.had(jobComplete) && !c.had(jobCriteriaMet) && c.has(jobCriteriaMet), "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"})
}
