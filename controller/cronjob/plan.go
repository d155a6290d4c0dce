package cronjob

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
)

// mostAhead is how far in the future a time in an object may be: the clock was put
// back a little since, and what has run does not run again. A time beyond is that
// of a clock that was wrong, and is not waited for.
const mostAhead = time.Hour

// snapshot is what a plan is made from. The objects in it are not written to.
type snapshot struct {
	cron *batchv1.CronJob
	jobs []*batchv1.Job // those that it controls
	// since is when its present schedule was first seen in place of another one, or
	// when the last run was first seen to be in the future, or zero: what would have
	// run before is not made up for.
	since time.Time
	local *time.Location // the zone of schedules that name none
	now   time.Time
}

// decision is what one step does.
type decision struct {
	// replace are the running jobs to delete before run is started; status does
	// not have them any more.
	replace []*batchv1.Job
	// run is the scheduled time for which a job is to be made; nil: none.
	run *time.Time
	// status is the cron job's as it should be, but for the job of run.
	status batchv1.CronJobStatus
	// remove are the jobs to delete once the status is written: too many for the
	// history.
	remove []*batchv1.Job
	notes  []note
	after  time.Duration // until the next run; zero: there is none
}

// note is an event. It is told once for as long as steps come to it; at tells
// notes apart that have the same text.
type note struct {
	kind, reason, message string
	at                    time.Time
}

func (d *decision) warn(reason, format string, args ...any) {
	d.notes = append(d.notes, note{kind: corev1.EventTypeWarning, reason: reason, message: fmt.Sprintf(format, args...)})
}

func (d *decision) say(reason, format string, args ...any) {
	d.notes = append(d.notes, note{kind: corev1.EventTypeNormal, reason: reason, message: fmt.Sprintf(format, args...)})
}

// plan decides what to do about a cron job.
func plan(s snapshot) decision {
	d := decision{status: *s.cron.Status.DeepCopy()}
	s.account(&d)
	d.remove = s.history()
	if s.cron.DeletionTimestamp == nil {
		s.pursue(&d)
	}
	return d
}

