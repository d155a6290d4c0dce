package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func (w *world) pods() []*corev1.Pod { return all[*corev1.Pod](w, "default") }

func indexOf(p *corev1.Pod) string { return p.Annotations[batchv1.JobCompletionIndexAnnotation] }

// podOf is the running pod of an index.
func (w *world) podOf(index string) *corev1.Pod {
	w.Helper()
	for _, p := range w.running() {
		if indexOf(p) == index {
			return p
		}
	}
	w.Fatalf("no pod of index %s", index)
	return nil
}

func hasCondition(j *batchv1.Job, kind batchv1.JobConditionType, status corev1.ConditionStatus, reason string) bool {
	return slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == kind && c.Status == status && c.Reason == reason
	})
}

func (w *world) wantEnd(name string, first, last batchv1.JobConditionType, reason string) *batchv1.Job {
	w.Helper()
	j := w.job(name)
	for _, kind := range []batchv1.JobConditionType{first, last} {
		if !hasCondition(j, kind, corev1.ConditionTrue, reason) {
			w.Errorf("no condition %s for %s: %+v", kind, reason, j.Status.Conditions)
		}
	}
	return j
}

// Documentation: "Jobs", "Completion mode".
func TestIndexedJobTellsPodsTheirIndex(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := indexed(aJob("work", 2, 3))
	j.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i", Env: []corev1.EnvVar{{Name: "JOB_COMPLETION_INDEX", Value: "mine"}}}}
	create(w, j)
	w.live()
	if n := len(w.running()); n != 2 {
		t.Fatalf("%d pods, want 2", n)
	}
	p := w.podOf("1")
	if p.Labels[batchv1.JobCompletionIndexAnnotation] != "1" || p.Spec.Hostname != "work-1" || !strings.HasPrefix(p.Name, "work-1-") {
		t.Errorf("labels %v, hostname %q, name %q", p.Labels, p.Spec.Hostname, p.Name)
	}
	if env := p.Spec.Containers[0].Env; len(env) != 1 || env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
		t.Errorf("environment = %+v", env)
	}
	if env := p.Spec.InitContainers[0].Env; len(env) != 1 || env[0].Value != "mine" {
		t.Errorf("environment of the init container = %+v", env)
	}
	w.exits(w.podOf("1"), 0)
	w.live()
	w.exits(w.podOf("2"), 0)
	w.settle()
	if j := w.job("work"); j.Status.CompletedIndexes != "1,2" || j.Status.Succeeded != 2 {
		t.Errorf("status = %+v", j.Status)
	}
	w.exits(w.podOf("0"), 1)
	w.settle()
	if n := len(w.running()); n != 0 {
		t.Errorf("the failed index is tried again at once")
	}
	w.pass(10 * time.Second)
	w.exits(w.podOf("0"), 0)
	w.settle()
	if j := w.wantEnd("work", batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, batchv1.JobReasonCompletionsReached); j.Status.CompletedIndexes != "0-2" || j.Status.Failed != 1 {
		t.Errorf("status = %+v", j.Status)
	}
	w.rests()
}

// Documentation: "Jobs", "Pod backoff failure policy".
func TestJobBacksOff(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := aJob("flaky", 1, 2)
	j.Spec.BackoffLimit = ptr.To[int32](8)
	create(w, j)
	fail := func(pause time.Duration) {
		t.Helper()
		w.settle()
		w.exits(w.running()[0], 1)
		w.settle()
		w.pass(pause - time.Second)
		if len(w.running()) != 0 {
			t.Errorf("a new pod before %v are over", pause)
		}
		w.pass(time.Second)
		if len(w.running()) != 1 {
			t.Errorf("no new pod after %v", pause)
		}
	}
	for _, seconds := range []time.Duration{10, 20, 40, 80, 160, 320, 360} {
		fail(seconds * time.Second)
	}
	w.exits(w.running()[0], 0)
	w.settle()
	w.pass(time.Second)
	fail(10 * time.Second)
	w.exits(w.running()[0], 1)
	w.settle()
	w.wantEnd("flaky", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded)
	w.said("Warning BackoffLimitExceeded Job has reached the specified backoff limit")
	w.rests()
}

// Pods that are restarted in place count their restarts.
func TestJobCountsRestarts(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := aJob("restarts", 1, 1)
	j.Spec.BackoffLimit = ptr.To[int32](2)
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	create(w, j)
	w.live()
	restart := func(n int32) {
		update(w, w.running()[0], "status", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: n, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		})
		w.settle()
	}
	restart(1)
	if len(w.running()) != 1 {
		t.Fatal("the job failed after one restart")
	}
	restart(2)
	if len(w.running()) != 0 {
		t.Fatal("the job goes on after two restarts")
	}
	if ended(w.job("restarts")) != "" {
		t.Error("the job failed before its pod was gone")
	}
	w.live()
	w.wantEnd("restarts", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonBackoffLimitExceeded)
	w.rests()
}

