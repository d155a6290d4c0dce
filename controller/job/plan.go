package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

const (
	// burst bounds the pods that one step makes or removes.
	burst = 500
	// mostUncounted bounds the pods that one step accounts for: their names
	// stand in the status meanwhile.
	mostUncounted = 500
)

// decision is what one step does to a job.
type decision struct {
	// status is the job's as it should be.
	status batchv1.JobStatus
	// ending says that how the job ends is decided: status is written before
	// anything else, so that nothing can change the outcome, and then remove
	// are deleted, which still count as the status says.
	ending bool
	// create and remove are the pods to make and to delete. Unless the job is
	// ending they are excess, and do not count: they lose their finalizer first.
	create []creation
	remove []*corev1.Pod
	// release are the pods that lose their finalizer once status is written:
	// they are accounted for in it.
	release []*corev1.Pod
	// after is when to look again if nothing happens; zero: never.
	after time.Duration
}

// creation is one pod to make.
type creation struct {
	index            int // or noIndex
	counted, ignored int // failures of the index so far
}

// snapshot is what a plan is made from, with what all its parts need to know
// about it. Nothing in it is written to.
type snapshot struct {
	job    *batchv1.Job
	pods   []*corev1.Pod // those that the job controls
	now    time.Time
	active []*corev1.Pod
	ready  int32 // of the active ones
	going  int32 // those that are being deleted and have not ended

	status    batchv1.JobStatus // with what earlier steps released in its counters
	fresh     []*corev1.Pod     // tracked and not in status.uncountedTerminatedPods
	succeeded int               // in all, the fresh ones too
	failed    int               // in all, those that count

	completed, lost indexes             // of an indexed job: done and given up
	delayed         map[int]*corev1.Pod // failed pods whose replacement has to be made before they may go
}

// plan decides what to do about a job that is not finished.
func plan(j *batchv1.Job, pods []*corev1.Pod, now time.Time) decision {
	s := look(j, pods, now)
	outcome := s.outcome()
	d := decision{status: s.status, ending: outcome != nil}
	d.status.Active = int32(len(s.active))
	d.status.Ready, d.status.Terminating = ptr.To(s.ready), ptr.To(s.going)
	d.release = s.account(&d.status, outcome)
	switch {
	case outcome != nil:
		d.remove = s.active
		s.conclude(&d.status, *outcome, len(d.release) > 0)
	case j.DeletionTimestamp == nil:
		d.create, d.remove, d.after = s.pursue()
		s.mark(&d.status)
		d.after = controller.Sooner(d.after, s.deadline())
	}
	return d
}

// look sorts the pods and brings the counters up to date with the pods that
// were released.
func look(j *batchv1.Job, pods []*corev1.Pod, now time.Time) snapshot {
	s := snapshot{job: j, pods: pods, now: now, status: *j.Status.DeepCopy()}
	here := map[types.UID]bool{}
	for _, p := range pods {
		if tracked(p) {
			here[p.UID] = true
		}
		switch {
		case podstate.Active(p):
			s.active = append(s.active, p)
			if podstate.Ready(p) {
				s.ready++
			}
		case terminating(p):
			s.going++
		}
	}
	s.settle(here)
	s.index()
	s.tally()
	return s
}

// tally counts the pods that ended, those that no status has yet too.
func (s *snapshot) tally() {
	u := s.status.UncountedTerminatedPods
	s.succeeded = int(s.status.Succeeded) + len(u.Succeeded)
	s.failed = int(s.status.Failed) + len(u.Failed)
	for _, p := range s.fresh {
		switch {
		case !relevant(s.job, p):
		case p.Status.Phase == corev1.PodSucceeded:
			s.succeeded++
		case failed(s.job, p) && judge(s.job, p).counts():
			s.failed++
		}
	}
	if isIndexed(s.job) {
		s.succeeded = s.completed.total()
	}
}

// index finds out which indexes are done and which are given up.
func (s *snapshot) index() {
	j := s.job
	if !isIndexed(j) {
		return
	}
	n := completions(j)
	was := parseIndexes(ptr.Deref(s.status.FailedIndexes, ""), n)
	s.completed = parseIndexes(s.status.CompletedIndexes, n)
	var done, gone []int
	for _, p := range s.pods {
		i := indexOf(p)
		switch {
		case !tracked(p) || !relevant(j, p):
		case p.Status.Phase == corev1.PodSucceeded && !was.has(i):
			done = append(done, i)
		case j.Spec.BackoffLimitPerIndex != nil && s.exhausts(p):
			gone = append(gone, i)
		}
	}
	s.completed = s.completed.with(done...)
	if j.Spec.BackoffLimitPerIndex == nil {
		return
	}
	s.lost = was
	for _, i := range gone {
		if !s.completed.has(i) {
			s.lost = s.lost.with(i)
		}
	}
	s.delay()
}

