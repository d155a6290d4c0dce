package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"hansa.dev/hansa/controller"
)

// A pod is counted exactly once, whatever happens between any two writes, since
// its finalizer and its name in the status say how far the counting is:
//
//	            1. status      2. finalizer       3. status
//	ended pod ───────────▶ ───────────────▶ ────────────────▶ counted
//	 tracked   names it      is dropped      counts it instead
//
// Indexes are their own names: an indexed job's successes need no third write.

// settle counts what was named and released before, and finds the pods that are
// still to be named. here are the pods that have their finalizer.
func (s *snapshot) settle(here map[types.UID]bool) {
	named := batchv1.UncountedTerminatedPods{}
	if u := s.status.UncountedTerminatedPods; u != nil {
		for _, uid := range u.Succeeded {
			if here[uid] {
				named.Succeeded = append(named.Succeeded, uid)
			} else {
				s.status.Succeeded++
			}
		}
		for _, uid := range u.Failed {
			if here[uid] {
				named.Failed = append(named.Failed, uid)
			} else {
				s.status.Failed++
			}
		}
	}
	s.status.UncountedTerminatedPods = &named
	known := sets.New(named.Succeeded...).Insert(named.Failed...)
	for _, p := range s.pods {
		if tracked(p) && !known.Has(p.UID) {
			s.fresh = append(s.fresh, p)
		}
	}
}

// account names in st the pods that count, and answers with those that may lose
// their finalizer once st is written.
func (s *snapshot) account(st *batchv1.JobStatus, outcome *batchv1.JobCondition) (release []*corev1.Pod) {
	u := st.UncountedTerminatedPods
	known := sets.New(u.Succeeded...).Insert(u.Failed...)
	for _, p := range s.pods {
		if known.Has(p.UID) && tracked(p) {
			release = append(release, p)
		}
	}
	for _, p := range s.fresh {
		if len(release) >= mostUncounted {
			break
		}
		if !s.mayGo(p, outcome) {
			continue
		}
		release = append(release, p)
		switch {
		case !relevant(s.job, p):
		case p.Status.Phase == corev1.PodSucceeded:
			if !isIndexed(s.job) {
				u.Succeeded = append(u.Succeeded, p.UID)
			}
		case s.countsAsFailed(p, outcome):
			u.Failed = append(u.Failed, p.UID)
		}
	}
	if isIndexed(s.job) {
		st.Succeeded = int32(s.completed.total())
		st.CompletedIndexes = s.completed.String()
		if s.job.Spec.BackoffLimitPerIndex != nil {
			lost := s.lost.String()
			st.FailedIndexes = &lost
		}
	}
	return release
}

// mayGo says whether a pod can be accounted for already.
func (s *snapshot) mayGo(p *corev1.Pod, outcome *batchv1.JobCondition) bool {
	switch {
	case s.job.DeletionTimestamp != nil, outcome != nil, p.Status.Phase == corev1.PodSucceeded:
		return true
	case !failed(s.job, p):
		return false
	}
	return s.delayed[indexOf(p)] != p
}

// countsAsFailed says whether a pod that did not succeed counts as a failure.
func (s *snapshot) countsAsFailed(p *corev1.Pod, outcome *batchv1.JobCondition) bool {
	switch {
	case !judge(s.job, p).counts():
		return false
	case p.Status.Phase == corev1.PodFailed:
		return true
	case outcome == nil:
		return failed(s.job, p)
	}
	// The pods that a failing job ends count; those that linger when a job has
	// succeeded do not.
	return outcome.Type == batchv1.JobFailureTarget
}

