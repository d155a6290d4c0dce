package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// TestJob has a row for every noun of what a Job does with containers.
func TestJob(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"completions and parallelism", jobParallel},
		{"indexed: index, hostname", jobIndexed},
		{"local restarts", jobRestartsLocally},
		{"back-off", jobBacksOff},
		{"back-off per index", jobBacksOffPerIndex},
		{"pod failure policy: exit codes", jobFailsEarly},
		{"pod failure policy: disruptions ignored", jobIgnoresDisruptions},
		{"pod failure policy: counted, and an index failed", jobFailsIndex},
		{"success policy", jobSucceedsEarly},
		{"success policy: a number of indexes", jobSucceedsByCount},
		{"suspend", jobSuspended},
		{"TTL", jobExpires},
		{"replacement policy", jobReplaces},
		{"active deadline", jobDeadline},
		{"managed-by", jobManagedElsewhere},
		{"adopts and releases", jobAdopts},
		{"deleted with its pods", jobDeleted},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// job creates one whose pods run a script in a shell.
func (s *space) job(name, spec, script string) *batchv1.Job {
	s.t.Helper()
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &j.Spec); err != nil {
		s.t.Fatalf("spec of job %s: %v", name, err)
	}
	t := &j.Spec.Template.Spec
	if t.RestartPolicy == "" {
		t.RestartPolicy = corev1.RestartPolicyNever
	}
	t.TerminationGracePeriodSeconds = ptr.To[int64](5)
	t.Containers = []corev1.Container{{Name: "main", Image: shell, Command: []string{"sh", "-c", script}}}
	made, err := s.client.BatchV1().Jobs(s.name).Create(s.t.Context(), j, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

// jobUntil waits until a condition holds for a job.
func (s *space) jobUntil(name, what string, holds func(*batchv1.Job) bool) *batchv1.Job {
	s.t.Helper()
	var j *batchv1.Job
	await(s.t, "job "+name+", until "+what, func() (err error) {
		if j, err = s.client.BatchV1().Jobs(s.name).Get(s.t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !holds(j) {
			return fmt.Errorf("status %+v", j.Status)
		}
		return nil
	})
	return j
}

// ends waits until a job has ended with a condition and its reason.
func (s *space) ends(name string, kind batchv1.JobConditionType, reason string) *batchv1.Job {
	s.t.Helper()
	return s.jobUntil(name, fmt.Sprintf("%s (%s)", kind, reason), func(j *batchv1.Job) bool {
		for _, c := range j.Status.Conditions {
			if c.Type == kind && c.Status == corev1.ConditionTrue {
				return c.Reason == reason
			}
		}
		return false
	})
}

// jobPods are the pods of a job, in the order in which they were made.
func (s *space) jobPods(name string) []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// jobPod waits for a job's pod that is as it should be.
func (s *space) jobPod(name, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	s.t.Helper()
	var found *corev1.Pod
	await(s.t, "a pod of job "+name+" that "+what, func() error {
		pods := s.jobPods(name)
		for i := range pods {
			if holds(&pods[i]) {
				found = &pods[i]
				return nil
			}
		}
		return fmt.Errorf("there are %d others", len(pods))
	})
	return found
}

func runsNow(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && condition(p, corev1.PodReady) == corev1.ConditionTrue
}

func jobParallel(s *space) {
	s.job("work", "{completions: 5, parallelism: 2}", "sleep 1")
	most := int32(0)
	s.jobUntil("work", "it has ended", func(j *batchv1.Job) bool {
		most = max(most, j.Status.Active)
		return j.Status.CompletionTime != nil
	})
	j := s.ends("work", batchv1.JobComplete, "CompletionsReached")
	if j.Status.Succeeded != 5 || most > 2 || j.Status.Active != 0 || len(s.jobPods("work")) != 5 {
		s.t.Errorf("at most %d ran at once; status %+v", most, j.Status)
	}
	for _, p := range s.jobPods("work") {
		if len(p.Finalizers) > 0 {
			s.t.Errorf("pod %s still has %v", p.Name, p.Finalizers)
		}
	}
}

func jobIndexed(s *space) {
	s.job("work", "{completions: 3, parallelism: 3, completionMode: Indexed}", "echo $JOB_COMPLETION_INDEX on $(hostname)")
	if j := s.ends("work", batchv1.JobComplete, "CompletionsReached"); j.Status.CompletedIndexes != "0-2" {
		s.t.Errorf("completed: %q", j.Status.CompletedIndexes)
	}
	seen := map[string]bool{}
	for _, p := range s.jobPods("work") {
		index := p.Annotations[batchv1.JobCompletionIndexAnnotation]
		seen[index] = true
		if got, want := s.logs(p.Name, "main"), fmt.Sprintf("%s on work-%s\n", index, index); got != want || p.Labels[batchv1.JobCompletionIndexAnnotation] != index {
			s.t.Errorf("pod of index %s said %q", index, got)
		}
	}
	if len(seen) != 3 {
		s.t.Errorf("indexes %v", seen)
	}
}

// Each container fails once and then goes on where it was.
func jobRestartsLocally(s *space) {
	s.job("work", "{completions: 2, parallelism: 2, template: {spec: {restartPolicy: OnFailure, volumes: [{name: v, emptyDir: {}}]}}}", "exit 0")
	s.ends("work", batchv1.JobComplete, "CompletionsReached")
	s.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: again}
spec:
  completions: 2
  parallelism: 2
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: v, emptyDir: {}}]
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sh, -c, "test -e /v/once && exit 0; touch /v/once; exit 1"], volumeMounts: [{name: v, mountPath: /v}]}
`)
	if j := s.ends("again", batchv1.JobComplete, "CompletionsReached"); j.Status.Failed != 0 || j.Status.Succeeded != 2 {
		s.t.Errorf("status %+v", j.Status)
	}
	for _, p := range s.jobPods("again") {
		if p.Status.ContainerStatuses[0].RestartCount != 1 {
			s.t.Errorf("pod %s was restarted %d times", p.Name, p.Status.ContainerStatuses[0].RestartCount)
		}
	}
}

func jobBacksOff(s *space) {
	s.job("work", "{backoffLimit: 1}", "exit 3")
	if j := s.ends("work", batchv1.JobFailed, "BackoffLimitExceeded"); j.Status.Failed != 2 {
		s.t.Errorf("status %+v", j.Status)
	}
	pods := s.jobPods("work")
	if len(pods) != 2 {
		s.t.Fatalf("there are %d pods", len(pods))
	}
	first, second := pods[0], pods[1]
	if second.CreationTimestamp.Before(&first.CreationTimestamp) {
		first, second = second, first
	}
	end := first.Status.ContainerStatuses[0].State.Terminated.FinishedAt
	if pause := second.CreationTimestamp.Sub(end.Time); pause < 9*time.Second {
		s.t.Errorf("the second pod came after %s", pause)
	}
}

func jobBacksOffPerIndex(s *space) {
	s.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: again}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimitPerIndex: 1
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: hansa.local/busybox:1
        command: [sh, -c, "test $JOB_COMPLETION_INDEX != 1 -o $FAILURES != 0"]
        env: [{name: FAILURES, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"}}}]
`)
	s.job("work", "{completions: 3, parallelism: 3, completionMode: Indexed, backoffLimitPerIndex: 0}", "test $JOB_COMPLETION_INDEX != 1")
	if j := s.ends("work", batchv1.JobFailed, "FailedIndexes"); j.Status.CompletedIndexes != "0,2" || ptr.Deref(j.Status.FailedIndexes, "") != "1" {
		s.t.Errorf("status %+v", j.Status)
	}
	s.job("few", "{completions: 4, parallelism: 1, completionMode: Indexed, backoffLimitPerIndex: 0, maxFailedIndexes: 0}", "exit 1")
	if j := s.ends("few", batchv1.JobFailed, "MaxFailedIndexesExceeded"); ptr.Deref(j.Status.FailedIndexes, "") != "0" {
		s.t.Errorf("status %+v", j.Status)
	}
	// An index that may fail once does, and succeeds then.
	if j := s.ends("again", batchv1.JobComplete, "CompletionsReached"); j.Status.CompletedIndexes != "0-2" || ptr.Deref(j.Status.FailedIndexes, "none") != "" || j.Status.Failed != 1 || len(s.jobPods("again")) != 4 {
		s.t.Errorf("%d pods, status %+v", len(s.jobPods("again")), j.Status)
	}
}

