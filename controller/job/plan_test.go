package job

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// setOf is the dumb twin of indexes.
func setOf(x indexes) map[int]bool {
	m := map[int]bool{}
	for _, r := range x {
		for i := r.first; i <= r.last; i++ {
			m[i] = true
		}
	}
	return m
}

func TestIndexesAreSets(t *testing.T) {
	list := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 30)
	rapid.Check(t, func(r *rapid.T) {
		a, b := list.Draw(r, "a"), list.Draw(r, "b")
		x, y := indexes{}.with(slices.Clone(a)...), indexes{}.with(slices.Clone(b)...)
		want := map[int]bool{}
		for _, i := range slices.Concat(a, b) {
			want[i] = true
		}
		both := x.union(y)
		if !maps.Equal(setOf(both), want) || both.total() != len(want) {
			r.Errorf("union of %v and %v = %v", a, b, both)
		}
		for i, s := range both {
			if s.first > s.last || i > 0 && both[i-1].last+1 >= s.first {
				r.Errorf("not canonical: %v", both)
			}
		}
		common := 0
		for i := range setOf(x) {
			if setOf(y)[i] {
				common++
			}
		}
		if got := x.common(y); got != common {
			r.Errorf("%v and %v have %d in common, want %d", x, y, got, common)
		}
		if got := parseIndexes(both.String(), 41); !slices.Equal(got, both) {
			r.Errorf("%q was read as %v", both, got)
		}
		n := rapid.IntRange(0, 45).Draw(r, "n")
		var missing []int
		for i := range n {
			if !want[i] {
				missing = append(missing, i)
			}
			if both.has(i) != want[i] {
				r.Errorf("%v has %d: %v", both, i, both.has(i))
			}
		}
		count := rapid.IntRange(0, 10).Draw(r, "count")
		if got := both.missing(n, count); !slices.Equal(got, missing[:min(count, len(missing))]) {
			r.Errorf("first %d below %d missing from %v = %v", count, n, both, got)
		}
	})
}

func TestIndexesAsText(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 5, ""},
		{"1,3-5,7", 10, "1,3-5,7"},
		{"1,2", 10, "1,2"},
		{"1-2", 10, "1,2"},
		{"0,1,2", 10, "0-2"},
		{"0-9", 4, "0-3"},
		{"5,7", 6, "5"},
		{"a,2-x,3,-1,4-2", 10, "3"},
	} {
		if got := parseIndexes(c.in, c.n).String(); got != c.want {
			t.Errorf("%q below %d = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

// pod makes a tracked pod; words say what is particular about it.
func pod(name string, words ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, UID: types.UID(name), Finalizers: []string{batchv1.JobTrackingFinalizer},
			Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "index":
			p.Annotations[batchv1.JobCompletionIndexAnnotation] = value
		case "failures":
			p.Annotations[batchv1.JobIndexFailureCountAnnotation] = value
		case "succeeded":
			p.Status.Phase = corev1.PodSucceeded
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "pending":
			p.Status.Phase = corev1.PodPending
		case "going":
			at := metav1.NewTime(now)
			p.DeletionTimestamp = &at
		case "released":
			p.Finalizers = nil
		case "ready":
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		case "ended":
			ago, err := time.ParseDuration(value)
			if err != nil {
				panic(err)
			}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(now.Add(-ago)), ExitCode: 1},
			}}}
		default:
			panic(w)
		}
	}
	return p
}

func job(change func(*batchv1.Job)) *batchv1.Job {
	start := metav1.NewTime(now.Add(-time.Hour))
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "j", UID: "j"},
		Spec:       batchv1.JobSpec{Parallelism: ptr.To[int32](2), Completions: ptr.To[int32](3), BackoffLimit: ptr.To[int32](6)},
		Status:     batchv1.JobStatus{StartTime: &start},
	}
	if change != nil {
		change(j)
	}
	return j
}

// text is what a decision comes to, one fact a word.
func (d decision) text() string {
	var words []string
	note := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	names := func(what string, pods []*corev1.Pod) {
		for _, p := range pods {
			note("%s:%s", what, p.Name)
		}
	}
	for _, c := range d.create {
		if c.index == noIndex {
			note("create")
		} else {
			note("create:%d/%d", c.index, c.counted)
		}
	}
	names("remove", d.remove)
	names("release", d.release)
	for _, c := range d.status.Conditions {
		note("%s=%s", c.Type, c.Status)
	}
	s := d.status
	note("active=%d succeeded=%d failed=%d", s.Active, s.Succeeded, s.Failed)
	if u := s.UncountedTerminatedPods; len(u.Succeeded)+len(u.Failed) > 0 {
		note("uncounted=%v/%v", u.Succeeded, u.Failed)
	}
	if s.CompletedIndexes != "" {
		note("done=%s", s.CompletedIndexes)
	}
	if s.FailedIndexes != nil {
		note("lost=%s", *s.FailedIndexes)
	}
	if d.after > 0 {
		note("after=%v", d.after)
	}
	return strings.Join(words, " ")
}