// Documentation: "Jobs", "Job termination and cleanup".
func TestJobDeadline(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := aJob("late", 2, 2)
	j.Spec.ActiveDeadlineSeconds = ptr.To[int64](100)
	create(w, j)
	w.live()
	w.pass(98 * time.Second) // the pods took a second to start
	if len(w.running()) != 2 {
		t.Fatal("stopped too early")
	}
	w.pass(time.Second)
	w.live()
	j = w.wantEnd("late", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonDeadlineExceeded)
	if j.Status.Failed != 2 || j.Status.CompletionTime != nil || len(w.pods()) != 0 {
		t.Errorf("status = %+v, %d pods", j.Status, len(w.pods()))
	}
	w.rests()
}

// Documentation: "Jobs", "Suspending a Job"; KEP 5440 for the start time.
func TestJobSuspends(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := aJob("later", 2, 2)
	j.Spec.Suspend = ptr.To(true)
	j.Spec.ActiveDeadlineSeconds = ptr.To[int64](1000)
	create(w, j)
	w.settle()
	j = w.job("later")
	if len(w.pods()) != 0 || j.Status.StartTime != nil || !hasCondition(j, batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended") {
		t.Fatalf("%d pods, status = %+v", len(w.pods()), j.Status)
	}
	w.rests()
	w.said("Normal Suspended Job suspended")
	set := func(suspend bool) {
		update(w, j, "", func(j *batchv1.Job) { j.Spec.Suspend = &suspend })
		w.live()
		j = w.job("later")
	}
	set(false)
	start := j.Status.StartTime
	if len(w.running()) != 2 || start == nil || !hasCondition(j, batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed") {
		t.Fatalf("%d pods, status = %+v", len(w.running()), j.Status)
	}
	w.said("Normal Resumed Job resumed")
	w.pass(500 * time.Second)
	set(true)
	if len(w.running()) != 0 || j.Status.Active != 0 || j.Status.StartTime != nil || j.Status.Failed != 0 {
		t.Fatalf("%d pods, status = %+v", len(w.running()), j.Status)
	}
	w.said("Normal Suspended", "Normal SuccessfulDelete Deleted pod: later-")
	w.pass(10000 * time.Second)
	set(false)
	if !j.Status.StartTime.After(start.Time) || len(w.running()) != 2 {
		t.Fatalf("%d pods, started %v", len(w.running()), j.Status.StartTime)
	}
	for _, p := range w.running() {
		w.exits(p, 0)
	}
	w.live()
	w.wantEnd("later", batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
	w.rests()
}

// Documentation: "Jobs", "Pod failure policy".
func TestJobFailurePolicy(t *testing.T) {
	on := func(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code},
		}}
	}
	w := newWorld(t)
	w.run(jobs)
	j := indexed(aJob("picky", 3, 3))
	j.Spec.BackoffLimitPerIndex = ptr.To[int32](1)
	j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		on(batchv1.PodFailurePolicyActionIgnore, 2),
		on(batchv1.PodFailurePolicyActionFailIndex, 3),
		on(batchv1.PodFailurePolicyActionCount, 4),
		on(batchv1.PodFailurePolicyActionFailJob, 5),
	}}
	create(w, j)
	w.live()
	again := func(index string, code int32, pause time.Duration) *corev1.Pod {
		t.Helper()
		w.exits(w.podOf(index), code)
		w.live()
		w.pass(pause)
		w.live()
		return w.podOf(index)
	}
	p := again("0", 2, 10*time.Second)
	if p.Annotations[batchv1.JobIndexFailureCountAnnotation] != "0" || p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] != "1" {
		t.Errorf("after an ignored failure: %v", p.Annotations)
	}
	p = again("0", 4, 20*time.Second)
	if p.Annotations[batchv1.JobIndexFailureCountAnnotation] != "1" || p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] != "1" {
		t.Errorf("after a failure that counts: %v", p.Annotations)
	}
	if f := w.job("picky").Status.Failed; f != 1 {
		t.Errorf("failed = %d, want 1", f)
	}
	w.exits(w.podOf("1"), 3)
	w.live()
	if f := w.job("picky").Status.FailedIndexes; f == nil || *f != "1" {
		t.Errorf("failed indexes = %v", f)
	}
	w.pass(time.Hour)
	if n := len(w.running()); n != 2 {
		t.Errorf("%d pods run, want 2: index 1 is given up", n)
	}
	w.rests()
	w.exits(w.podOf("2"), 5)
	w.live()
	w.wantEnd("picky", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonPodFailurePolicy)
	if !slices.ContainsFunc(w.events, func(e string) bool {
		return strings.Contains(e, "failed with exit code 5 matching FailJob rule at index 3")
	}) {
		t.Errorf("events: %v", w.events)
	}
	w.rests()
}

