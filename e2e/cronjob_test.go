package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCronJobs is about CronJobs with real jobs. Those are made for minutes; "@every
// 2s" has one begin within two seconds, and another in the next minute.
func TestCronJobs(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"a CronJob starts Jobs, also by hand, and stops when suspended", cronStarts},
		{"a CronJob allows, forbids and replaces Jobs that run", cronConcurrency},
		{"a CronJob keeps so many Jobs of its history", cronHistory},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// cron is a cron job whose pods run a script.
func cron(name, policy, script string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: %s}
spec:
  schedule: "@every 2s"
  timeZone: Europe/Berlin
  concurrencyPolicy: %s
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 1
          containers:
          - {name: main, image: hansa.local/busybox:1, command: [sh, -c, %q]}
---
`, name, policy, script)
}

// jobsOf are the jobs that a cron job controls.
func (s *space) jobsOf(name string) []batchv1.Job {
	s.t.Helper()
	list, err := s.client.BatchV1().Jobs(s.name).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	var jobs []batchv1.Job
	for _, j := range list.Items {
		if ref := metav1.GetControllerOf(&j); ref != nil && ref.Kind == "CronJob" && ref.Name == name {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

func (s *space) cron(name string) *batchv1.CronJob {
	s.t.Helper()
	c, err := s.client.BatchV1().CronJobs(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func cronStarts(s *space) {
	s.apply(cron("tidy", "Allow", "echo tidied"))
	await(s.t, "its job completed", func() error {
		if st := s.cron("tidy").Status; st.LastSuccessfulTime == nil || len(st.Active) > 0 {
			return fmt.Errorf("the status is %+v", st)
		}
		return nil
	})
	s.kubectl("patch", "cronjob", "tidy", "-p", `{"spec":{"suspend":true}}`)
	j := s.jobsOf("tidy")[0]
	if at := j.Annotations[batchv1.CronJobScheduledTimestampAnnotation]; !strings.HasSuffix(at, "+01:00") && !strings.HasSuffix(at, "+02:00") {
		s.t.Errorf("job %s is scheduled at %q", j.Name, at)
	}
	if got := s.kubectl("logs", "job/"+j.Name); got != "tidied\n" {
		s.t.Errorf("it says %q", got)
	}
	if got := s.kubectl("get", "cronjob", "tidy", "--no-headers"); !strings.Contains(got, "@every 2s") || !strings.Contains(got, "True") {
		s.t.Errorf("kubectl get: %s", got)
	}
	s.kubectl("create", "job", "mine", "--from=cronjob/tidy")
	s.kubectl("wait", "--for=condition=complete", "job/mine", "--timeout=60s")
	s.kubectl("delete", "cronjob", "tidy")
	await(s.t, "its jobs and pods go with it", func() error {
		if got := s.kubectl("get", "jobs,pods", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

func cronConcurrency(s *space) {
	for _, policy := range []string{"Allow", "Forbid", "Replace"} {
		s.apply(cron(strings.ToLower(policy), policy, "trap exit TERM; while :; do sleep 1; done"))
	}
	var first string
	await(s.t, "the first job to be replaced", func() error {
		jobs := s.jobsOf("replace")
		if len(jobs) == 0 {
			return errors.New("there is none")
		}
		first = jobs[0].Name
		return nil
	})
	await(s.t, "two jobs at once", func() error {
		if n := len(s.cron("allow").Status.Active); n < 2 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	await(s.t, "another job instead of the first", func() error {
		jobs, active := s.jobsOf("replace"), s.cron("replace").Status.Active
		if len(jobs) != 1 || jobs[0].Name == first || len(active) != 1 || active[0].UID != jobs[0].UID {
			return fmt.Errorf("%d jobs, active %+v", len(jobs), active)
		}
		return nil
	})
	await(s.t, "an event about the run that is skipped", func() error {
		if got := s.kubectl("get", "events", "--field-selector=reason=JobAlreadyActive,involvedObject.name=forbid", "-o", "name"); got == "" {
			return errors.New("there is none")
		}
		return nil
	})
	if n := len(s.jobsOf("forbid")); n != 1 {
		s.t.Errorf("%d jobs, and concurrency is forbidden", n)
	}
	s.kubectl("delete", "cronjob", "--all")
}

// Jobs made by hand are part of the history, whose limits need no schedule so.
func cronHistory(s *space) {
	s.apply(strings.Replace(cron("tidy", "Allow", "exit 0"), "spec:\n  schedule", "spec:\n  suspend: true\n  successfulJobsHistoryLimit: 1\n  failedJobsHistoryLimit: 2\n  schedule", 1))
	for _, name := range []string{"good-1", "good-2", "good-3"} {
		s.kubectl("create", "job", name, "--from=cronjob/tidy")
		s.ends(name, batchv1.JobComplete, batchv1.JobReasonCompletionsReached)
	}
	s.kubectl("patch", "cronjob", "tidy", "--type=json", "-p", `[{"op": "add", "path": "/spec/jobTemplate/spec/backoffLimit", "value": 0}, {"op": "replace", "path": "/spec/jobTemplate/spec/template/spec/containers/0/command", "value": ["false"]}]`)
	for _, name := range []string{"bad-1", "bad-2", "bad-3"} {
		s.kubectl("create", "job", name, "--from=cronjob/tidy")
		s.jobUntil(name, "it has failed", func(j *batchv1.Job) bool {
			return j.Status.Failed == 1 && slices.ContainsFunc(j.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobFailed })
		})
	}
	await(s.t, "the latest jobs are left", func() error {
		var names []string
		for _, j := range s.jobsOf("tidy") {
			names = append(names, j.Name)
		}
		if slices.Sort(names); !slices.Equal(names, []string{"bad-2", "bad-3", "good-3"}) {
			return fmt.Errorf("there are %v", names)
		}
		return nil
	})
	s.event("tidy", "Normal SuccessfulDelete: Deleted job good-1")
	s.kubectl("patch", "cronjob", "tidy", "-p", `{"spec":{"successfulJobsHistoryLimit":0,"failedJobsHistoryLimit":0}}`)
	await(s.t, "none is left", func() error {
		if got := s.kubectl("get", "jobs,pods", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}