func isIndexedJob(j *batchv1.Job) { j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion) }

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		job  *batchv1.Job
		pods []*corev1.Pod
		want string
	}{
		{"new", job(nil), nil, "create create active=0 succeeded=0 failed=0"},
		{"as many as are left to do", job(func(j *batchv1.Job) { j.Status.Succeeded = 2 }), nil, "create active=0 succeeded=2 failed=0"},
		{"a success is named and released", job(nil), []*corev1.Pod{pod("a", "succeeded"), pod("b")},
			"create release:a active=1 succeeded=0 failed=0 uncounted=[a]/[]"},
		{"a named pod is released", job(func(j *batchv1.Job) {
			j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a"}}
		}), []*corev1.Pod{pod("a", "succeeded"), pod("b"), pod("c")},
			"release:a active=2 succeeded=0 failed=0 uncounted=[a]/[]"},
		{"a released pod is counted", job(func(j *batchv1.Job) {
			j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a"}, Failed: []types.UID{"gone"}}
		}), []*corev1.Pod{pod("a", "succeeded", "released", "ended=1m"), pod("b"), pod("c")},
			"active=2 succeeded=1 failed=1"},
		{"a counted pod is not counted again", job(func(j *batchv1.Job) { j.Status.Succeeded = 1 }),
			[]*corev1.Pod{pod("a", "succeeded", "released"), pod("b"), pod("c")}, "active=2 succeeded=1 failed=0"},
		{"too many", job(func(j *batchv1.Job) { j.Status.Succeeded = 2 }), []*corev1.Pod{pod("a", "ready"), pod("b"), pod("c", "pending")},
			"remove:c remove:b active=3 succeeded=2 failed=0"},
		{"a pod being deleted counts as failed", job(nil), []*corev1.Pod{pod("a", "going", "ended=1m"), pod("b")},
			"create release:a active=1 succeeded=0 failed=0 uncounted=[]/[a]"},
		{"unless it is waited for", job(func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed) }),
			[]*corev1.Pod{pod("a", "going"), pod("b")}, "active=1 succeeded=0 failed=0"},
		{"backoff", job(nil), []*corev1.Pod{pod("a", "failed", "released", "ended=12s"), pod("b", "failed", "released", "ended=3s"), pod("c")},
			"active=1 succeeded=0 failed=0 after=17s"},
		{"the last one succeeds", job(func(j *batchv1.Job) { j.Status.Succeeded = 2 }), []*corev1.Pod{pod("a", "succeeded")},
			"release:a SuccessCriteriaMet=True active=0 succeeded=2 failed=0 uncounted=[a]/[]"},
		{"all are counted", job(func(j *batchv1.Job) {
			j.Status.Succeeded = 2
			j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a"}}
			j.Status.Conditions = []batchv1.JobCondition{*newCondition(batchv1.JobSuccessCriteriaMet, "r", "m", now)}
		}), []*corev1.Pod{pod("a", "succeeded", "released")}, "SuccessCriteriaMet=True Complete=True active=0 succeeded=3 failed=0"},
		{"any success will do", job(func(j *batchv1.Job) { j.Spec.Completions = nil; j.Status.Succeeded = 1 }), []*corev1.Pod{pod("a"), pod("b"), pod("c")},
			"active=3 succeeded=1 failed=0"},
		{"a failing job stops its pods", job(func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To[int32](0) }), []*corev1.Pod{pod("a", "failed"), pod("b")},
			"remove:b release:a release:b FailureTarget=True active=1 succeeded=0 failed=0 uncounted=[]/[a b]"},
		{"and waits until they are gone", job(func(j *batchv1.Job) {
			j.Status.Failed = 2
			j.Status.Conditions = []batchv1.JobCondition{*newCondition(batchv1.JobFailureTarget, "r", "m", now)}
		}), []*corev1.Pod{pod("b", "going", "released")}, "FailureTarget=True active=0 succeeded=0 failed=2"},
		{"a deleted job makes nothing and lets all go", job(func(j *batchv1.Job) { at := metav1.NewTime(now); j.DeletionTimestamp = &at }),
			[]*corev1.Pod{pod("a"), pod("b", "failed")}, "release:a release:b active=1 succeeded=0 failed=0 uncounted=[]/[b]"},
		{"indexes", job(isIndexedJob), []*corev1.Pod{pod("a", "index=0", "succeeded"), pod("b", "index=2")},
			"create:1/0 release:a active=1 succeeded=1 failed=0 done=0"},
		{"twins, strangers and those beyond the end go", job(isIndexedJob),
			[]*corev1.Pod{pod("a", "index=0"), pod("b", "index=0", "ready"), pod("c"), pod("d", "index=3")},
			"remove:a remove:c remove:d active=4 succeeded=0 failed=0"},
		{"an index beyond the end does not count", job(isIndexedJob), []*corev1.Pod{pod("a", "index=3", "succeeded"), pod("b", "index=7", "failed", "ended=1h")},
			"create:0/0 create:1/0 release:a release:b active=0 succeeded=0 failed=0"},
		{"a failed index waits for its successor", job(func(j *batchv1.Job) { isIndexedJob(j); j.Spec.BackoffLimitPerIndex = ptr.To[int32](3) }),
			[]*corev1.Pod{pod("a", "index=0", "failed", "failures=1", "ended=15s"), pod("b", "index=1")},
			"create:2/0 active=1 succeeded=0 failed=0 lost= after=5s"},
		{"which takes over its failures", job(func(j *batchv1.Job) { isIndexedJob(j); j.Spec.BackoffLimitPerIndex = ptr.To[int32](3) }),
			[]*corev1.Pod{pod("a", "index=0", "failed", "failures=1", "ended=25s"), pod("b", "index=1")},
			"create:0/2 active=1 succeeded=0 failed=0 lost="},
		{"and then it is released", job(func(j *batchv1.Job) { isIndexedJob(j); j.Spec.BackoffLimitPerIndex = ptr.To[int32](3) }),
			[]*corev1.Pod{pod("a", "index=0", "failed", "failures=1", "ended=25s"), pod("b", "index=1"), pod("c", "index=0", "failures=2")},
			"release:a active=2 succeeded=0 failed=0 uncounted=[]/[a] lost="},
		{"an index may fail so often", job(func(j *batchv1.Job) { isIndexedJob(j); j.Spec.BackoffLimitPerIndex = ptr.To[int32](1) }),
			[]*corev1.Pod{pod("a", "index=0", "failed", "failures=1", "ended=25s"), pod("b", "index=1")},
			"create:2/0 release:a active=1 succeeded=0 failed=0 uncounted=[]/[a] lost=0"},
		{"an index that is done cannot be lost", job(func(j *batchv1.Job) { isIndexedJob(j); j.Spec.BackoffLimitPerIndex = ptr.To[int32](0) }),
			[]*corev1.Pod{pod("a", "index=0", "failed", "ended=25s"), pod("b", "index=0", "succeeded"), pod("c", "index=1"), pod("d", "index=2")},
			"release:a release:b active=2 succeeded=1 failed=0 uncounted=[]/[a] done=0 lost="},
		{"nor one that is lost be done", job(func(j *batchv1.Job) {
			isIndexedJob(j)
			j.Spec.BackoffLimitPerIndex = ptr.To[int32](0)
			j.Status.FailedIndexes = ptr.To("0")
		}), []*corev1.Pod{pod("b", "index=0", "succeeded"), pod("c", "index=1"), pod("d", "index=2")},
			"release:b active=2 succeeded=0 failed=0 lost=0"},
		{"suspended before it started, but nothing to do", job(func(j *batchv1.Job) {
			j.Spec.Suspend, j.Spec.Completions, j.Status.StartTime = ptr.To(true), ptr.To[int32](0), nil
		}), nil, "SuccessCriteriaMet=True Complete=True active=0 succeeded=0 failed=0"},
		{"deadline", job(func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](3610) }), []*corev1.Pod{pod("a"), pod("b")},
			"active=2 succeeded=0 failed=0 after=10s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.job.DeepCopy()
			d := plan(c.job, c.pods, now)
			if diff := cmp.Diff(c.want, d.text()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, c.job); diff != "" {
				t.Errorf("the plan wrote to its job: %s", diff)
			}
			if finished := len(d.status.Conditions) > 1; finished && d.status.StartTime == nil {
				t.Error("a finished job needs a start time")
			}
		})
	}
}