func jobFailsEarly(s *space) {
	s.job("work", "{completions: 2, parallelism: 2, completionMode: Indexed, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}}",
		"test $JOB_COMPLETION_INDEX = 0 && exit 42; sleep 1000")
	j := s.ends("work", batchv1.JobFailed, "PodFailurePolicy")
	for _, c := range j.Status.Conditions {
		if c.Type == batchv1.JobFailed && !strings.Contains(c.Message, "failed with exit code 42 matching FailJob rule at index 0") {
			s.t.Errorf("message %q", c.Message)
		}
	}
	if j.Status.Active != 0 || *j.Status.Terminating != 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobIgnoresDisruptions(s *space) {
	s.job("work", "{backoffLimit: 0, podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}}", "trap 'exit 1' TERM; while :; do sleep 0.1; done")
	p := s.jobPod("work", "runs", runsNow)
	if err := s.client.CoreV1().Pods(s.name).EvictV1(s.t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}); err != nil {
		s.t.Fatal(err)
	}
	s.jobPod("work", "runs in its place", func(other *corev1.Pod) bool { return other.UID != p.UID && runsNow(other) })
	if j := s.jobUntil("work", "one is active", func(j *batchv1.Job) bool { return j.Status.Active == 1 }); j.Status.Failed != 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobSucceedsEarly(s *space) {
	s.job("work", `{completions: 3, parallelism: 3, completionMode: Indexed, successPolicy: {rules: [{succeededIndexes: "0"}]}}`,
		"test $JOB_COMPLETION_INDEX = 0 && exit 0; trap 'exit 1' TERM; while :; do sleep 0.1; done")
	if j := s.ends("work", batchv1.JobComplete, "SuccessPolicy"); j.Status.CompletedIndexes != "0" || j.Status.Failed != 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

// An index is given up though it might be tried again; of rules the first that fits
// counts.
func jobFailsIndex(s *space) {
	s.job("index", "{completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 3, podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [42]}}]}}",
		"test $JOB_COMPLETION_INDEX = 1 || exit 42")
	s.job("count", "{backoffLimit: 0, podFailurePolicy: {rules: [{action: Count, onExitCodes: {operator: In, values: [7]}}, {action: FailJob, onExitCodes: {operator: NotIn, values: [8]}}]}}", "exit 7")
	s.job("ignore", "{completions: 2, parallelism: 1, completionMode: Indexed, backoffLimit: 0, podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {containerName: main, operator: NotIn, values: [42]}}, {action: FailJob, onExitCodes: {operator: In, values: [42]}}]}}", "exit 3")
	if j := s.ends("index", batchv1.JobFailed, "FailedIndexes"); j.Status.Failed != 1 || j.Status.CompletedIndexes != "1" || ptr.Deref(j.Status.FailedIndexes, "") != "0" {
		s.t.Errorf("status %+v", j.Status)
	}
	if j := s.ends("count", batchv1.JobFailed, "BackoffLimitExceeded"); j.Status.Failed != 1 {
		s.t.Errorf("status %+v", j.Status)
	}
	first := s.jobPod("ignore", "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	s.jobPod("ignore", "is in its place", func(p *corev1.Pod) bool { return p.UID != first.UID })
	if j := s.jobUntil("ignore", "its pod was looked at", func(j *batchv1.Job) bool { return j.Status.Active == 1 }); j.Status.Failed != 0 || len(j.Status.Conditions) > 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobSucceedsByCount(s *space) {
	s.job("work", `{completions: 4, parallelism: 4, completionMode: Indexed, successPolicy: {rules: [{succeededIndexes: "1-3", succeededCount: 2}]}}`,
		"test $JOB_COMPLETION_INDEX = 1 -o $JOB_COMPLETION_INDEX = 3 && exit 0; trap 'exit 1' TERM; while :; do sleep 0.1; done")
	if j := s.ends("work", batchv1.JobComplete, "SuccessPolicy"); j.Status.CompletedIndexes != "1,3" || j.Status.Succeeded != 2 || j.Status.Failed != 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobSuspended(s *space) {
	isSuspended := func(j *batchv1.Job) bool {
		for _, c := range j.Status.Conditions {
			if c.Type == batchv1.JobSuspended {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	s.job("work", "{suspend: true}", "trap 'exit 1' TERM; test -e /go && exit 0; while :; do sleep 0.1; done")
	if j := s.jobUntil("work", "it is suspended", isSuspended); j.Status.StartTime != nil || len(s.jobPods("work")) > 0 {
		s.t.Errorf("status %+v", j.Status)
	}
	// What its pods need may change while none runs.
	s.kubectl("patch", "job", "work", "--type=json", "-p", `[{"op":"add","path":"/spec/template/spec/containers/0/resources","value":{"requests":{"cpu":"7m"}}},{"op":"replace","path":"/spec/suspend","value":false}]`)
	p := s.jobPod("work", "runs", runsNow)
	if got := p.Spec.Containers[0].Resources.Requests.Cpu().String(); got != "7m" {
		s.t.Errorf("it asks for %s", got)
	}
	s.kubectl("patch", "job", "work", "-p", `{"spec":{"suspend":true}}`)
	s.gone(p.Name)
	if j := s.jobUntil("work", "it is suspended again", isSuspended); j.Status.Active != 0 || j.Status.Failed != 0 || j.Status.StartTime != nil {
		s.t.Errorf("status %+v", j.Status)
	}
	s.kubectl("patch", "job", "work", "-p", `{"spec":{"suspend":false}}`)
	s.jobPod("work", "runs again", runsNow)
	if j := s.jobUntil("work", "it is resumed", func(j *batchv1.Job) bool { return !isSuspended(j) }); j.Status.StartTime == nil {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobExpires(s *space) {
	s.job("work", "{ttlSecondsAfterFinished: 1}", "exit 0")
	await(s.t, "the job and its pods are gone", func() error {
		if got := s.kubectl("get", "jobs,pods", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

// A pod that is on its way out is replaced at once, or only once it has ended.
func jobReplaces(s *space) {
	s.job("usual", "{}", "trap : TERM; while :; do sleep 0.1; done")
	ending := s.jobPod("usual", "runs", runsNow)
	s.kubectl("delete", "pod", ending.Name, "--wait=false", "--grace-period=600")
	if j := s.jobUntil("usual", "another is active while its pod is ending", func(j *batchv1.Job) bool { return j.Status.Active == 1 && *j.Status.Terminating == 1 }); *j.Spec.PodReplacementPolicy != batchv1.TerminatingOrFailed {
		s.t.Errorf("policy %s", *j.Spec.PodReplacementPolicy)
	}
	s.jobPod("usual", "runs beside it", func(other *corev1.Pod) bool { return other.UID != ending.UID && runsNow(other) })
	s.kubectl("delete", "pod", ending.Name, "--force")
	s.job("work", "{podReplacementPolicy: Failed}", "trap 'sleep 2; exit 1' TERM; while :; do sleep 0.1; done")
	p := s.jobPod("work", "runs", runsNow)
	s.kubectl("delete", "pod", p.Name, "--wait=false")
	j := s.jobUntil("work", "its pod is ending", func(j *batchv1.Job) bool { return *j.Status.Terminating == 1 })
	if n := len(s.jobPods("work")); j.Status.Active != 0 || n != 1 {
		s.t.Errorf("%d pods while one is ending; status %+v", n, j.Status)
	}
	next := s.jobPod("work", "is in its place", func(other *corev1.Pod) bool { return other.UID != p.UID })
	s.jobUntil("work", "the failure is counted", func(j *batchv1.Job) bool { return j.Status.Failed == 1 })
	s.until(next.Name, "it runs", runsNow)
}

func jobDeadline(s *space) {
	s.job("work", "{activeDeadlineSeconds: 2}", "trap 'exit 1' TERM; while :; do sleep 0.1; done")
	if j := s.ends("work", batchv1.JobFailed, "DeadlineExceeded"); j.Status.Active != 0 {
		s.t.Errorf("status %+v", j.Status)
	}
}

func jobManagedElsewhere(s *space) {
	s.job("theirs", "{managedBy: example.com/queue}", "exit 0")
	s.job("ours", "{}", "exit 0")
	s.ends("ours", batchv1.JobComplete, "CompletionsReached")
	j, err := s.client.BatchV1().Jobs(s.name).Get(s.t.Context(), "theirs", metav1.GetOptions{})
	if err != nil || j.Status.StartTime != nil || len(j.Status.Conditions) > 0 || len(s.jobPods("theirs")) > 0 {
		s.t.Errorf("status %+v, %v", j.Status, err)
	}
}

func jobAdopts(s *space) {
	s.job("work", "{parallelism: 1}", "sleep 1000")
	p := s.jobPod("work", "runs", runsNow)
	controlled := func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) != nil }
	s.kubectl("patch", "pod", p.Name, "--type=json", "-p", `[{"op":"remove","path":"/metadata/ownerReferences"}]`)
	s.until(p.Name, "it is adopted", controlled)
	s.kubectl("label", "pod", p.Name, "batch.kubernetes.io/controller-uid-", "controller-uid-", "batch.kubernetes.io/job-name-", "job-name-")
	s.until(p.Name, "it is released", func(p *corev1.Pod) bool { return !controlled(p) && len(p.Finalizers) == 0 })
	s.jobPod("work", "is in its place", runsNow)
}

func jobDeleted(s *space) {
	s.job("work", "{parallelism: 2, completions: 2}", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	s.jobUntil("work", "two run", func(j *batchv1.Job) bool { return ptr.Deref(j.Status.Ready, 0) == 2 })
	s.kubectl("delete", "job", "work")
	await(s.t, "its pods go with it", func() error {
		if n := len(s.jobPods("work")); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

// However often Hansa dies or is stopped, each pod of a Job is made once, succeeds
// and is counted once. None fails or is restarted for being started just then.
func TestJobCountsOnce(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("count"))
	s := newSpace(t, c)
	const pods = 30
	s.job("work", fmt.Sprintf("{completions: %d, parallelism: 6, backoffLimit: 0}", pods), "sleep 0.5")
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL, syscall.SIGTERM} {
		s.jobUntil("work", "some more have succeeded", func(j *batchv1.Job) bool { return int(j.Status.Succeeded) > 5*i })
		if err := errors.Join(c.stop(sig), c.up()); err != nil {
			t.Fatal(err)
		}
	}
	j := s.ends("work", batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
	made := s.jobPods("work")
	for _, p := range made {
		if len(p.Finalizers) > 0 || p.Status.Phase != corev1.PodSucceeded || p.Status.ContainerStatuses[0].RestartCount > 0 {
			t.Errorf("pod %s is %s, restarted %d times, with finalizers %v", p.Name, p.Status.Phase, p.Status.ContainerStatuses[0].RestartCount, p.Finalizers)
		}
	}
	if len(made) != pods {
		t.Errorf("%d pods were made", len(made))
	}
	st := j.Status
	if st.Succeeded != pods || st.Failed != 0 || st.Active != 0 || st.UncountedTerminatedPods != nil && len(st.UncountedTerminatedPods.Succeeded)+len(st.UncountedTerminatedPods.Failed) > 0 {
		t.Errorf("status %+v", st)
	}
}