// exhausts says whether a pod's failure is the one that its index may not have.
func (s *snapshot) exhausts(p *corev1.Pod) bool {
	if !failed(s.job, p) {
		return false
	}
	v := judge(s.job, p)
	counted, _ := failures(p)
	return v.action == batchv1.PodFailurePolicyActionFailIndex ||
		v.counts() && counted >= int(*s.job.Spec.BackoffLimitPerIndex)
}

// delay finds the failed pods that stay until they are replaced, since their
// replacement takes over the number of failures from them: the last one of each
// index that is neither done, given up, nor active.
func (s *snapshot) delay() {
	s.delayed = map[int]*corev1.Pod{}
	active := indexes{}.with(indexesOf(s.active)...)
	for _, p := range s.pods {
		i := indexOf(p)
		if !tracked(p) || !relevant(s.job, p) || !failed(s.job, p) ||
			s.completed.has(i) || s.lost.has(i) || active.has(i) {
			continue
		}
		if last := s.delayed[i]; last == nil || total(last) <= total(p) && !finishedAt(p).Before(finishedAt(last)) {
			s.delayed[i] = p
		}
	}
}

func total(p *corev1.Pod) int {
	counted, ignored := failures(p)
	return counted + ignored
}

// outcome is how the job ends, as the condition that says so first:
// SuccessCriteriaMet or FailureTarget; nil while it does not. Once written it
// stays.
func (s *snapshot) outcome() *batchv1.JobCondition {
	j := s.job
	for _, kind := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobFailureTarget} {
		if c := condition(j.Status.Conditions, kind); c != nil && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	if reason, message := s.failure(); reason != "" {
		return newCondition(batchv1.JobFailureTarget, reason, message, s.now)
	}
	if isIndexed(j) {
		if message, ok := succeedsEarly(j, s.completed); ok {
			return newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message, s.now)
		}
	}
	if s.complete() {
		return newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", s.now)
	}
	return nil
}

// complete says whether all is done and no pod runs any more.
func (s *snapshot) complete() bool {
	if len(s.active) > 0 {
		return false
	}
	if s.job.Spec.Completions == nil {
		return s.succeeded > 0
	}
	return s.succeeded >= completions(s.job)
}

// failure is why the job fails, or "".
func (s *snapshot) failure() (reason, message string) {
	j := s.job
	for _, p := range s.pods {
		if v := judge(j, p); failed(j, p) && v.action == batchv1.PodFailurePolicyActionFailJob {
			return batchv1.JobReasonPodFailurePolicy, v.message
		}
	}
	switch limit := int(ptr.Deref(j.Spec.BackoffLimit, 6)); {
	case s.failed > limit || s.restartedTooOften(int32(limit)):
		return batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"
	case s.timeLeft() == 0:
		return batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	case j.Spec.MaxFailedIndexes != nil && s.lost.total() > int(*j.Spec.MaxFailedIndexes):
		return batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"
	case len(s.lost) > 0 && s.lost.total()+s.completed.total() >= completions(j):
		return batchv1.JobReasonFailedIndexes, "Job has failed indexes"
	}
	return "", ""
}

// restartedTooOften is the backoff limit of pods that are restarted in place.
func (s *snapshot) restartedTooOften(limit int32) bool {
	if s.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n := int32(0)
	for _, p := range s.pods {
		if p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodPending {
			n += allRestarts(p)
		}
	}
	return n > 0 && n >= limit
}

// forever is the time left of a job without a deadline.
const forever time.Duration = -1

// timeLeft is how long the job may still be active.
func (s *snapshot) timeLeft() time.Duration {
	j := s.job
	if j.Spec.ActiveDeadlineSeconds == nil || suspended(j) {
		return forever
	}
	start := s.now
	if j.Status.StartTime != nil {
		start = j.Status.StartTime.Time
	}
	end := start.Add(time.Duration(*j.Spec.ActiveDeadlineSeconds) * time.Second)
	return max(0, end.Sub(s.now))
}

func (s *snapshot) deadline() time.Duration {
	if left := s.timeLeft(); left != forever {
		return left
	}
	return 0
}

func condition(list []batchv1.JobCondition, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range list {
		if list[i].Type == kind {
			return &list[i]
		}
	}
	return nil
}

func newCondition(kind batchv1.JobConditionType, reason, message string, now time.Time) *batchv1.JobCondition {
	t := metav1.NewTime(now)
	return &batchv1.JobCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastProbeTime: t, LastTransitionTime: t,
	}
}

// finished says whether the job has come to its end.
func finished(j *batchv1.Job) bool {
	for _, kind := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if c := condition(j.Status.Conditions, kind); c != nil && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}