// Documentation: "Jobs", "Pod failure policy": the first rule that matches
// counts; successful containers are not looked at.
func TestJudge(t *testing.T) {
	codes := func(op batchv1.PodFailurePolicyOnExitCodesOperator, container *string, values ...int32) *batchv1.PodFailurePolicyOnExitCodesRequirement {
		return &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: op, ContainerName: container, Values: values}
	}
	rule := func(action batchv1.PodFailurePolicyAction, codes *batchv1.PodFailurePolicyOnExitCodesRequirement, conditions ...batchv1.PodFailurePolicyOnPodConditionsPattern) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: codes, OnPodConditions: conditions}
	}
	const (
		in, notIn = batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
		ignore    = batchv1.PodFailurePolicyActionIgnore
		failJob   = batchv1.PodFailurePolicyActionFailJob
		counts    = batchv1.PodFailurePolicyActionCount
	)
	p := pod("p", "failed")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "ok", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
		{Name: "bad", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 42}}},
		{Name: "runs", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 7}}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	disrupted := batchv1.PodFailurePolicyOnPodConditionsPattern{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}
	undisrupted := batchv1.PodFailurePolicyOnPodConditionsPattern{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse}
	for _, c := range []struct {
		name    string
		rules   []batchv1.PodFailurePolicyRule
		want    batchv1.PodFailurePolicyAction
		message string
	}{
		{"no rule", nil, "", ""},
		{"in", []batchv1.PodFailurePolicyRule{rule(failJob, codes(in, nil, 1, 42))}, failJob, "Container bad for pod ns/p failed with exit code 42 matching FailJob rule at index 0"},
		{"init containers too", []batchv1.PodFailurePolicyRule{rule(failJob, codes(in, nil, 7))}, failJob, "Container init for pod ns/p failed with exit code 7 matching FailJob rule at index 0"},
		{"not listed", []batchv1.PodFailurePolicyRule{rule(failJob, codes(in, nil, 1))}, "", ""},
		{"of another container", []batchv1.PodFailurePolicyRule{rule(failJob, codes(in, ptr.To("ok"), 42))}, "", ""},
		{"not in: success does not match", []batchv1.PodFailurePolicyRule{rule(failJob, codes(notIn, ptr.To("ok"), 42))}, "", ""},
		{"not in", []batchv1.PodFailurePolicyRule{rule(counts, codes(notIn, nil, 1))}, counts, ""},
		{"the first rule counts", []batchv1.PodFailurePolicyRule{rule(ignore, nil, disrupted), rule(failJob, codes(in, nil, 42))}, ignore, ""},
		{"condition of another status", []batchv1.PodFailurePolicyRule{rule(ignore, nil, undisrupted), rule(failJob, nil, undisrupted, disrupted)}, failJob,
			"Pod ns/p has condition DisruptionTarget matching FailJob rule at index 1"},
		{"an action of the future is skipped", []batchv1.PodFailurePolicyRule{rule("Later", nil, disrupted), rule(counts, nil, disrupted)}, counts, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := job(func(j *batchv1.Job) { j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: c.rules} })
			if got := judge(j, p); got != (verdict{c.want, c.message}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestSuccessPolicy(t *testing.T) {
	for _, c := range []struct {
		done    string
		indexes *string
		count   *int32
		want    bool
	}{
		{"", nil, ptr.To[int32](0), false},
		{"0,2", nil, ptr.To[int32](2), true},
		{"0,2", nil, ptr.To[int32](3), false},
		{"0-2", ptr.To("1,2"), nil, true},
		{"0,1", ptr.To("1,2"), nil, false},
		{"1,3,5", ptr.To("1-4"), ptr.To[int32](3), false},
		{"1,3,4", ptr.To("1-4"), ptr.To[int32](3), true},
	} {
		j := job(func(j *batchv1.Job) {
			j.Spec.Completions = ptr.To[int32](10)
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: c.indexes, SucceededCount: c.count}}}
		})
		if _, got := succeedsEarly(j, parseIndexes(c.done, 10)); got != c.want {
			t.Errorf("done %s of %v, %v: %v", c.done, ptr.Deref(c.indexes, "any"), ptr.Deref(c.count, -1), got)
		}
	}
}

func TestNewPodNames(t *testing.T) {
	for _, c := range []struct {
		job   string
		index int
		want  string
	}{
		{"j", noIndex, "j-"},
		{"j", 12, "j-12-"},
		{strings.Repeat("j", 63), 12, strings.Repeat("j", 54) + "-12-"},
	} {
		j := job(func(j *batchv1.Job) { j.Name = c.job })
		if got := newPod(j, creation{index: c.index}).GenerateName; got != c.want {
			t.Errorf("prefix of index %d of %s = %q, want %q", c.index, c.job, got, c.want)
		}
	}
}