// account brings the list of active jobs and the times in the status up to date
// with the jobs.
func (s snapshot) account(d *decision) {
	st := &d.status
	here := map[types.UID]*batchv1.Job{}
	for _, j := range s.jobs {
		here[j.UID] = j
	}
	st.Active = slices.DeleteFunc(st.Active, func(ref corev1.ObjectReference) bool {
		j := here[ref.UID]
		if j == nil {
			d.say("MissingJob", "Active job went missing: %v", ref.Name)
			return true
		}
		kind := finished(j)
		if kind != "" {
			d.say("SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, kind)
		}
		return kind != ""
	})
	for _, j := range s.jobs {
		kind := finished(j)
		// A process that dies after it made a job, and before it wrote that down,
		// leaves it to be found here.
		at, ours := scheduledFor(s.cron, j)
		if ours && (st.LastScheduleTime == nil || at.After(st.LastScheduleTime.Time)) {
			st.LastScheduleTime = &metav1.Time{Time: at}
		}
		switch done := j.Status.CompletionTime; {
		case kind == batchv1.JobComplete:
			if done != nil && (st.LastSuccessfulTime == nil || done.After(st.LastSuccessfulTime.Time)) {
				st.LastSuccessfulTime = done
			}
		case kind != "" || j.DeletionTimestamp != nil || active(st, j):
		case ours:
			st.Active = append(st.Active, refTo(j))
		default:
			d.warn("UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		}
	}
}

// history are the finished jobs beyond those to keep, of either kind.
func (s snapshot) history() []*batchv1.Job {
	return slices.Concat(
		s.surplus(batchv1.JobComplete, s.cron.Spec.SuccessfulJobsHistoryLimit),
		s.surplus(batchv1.JobFailed, s.cron.Spec.FailedJobsHistoryLimit))
}

// surplus are the jobs that ended in one way but for the limit latest.
func (s snapshot) surplus(kind batchv1.JobConditionType, limit *int32) []*batchv1.Job {
	if limit == nil {
		return nil
	}
	var jobs []*batchv1.Job
	for _, j := range s.jobs {
		if finished(j) == kind && j.DeletionTimestamp == nil {
			jobs = append(jobs, j)
		}
	}
	began := func(j *batchv1.Job) time.Time { return ptr.Deref(j.Status.StartTime, metav1.Time{}).Time }
	slices.SortFunc(jobs, func(a, b *batchv1.Job) int {
		return cmp.Or(controller.First(a.Status.StartTime != nil, b.Status.StartTime != nil), began(a).Compare(began(b)), strings.Compare(a.Name, b.Name))
	})
	return jobs[:max(0, len(jobs)-int(*limit))]
}

// pursue starts the run that is due, and finds out when the next one is.
func (s snapshot) pursue(d *decision) {
	c := s.cron
	if zone := c.Spec.TimeZone; zone != nil {
		if _, err := time.LoadLocation(*zone); err != nil {
			d.warn("UnknownTimeZone", "invalid timeZone: %q: %s", *zone, err)
			return
		}
	}
	if ptr.Deref(c.Spec.Suspend, false) {
		return
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		d.warn("UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", c.Spec.Schedule)
	}
	schedule, err := readSchedule(c, s.local)
	if err != nil {
		d.warn("UnparseableSchedule", "unparseable schedule: %q : %s", c.Spec.Schedule, err)
		return
	}
	all := s.runs(schedule, d.status.LastScheduleTime)
	next := all.next(s.now)
	if next.IsZero() {
		d.warn("InvalidSchedule", "invalid schedule: %s : %s", c.Spec.Schedule, errNever)
		return
	}
	d.after = next.Sub(s.now)
	due, ok := all.last(s.now)
	if !ok || s.hasRun(due, d.status.LastScheduleTime) {
		return
	}
	s.start(d, all, due)
}

// runs are those that have not been started yet.
func (s snapshot) runs(schedule cron.Schedule, last *metav1.Time) runs {
	from, ok := lastRun(s.cron, last, s.now)
	if !ok || s.since.After(from) {
		from = s.since
	}
	return runs{schedule, from.Truncate(time.Second)}
}

// lastRun is when the last run was, or when the cron job was made; not ok: the
// clock was wrong then.
func lastRun(c *batchv1.CronJob, last *metav1.Time, now time.Time) (at time.Time, ok bool) {
	at = c.CreationTimestamp.Time
	if last != nil {
		at = last.Time
	}
	return at, !at.After(now.Add(mostAhead))
}

// hasRun says whether a run was started already: its job is there, or was the last
// one. So no run is started twice by a clock that is put back.
func (s snapshot) hasRun(due time.Time, last *metav1.Time) bool {
	return last != nil && last.Time.Equal(due) ||
		slices.ContainsFunc(s.jobs, func(j *batchv1.Job) bool { return j.Name == jobName(s.cron, due) })
}

// start decides whether a run that is due may begin now.
func (s snapshot) start(d *decision, all runs, due time.Time) {
	c, since := s.cron, all.from
	if seconds := c.Spec.StartingDeadlineSeconds; seconds != nil {
		limit := s.now.Add(-time.Duration(*seconds) * time.Second)
		if due.Before(limit) {
			d.notes = append(d.notes, note{corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: " + due.UTC().Format(time.RFC1123Z), due})
			return
		}
		if limit.After(since) {
			since = limit
		}
	}
	if all.tooMany(since, s.now) {
		d.warn("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	if len(d.status.Active) > 0 {
		switch c.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			d.notes = append(d.notes, note{corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid", due})
			return
		case batchv1.ReplaceConcurrent:
			for _, j := range s.jobs {
				if active(&d.status, j) {
					d.replace = append(d.replace, j)
				}
			}
			d.status.Active = nil
		}
	}
	d.run = &due
}

// jobName is that of the job for a scheduled time: the same time gives the same
// name, so that no run can happen twice.
func jobName(c *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", c.Name, at.Unix()/60)
}

// newJob is the job for a scheduled time.
func newJob(c *batchv1.CronJob, at time.Time) (*batchv1.Job, error) {
	zone, err := time.LoadLocation(ptr.Deref(c.Spec.TimeZone, ""))
	if err != nil {
		return nil, fmt.Errorf("time zone of cron job %s/%s: %w", c.Namespace, c.Name, err)
	}
	t := c.Spec.JobTemplate.DeepCopy()
	if t.Annotations == nil {
		t.Annotations = map[string]string{}
	}
	t.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.Namespace, Name: jobName(c, at), Labels: t.Labels, Annotations: t.Annotations,
			OwnerReferences: []metav1.OwnerReference{*controller.OwnerRef(c, kind)},
		},
		Spec: t.Spec,
	}, nil
}

// scheduledFor is the time for which a job was made, unless somebody else than
// this loop made it.
func scheduledFor(c *batchv1.CronJob, j *batchv1.Job) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return at, err == nil && j.Name == jobName(c, at)
}

// finished is how a job ended, or "".
func finished(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c.Type
		}
	}
	return ""
}

func active(st *batchv1.CronJobStatus, j *batchv1.Job) bool {
	return slices.ContainsFunc(st.Active, func(ref corev1.ObjectReference) bool { return ref.UID == j.UID })
}

func refTo(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job",
		Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion,
	}
}
