package job

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Times between the failure of a pod and the creation of the next one
// (documentation: "Pod backoff failure policy").
const (
	firstBackoff = 10 * time.Second
	mostBackoff  = 6 * time.Minute
)

// noIndex is the index of a pod that has none.
const noIndex = -1

func isIndexed(j *batchv1.Job) bool {
	return ptr.Deref(j.Spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion
}

func completions(j *batchv1.Job) int { return int(ptr.Deref(j.Spec.Completions, 0)) }

func suspended(j *batchv1.Job) bool { return ptr.Deref(j.Spec.Suspend, false) }

// waitsForEnd says whether a pod is replaced only when it has ended, not
// already when it is being deleted.
func waitsForEnd(j *batchv1.Job) bool {
	return ptr.Deref(j.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed || j.Spec.PodFailurePolicy != nil
}

// tracked says whether a pod is not accounted for yet, or just being so.
func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func terminating(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && !podstate.Finished(p) }

// failed says whether a pod counts as a failure. One that is being deleted does
// already: it may never get to say that it failed.
func failed(j *batchv1.Job, p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || terminating(p) && !waitsForEnd(j)
}

// indexOf is the pod's completion index, or noIndex.
func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return noIndex
	}
	return n
}

// relevant says whether a pod can count at all: one of an indexed job needs an
// index that the job has.
func relevant(j *batchv1.Job, p *corev1.Pod) bool {
	if !isIndexed(j) {
		return true
	}
	i := indexOf(p)
	return i != noIndex && i < completions(j)
}

func indexesOf(pods []*corev1.Pod) []int {
	var all []int
	for _, p := range pods {
		if i := indexOf(p); i != noIndex {
			all = append(all, i)
		}
	}
	return all
}

// failures is how often the pod's index had failed when the pod was made:
// failures that count, and ignored ones.
func failures(p *corev1.Pod) (counted, ignored int) {
	return count(p, batchv1.JobIndexFailureCountAnnotation), count(p, batchv1.JobIndexIgnoredFailureCountAnnotation)
}

func count(p *corev1.Pod, annotation string) int {
	n, err := strconv.Atoi(p.Annotations[annotation])
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// finishedAt is when a pod ended, as well as can be told.
func finishedAt(p *corev1.Pod) time.Time {
	var last time.Time
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Terminated == nil || c.State.Terminated.FinishedAt.IsZero() {
			last = time.Time{}
			break
		}
		if t := c.State.Terminated.FinishedAt.Time; t.After(last) {
			last = t
		}
	}
	if !last.IsZero() {
		return last
	}
	if c := podstate.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.Time
	}
	if p.DeletionTimestamp != nil {
		return p.DeletionTimestamp.Add(-time.Duration(ptr.Deref(p.DeletionGracePeriodSeconds, 0)) * time.Second)
	}
	return p.CreationTimestamp.Time
}

// cooldown is how long no pod may be made because of the failures since the
// last success. It is told from the pods that are there, so that a restart
// forgets nothing; a pod that is being deleted counts until it is accounted
// for.
func cooldown(j *batchv1.Job, pods []*corev1.Pod, now time.Time) time.Duration {
	type end struct {
		at     time.Time
		failed bool
	}
	var ends []end
	for _, p := range pods {
		switch {
		case !relevant(j, p):
		case p.Status.Phase == corev1.PodSucceeded:
			ends = append(ends, end{finishedAt(p), false})
		case failed(j, p) && (p.DeletionTimestamp == nil || tracked(p)):
			ends = append(ends, end{finishedAt(p), true})
		}
	}
	// Times are whole seconds: of a success and a failure at once, the failure
	// is the last.
	slices.SortStableFunc(ends, func(a, b end) int {
		return cmp.Or(a.at.Compare(b.at), controller.First(!a.failed, !b.failed))
	})
	failures := 0
	var last time.Time
	for _, e := range ends {
		if e.failed {
			failures, last = failures+1, e.at
		} else {
			failures = 0
		}
	}
	return wait(failures, last, now)
}

// wait is what is left, at now, of the pause after a number of failures.
func wait(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := firstBackoff
	for i := 1; i < failures && pause < mostBackoff; i++ {
		pause *= 2
	}
	return max(0, min(pause, mostBackoff)-now.Sub(last))
}

// excess are the active pods to remove: those without a valid index, all but
// one of each index, and then as many as are missed least to make it n.
func excess(j *batchv1.Job, active []*corev1.Pod, n int) []*corev1.Pod {
	left := slices.Clone(active)
	slices.SortStableFunc(left, missedLeast)
	var remove []*corev1.Pod
	if isIndexed(j) {
		best := map[int]*corev1.Pod{}
		for _, p := range left {
			best[indexOf(p)] = p // the last is missed most
		}
		keep := left[:0:0]
		for _, p := range left {
			if relevant(j, p) && best[indexOf(p)] == p {
				keep = append(keep, p)
			} else {
				remove = append(remove, p)
			}
		}
		left = keep
	}
	if more := n - len(remove); more > 0 {
		remove = append(remove, left[:min(more, len(left))]...)
	}
	return remove
}

// missedLeast orders active pods: unplaced before placed, pending before
// running, unready before ready, newly ready before long ready, often restarted
// before stable, young before old.
func missedLeast(a, b *corev1.Pod) int {
	phases := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	return cmp.Or(
		controller.First(a.Spec.NodeName == "", b.Spec.NodeName == ""),
		cmp.Compare(phases[a.Status.Phase], phases[b.Status.Phase]),
		controller.First(!podstate.Ready(a), !podstate.Ready(b)),
		controller.ReadySince(b).Compare(controller.ReadySince(a)),
		controller.MoreRestarts(a, b),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// allRestarts are the restarts of all containers of a pod.
func allRestarts(p *corev1.Pod) int32 {
	n := int32(0)
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for _, c := range list {
			n += c.RestartCount
		}
	}
	return n
}