// conclude writes down how the job ends, and, once no pod is left to wait for,
// that it has ended.
func (s *snapshot) conclude(st *batchv1.JobStatus, outcome batchv1.JobCondition, releasing bool) {
	setCondition(st, outcome)
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: s.now}
	}
	if releasing || len(s.active) > 0 || s.going > 0 {
		return
	}
	kind := batchv1.JobFailed
	if outcome.Type == batchv1.JobSuccessCriteriaMet {
		kind = batchv1.JobComplete
		// A clock that was put back must not keep the job from ending.
		st.CompletionTime = &metav1.Time{Time: s.now}
		if s.now.Before(st.StartTime.Time) {
			st.CompletionTime = st.StartTime.DeepCopy()
		}
	}
	setCondition(st, *newCondition(kind, outcome.Reason, outcome.Message, s.now))
}

// mark writes down whether the job is suspended. Its time starts anew with each
// resumption.
func (s *snapshot) mark(st *batchv1.JobStatus) {
	if suspended(s.job) {
		if len(s.active) == 0 {
			setCondition(st, *newCondition(batchv1.JobSuspended, "JobSuspended", "Job suspended", s.now))
			st.StartTime = nil
		}
		return
	}
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: s.now}
	}
	if was := condition(st.Conditions, batchv1.JobSuspended); was != nil && was.Status == corev1.ConditionTrue {
		resumed := *newCondition(batchv1.JobSuspended, "JobResumed", "Job resumed", s.now)
		resumed.Status = corev1.ConditionFalse
		setCondition(st, resumed)
	}
}

// setCondition replaces a condition of st, unless it is as it should be but for
// its times.
func setCondition(st *batchv1.JobStatus, c batchv1.JobCondition) {
	was := condition(st.Conditions, c.Type)
	switch {
	case was == nil:
		st.Conditions = append(st.Conditions, c)
	case was.Status != c.Status || was.Reason != c.Reason || was.Message != c.Message:
		*was = c
	}
}

// pursue decides about the pods of a job that goes on.
func (s *snapshot) pursue() (create []creation, remove []*corev1.Pod, after time.Duration) {
	j := s.job
	if suspended(j) {
		return nil, s.active, 0
	}
	want := s.wanted()
	// Either too many or too few, never both in one step.
	if remove = excess(j, s.active, len(s.active)-want); len(remove) > 0 {
		return nil, remove[:min(len(remove), burst)], 0
	}
	n := want - len(s.active)
	if waitsForEnd(j) {
		n -= int(s.going)
	}
	if n = min(n, burst); n <= 0 {
		return nil, nil, 0
	}
	if j.Spec.BackoffLimitPerIndex == nil {
		if after = cooldown(j, s.pods, s.now); after > 0 {
			return nil, nil, after
		}
	}
	if isIndexed(j) {
		create, after = s.pending(n)
		return create, nil, after
	}
	for range n {
		create = append(create, creation{index: noIndex})
	}
	return create, nil, 0
}

// wanted is how many pods should run.
func (s *snapshot) wanted() int {
	parallel := 1
	if p := s.job.Spec.Parallelism; p != nil {
		parallel = int(*p)
	}
	switch {
	case s.job.Spec.Completions != nil:
		return max(0, min(completions(s.job)-s.succeeded, parallel))
	case s.succeeded > 0:
		// One success is enough; the others may finish.
		return len(s.active)
	}
	return parallel
}

// pending are the first n indexes that need a pod and may have one now. after
// is when the next one that failed may.
func (s *snapshot) pending(n int) (create []creation, after time.Duration) {
	taken := s.completed.union(s.lost).with(indexesOf(s.active)...)
	if waitsForEnd(s.job) {
		for _, p := range s.pods {
			if i := indexOf(p); terminating(p) && i != noIndex {
				taken = taken.with(i)
			}
		}
	}
	for _, i := range taken.missing(completions(s.job), n+len(s.delayed)) {
		c := creation{index: i}
		if p := s.delayed[i]; p != nil {
			if left := wait(total(p)+1, finishedAt(p), s.now); left > 0 {
				after = controller.Sooner(after, left)
				continue
			}
			c.counted, c.ignored = failures(p)
			if judge(s.job, p).counts() {
				c.counted++
			} else {
				c.ignored++
			}
		}
		if len(create) < n {
			create = append(create, c)
		}
	}
	return create, after
}