// Documentation: "Jobs", "Backoff limit per index".
func TestJobBackoffLimitPerIndex(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := indexed(aJob("many", 2, 3))
	j.Spec.BackoffLimitPerIndex = ptr.To[int32](0)
	j.Spec.MaxFailedIndexes = ptr.To[int32](2)
	create(w, j)
	w.live()
	w.exits(w.podOf("0"), 1)
	w.live()
	w.exits(w.podOf("1"), 0)
	w.live()
	if ended(w.job("many")) != "" {
		t.Fatal("the job ended before its last index")
	}
	w.exits(w.podOf("2"), 0)
	w.live()
	j = w.wantEnd("many", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonFailedIndexes)
	if j.Status.CompletedIndexes != "1,2" || *j.Status.FailedIndexes != "0" {
		t.Errorf("status = %+v", j.Status)
	}
	w.rests()

	j = indexed(aJob("few", 2, 3))
	j.Spec.BackoffLimitPerIndex = ptr.To[int32](0)
	j.Spec.MaxFailedIndexes = ptr.To[int32](0)
	create(w, j)
	w.live()
	w.exits(w.podOf("0"), 1)
	w.live()
	j = w.wantEnd("few", batchv1.JobFailureTarget, batchv1.JobFailed, batchv1.JobReasonMaxFailedIndexesExceeded)
	if j.Status.Failed != 2 {
		t.Errorf("failed = %d, want the failed pod and the one that was stopped", j.Status.Failed)
	}
	w.rests()
}

// Documentation: "Jobs", "Success policy".
func TestJobSuccessPolicy(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := indexed(aJob("leader", 3, 3))
	j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{
		{SucceededIndexes: ptr.To("1-2"), SucceededCount: ptr.To[int32](2)},
		{SucceededIndexes: ptr.To("0")},
	}}
	create(w, j)
	w.live()
	w.exits(w.podOf("1"), 0)
	w.live()
	if n := len(w.running()); n != 2 {
		t.Fatalf("%d pods run, want 2", n)
	}
	w.exits(w.podOf("0"), 0)
	w.settle()
	if j := w.job("leader"); ended(j) != "" || *j.Status.Terminating != 1 || !hasCondition(j, batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, batchv1.JobReasonSuccessPolicy) {
		t.Errorf("status while the last pod ends = %+v", j.Status)
	}
	w.live()
	j = w.wantEnd("leader", batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, batchv1.JobReasonSuccessPolicy)
	if j.Status.CompletedIndexes != "0,1" || j.Status.Failed != 0 {
		t.Errorf("status = %+v", j.Status)
	}
	w.rests()
}

// Documentation: "Jobs", "Pod replacement policy".
func TestJobReplacementPolicy(t *testing.T) {
	for _, policy := range []batchv1.PodReplacementPolicy{batchv1.TerminatingOrFailed, batchv1.Failed} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			w.run(jobs)
			j := aJob("j", 1, 1)
			j.Spec.PodReplacementPolicy = &policy
			create(w, j)
			w.live()
			p := w.running()[0]
			remove(w, p, metav1.DeleteOptions{})
			w.settle()
			w.pass(time.Minute)
			if early := len(w.running()) == 1; early != (policy == batchv1.TerminatingOrFailed) {
				t.Errorf("replaced while the first one ends: %v", early)
			}
			if n := *w.job("j").Status.Terminating; n != 1 {
				t.Errorf("terminating = %d", n)
			}
			w.exits(p, 143)
			w.gone(p)
			w.settle()
			w.pass(time.Minute)
			if len(w.running()) != 1 || w.job("j").Status.Failed != 1 {
				t.Errorf("%d pods, status = %+v", len(w.running()), w.job("j").Status)
			}
			w.rests()
		})
	}
}

// An elastic job: completions and parallelism change together (KEP 3715).
func TestJobIsElastic(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := create(w, indexed(aJob("elastic", 4, 4)))
	w.live()
	w.exits(w.podOf("3"), 0)
	w.live()
	set := func(n int32) {
		update(w, j, "", func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = &n, &n })
		w.live()
	}
	set(2)
	if j := w.job("elastic"); j.Status.CompletedIndexes != "" || j.Status.Succeeded != 0 || j.Status.Active != 2 || j.Status.Failed != 0 {
		t.Errorf("status = %+v", j.Status)
	}
	set(3)
	if j := w.job("elastic"); j.Status.Active != 3 {
		t.Errorf("status = %+v", j.Status)
	}
	w.rests()
}

func TestJobOfAnotherController(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	j := aJob("theirs", 1, 1)
	j.Spec.ManagedBy = ptr.To("example.com/mine")
	create(w, j)
	w.live()
	if len(w.pods()) != 0 || w.job("theirs").Status.StartTime != nil {
		t.Errorf("%d pods, status = %+v", len(w.pods()), w.job("theirs").Status)
	}
	w.rests()
}
