package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/cronjob"
)

func cronJobs(c client.Interface, r events.Recorder) controller.Loop {
	return cronjob.New(c, r, time.UTC, nil)
}

// aCronJob has a schedule, and jobs of one pod.
func aCronJob(name, schedule string, policy batchv1.ConcurrencyPolicy) *batchv1.CronJob {
	return &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: batchv1.CronJobSpec{
			Schedule: schedule, ConcurrencyPolicy: policy,
			JobTemplate: batchv1.JobTemplateSpec{Spec: aJob("", 1, 1).Spec},
		},
	}
}

func (w *world) cron(name string) *batchv1.CronJob {
	return get[*batchv1.CronJob](w, "default", name)
}

func (w *world) allJobs() []*batchv1.Job { return all[*batchv1.Job](w, "default") }

// unfinished are the names of the jobs that have not ended.
func (w *world) unfinished() []string {
	var names []string
	for _, j := range w.allJobs() {
		if ended(j) == "" {
			names = append(names, j.Name)
		}
	}
	return names
}

// done ends all pods of a job.
func (w *world) done(name string, code int32) {
	w.Helper()
	for _, p := range w.running() {
		if p.Labels["batch.kubernetes.io/job-name"] == name {
			w.exits(p, code)
		}
	}
	w.settle()
}

func timed(t testing.TB, in tester) *world {
	w := newWorldIn(t, in)
	w.run(cronJobs)
	w.run(jobs)
	w.run(collector)
	return w
}

// activeNames are the jobs that the status lists.
func activeNames(c *batchv1.CronJob) []string {
	var names []string
	for _, ref := range c.Status.Active {
		names = append(names, ref.Name)
	}
	return names
}

// Documentation: "CronJob"; the epoch is 03:04:05.
func TestCronJobStartsJobs(t *testing.T) {
	w := timed(t, t)
	c := create(w, aCronJob("tidy", "*/10 * * * *", ""))
	w.settle()
	if n := len(w.allJobs()); n != 0 {
		t.Fatalf("%d jobs before the first run", n)
	}
	w.pass(5*time.Minute + 54*time.Second)
	w.rests()
	if n := len(w.allJobs()); n != 0 {
		t.Fatalf("%d jobs before the first run", n)
	}
	w.pass(time.Second)
	first := epoch.Add(5*time.Minute + 55*time.Second)
	name := fmt.Sprintf("tidy-%d", first.Unix()/60)
	j := w.job(name)
	if j == nil {
		t.Fatalf("there is no job %s", name)
	}
	if got := j.Annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"]; got != "2030-01-02T03:10:00Z" {
		t.Errorf("scheduled at %s", got)
	}
	if ref := metav1.GetControllerOf(j); ref == nil || ref.UID != c.UID || ref.Kind != "CronJob" || ref.APIVersion != "batch/v1" {
		t.Errorf("the job's controller is %+v", ref)
	}
	s := w.cron("tidy").Status
	if len(s.Active) != 1 || s.Active[0].Name != name || s.Active[0].UID != j.UID || s.Active[0].Kind != "Job" || s.Active[0].APIVersion != "batch/v1" || !s.LastScheduleTime.Time.Equal(first) || s.LastSuccessfulTime != nil {
		t.Errorf("the status is %+v", s)
	}
	w.said("Normal SuccessfulCreate Created job " + name)
	w.rests()
	if len(w.events) > 0 {
		t.Errorf("at rest: %v", w.events)
	}

	w.agent()
	w.pass(20 * time.Second)
	w.done(name, 0)
	s = w.cron("tidy").Status
	if len(s.Active) != 0 || s.LastSuccessfulTime == nil || !s.LastSuccessfulTime.Time.Equal(first.Add(20*time.Second)) {
		t.Errorf("the status is %+v", s)
	}
	w.said("Normal SawCompletedJob Saw completed job: " + name + ", condition: Complete")
	w.rests()

	// With the cron job its jobs go, and their pods.
	remove(w, c, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.live()
	if len(w.allJobs())+len(w.pods()) != 0 {
		t.Errorf("%d jobs and %d pods are left", len(w.allJobs()), len(w.pods()))
	}
	w.pass(time.Hour)
	w.rests()
}

func TestCronJobAllow(t *testing.T) {
	w := timed(t, t)
	create(w, aCronJob("tidy", "* * * * *", batchv1.AllowConcurrent))
	w.settle()
	w.pass(3 * time.Minute)
	if n := len(w.unfinished()); n != 3 || !slices.Equal(activeNames(w.cron("tidy")), w.unfinished()) {
		t.Errorf("unfinished: %v, active: %v", w.unfinished(), activeNames(w.cron("tidy")))
	}
	w.rests()
}

// "If it is time for a new Job run and the previous Job run hasn't finished yet, the
// CronJob skips the new Job run"; when it finishes, the latest run that is not too
// late begins.
func TestCronJobForbid(t *testing.T) {
	w := timed(t, t)
	c := aCronJob("tidy", "* * * * *", batchv1.ForbidConcurrent)
	c.Spec.StartingDeadlineSeconds = ptr.To[int64](30)
	create(w, c)
	w.settle()
	w.pass(3 * time.Minute) // 03:07:05
	first := w.unfinished()
	if len(first) != 1 || len(w.allJobs()) != 1 {
		t.Fatalf("unfinished: %v of %d", first, len(w.allJobs()))
	}
	w.said("Normal JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid")
	w.rests()
	w.agent()
	w.settle()
	w.pass(35 * time.Second)
	w.done(first[0], 0)
	if got := w.unfinished(); len(got) != 0 {
		t.Errorf("%v was started after its deadline", got)
	}
	w.said("Warning MissSchedule Missed scheduled time to start a job: Wed, 02 Jan 2030 03:07:00 +0000")
	w.pass(20 * time.Second) // 03:08
	w.agent()
	w.settle()
	second := w.unfinished()
	w.pass(time.Minute + 10*time.Second)
	w.done(second[0], 0)
	if got := w.unfinished(); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprint(epoch.Unix()/60+5)) {
		t.Errorf("unfinished: %v", got)
	}
	w.rests()
}

func TestCronJobReplace(t *testing.T) {
	w := timed(t, t)
	create(w, aCronJob("tidy", "* * * * *", batchv1.ReplaceConcurrent))
	w.settle()
	w.pass(time.Minute)
	w.live()
	first := w.unfinished()[0]
	w.pass(time.Minute)
	w.live()
	got := w.unfinished()
	if len(got) != 1 || got[0] == first || len(w.allJobs()) != 1 || len(w.running()) != 1 || !slices.Equal(activeNames(w.cron("tidy")), got) {
		t.Errorf("%s is followed by %v; %d jobs, %d pods", first, got, len(w.allJobs()), len(w.running()))
	}
	w.said("Normal SuccessfulDelete Deleted job "+first, "Normal SuccessfulCreate Created job "+got[0])
	w.rests()
}

// "If you do set the field to true, all subsequent executions are suspended"; when
// it is false again, what was missed counts.
func TestCronJobSuspend(t *testing.T) {
	w := timed(t, t)
	c := aCronJob("tidy", "@hourly", "")
	c.Spec.Suspend = ptr.To(true)
	c = create(w, c)
	w.settle()
	w.pass(5 * time.Hour)
	if n := len(w.allJobs()); n != 0 {
		t.Errorf("%d jobs while suspended", n)
	}
	update(w, c, "", func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(false) })
	w.settle()
	if n := len(w.allJobs()); n != 1 || !w.cron("tidy").Status.LastScheduleTime.Time.Equal(epoch.Truncate(time.Hour).Add(5*time.Hour)) {
		t.Errorf("%d jobs, the last for %s", n, w.cron("tidy").Status.LastScheduleTime)
	}
	w.rests()
}

func TestCronJobHistory(t *testing.T) {
	w := timed(t, t)
	c := aCronJob("tidy", "* * * * *", "")
	c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = ptr.To[int32](2), ptr.To[int32](1)
	c.Spec.JobTemplate.Spec.BackoffLimit = ptr.To[int32](0)
	create(w, c)
	w.settle()
	var good, bad []string
	for i := range 8 {
		w.pass(time.Minute)
		w.agent()
		w.settle()
		name := w.unfinished()[0]
		w.done(name, int32(i%2))
		if i%2 == 0 {
			good = append(good, name)
		} else {
			bad = append(bad, name)
		}
	}
	w.live()
	var got []string
	for _, j := range w.allJobs() {
		got = append(got, j.Name)
	}
	want := slices.Concat(good[2:], bad[3:])
	slices.Sort(want)
	if !slices.Equal(got, want) || len(w.pods()) != 3 {
		t.Errorf("jobs %v are left, want %v; %d pods", got, want, len(w.pods()))
	}
	w.said("Normal SuccessfulDelete Deleted job "+good[0], "Normal SuccessfulDelete Deleted job "+bad[0], "condition: Failed")
	w.rests()

	// Without any history all is remembered in the status.
	update(w, w.cron("tidy"), "", func(c *batchv1.CronJob) {
		c.Spec.SuccessfulJobsHistoryLimit, c.Spec.FailedJobsHistoryLimit = ptr.To[int32](0), ptr.To[int32](0)
	})
	w.pass(time.Minute)
	w.agent()
	w.settle()
	w.done(w.unfinished()[0], 0)
	if s := w.cron("tidy").Status; len(w.allJobs()) != 0 || !s.LastSuccessfulTime.Time.Equal(w.stamp().Time) || len(s.Active) != 0 {
		t.Errorf("%d jobs are left; the status is %+v", len(w.allJobs()), s)
	}
	w.rests()
}

// Missed runs: one is made up for, the latest, with a word if they are many.
func TestCronJobMissedRuns(t *testing.T) {
	w := timed(t, t)
	create(w, aCronJob("tidy", "* * * * *", ""))
	w.settle()
	w.clock.Step(3 * time.Hour) // nobody looks
	w.loops[0].restart()
	w.settle()
	if n := len(w.allJobs()); n != 1 || !w.cron("tidy").Status.LastScheduleTime.Time.Equal(epoch.Add(3*time.Hour).Truncate(time.Minute)) {
		t.Errorf("%d jobs, the last for %s", n, w.cron("tidy").Status.LastScheduleTime)
	}
	w.said("Warning TooManyMissedTimes too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	w.rests()
}

// A schedule is for the time to come: what it would have given before is not made
// up for, and the time of the old one does not come.
func TestCronJobAnotherSchedule(t *testing.T) {
	w := timed(t, t)
	c := create(w, aCronJob("tidy", "0 12 * * *", ""))
	w.settle()
	w.pass(4 * time.Hour)                                                                                                     // 07:04:05
	update(w, c, "", func(c *batchv1.CronJob) { c.Spec.Schedule, c.Spec.TimeZone = "0 5 * * *", ptr.To("America/New_York") }) // 10:00
	w.settle()
	w.pass(time.Hour)
	update(w, c, "", func(c *batchv1.CronJob) { c.Spec.Schedule, c.Spec.TimeZone = "0 6 * * *", nil })
	w.settle()
	w.pass(21 * time.Hour) // 05:04:05 of the next day
	if n := len(w.allJobs()); n != 0 {
		t.Errorf("%d jobs", n)
	}
	w.pass(time.Hour)
	if n := len(w.allJobs()); n != 1 {
		t.Errorf("%d jobs", n)
	}
	w.rests()
}

// `kubectl create job --from=cronjob/tidy` makes a job that the cron job controls:
// it counts for the history and the last success, and holds up nothing.
func TestCronJobByHand(t *testing.T) {
	w := timed(t, t)
	c := create(w, aCronJob("tidy", "@hourly", batchv1.ForbidConcurrent))
	w.settle()
	j := aJob("mine", 1, 1)
	j.Annotations = map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}
	j.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: "tidy", UID: c.UID, Controller: ptr.To(true)}}
	create(w, j)
	w.settle()
	w.said("Warning UnexpectedJob Saw a job that the controller did not create or forgot: mine")
	w.pass(time.Hour)
	if got := activeNames(w.cron("tidy")); len(got) != 1 || got[0] == "mine" {
		t.Errorf("active: %v", got)
	}
	w.agent()
	w.settle()
	w.done("mine", 0)
	if s := w.cron("tidy").Status; s.LastSuccessfulTime == nil {
		t.Errorf("the status is %+v", s)
	}
	w.rests()
}

// Jobs that cannot be made are told of, and tried again.
func TestCronJobFails(t *testing.T) {
	w := newWorld(t)
	d := w.run(cronJobs)
	create(w, aCronJob("tidy", "* * * * *", ""))
	w.settle()
	d.client.refuse = apierrors.NewForbidden(batchv1.Resource("jobs"), "", nil)
	w.clock.Step(time.Minute)
	d.add(d.ready...)
	for key := range d.later {
		d.add(key)
	}
	d.step()
	w.said("Warning FailedCreate Error creating job: jobs.batch")
	d.client.refuse = nil
	w.settle()
	if n := len(w.allJobs()); n != 1 {
		t.Errorf("%d jobs", n)
	}

	// A job of the name that is somebody else's is left alone.
	other := aJob(fmt.Sprintf("tidy-%d", epoch.Add(2*time.Minute).Unix()/60), 1, 1)
	create(w, other)
	w.pass(time.Minute)
	w.said("Warning FailedCreate Error creating job: jobs.batch \"" + other.Name + "\" already exists")
	w.pass(time.Minute)
	if n := len(w.allJobs()); n != 3 {
		t.Errorf("%d jobs", n)
	}
	w.rests()
}

// When the clock is set every cron job is looked at: the wait until its run was told
// by the clock of before.
func TestCronJobClockJump(t *testing.T) {
	w := newWorld(t)
	var jumped func(time.Duration)
	stopped := false
	d := w.run(func(c client.Interface, r events.Recorder) controller.Loop {
		return cronjob.New(c, r, time.UTC, func(f func(time.Duration)) func() { jumped = f; return func() { stopped = true } })
	})
	stop := d.loop.(controller.Woken).Listen(func(key api.Key) { d.add(key) })
	create(w, aCronJob("tidy", "@hourly", ""))
	w.settle()
	w.clock.SetTime(epoch.Add(10 * time.Hour))
	jumped(10 * time.Hour)
	w.settle()
	if n := len(w.allJobs()); n != 1 || !w.cron("tidy").Status.LastScheduleTime.Time.Equal(epoch.Truncate(time.Hour).Add(10*time.Hour)) {
		t.Errorf("%d jobs after the clock was put on", n)
	}
	// Put back by so much that it must have been wrong, it starts the next run of now.
	w.clock.SetTime(epoch)
	jumped(-10 * time.Hour)
	w.settle()
	w.pass(time.Hour)
	if n := len(w.allJobs()); n != 2 {
		t.Errorf("%d jobs after the clock was put back", n)
	}
	if stop(); !stopped {
		t.Error("it listens on")
	}
}

// Each run happens once, whatever dies when, and Forbid and Replace are kept.
func TestCronJobRunsOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := timed(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		loop := w.loops[0]
		policy := rapid.SampledFrom([]batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}).Draw(r, "policy")
		c := aCronJob("tidy", "* * * * *", policy)
		c.Spec.SuccessfulJobsHistoryLimit = ptr.To(rapid.Int32Range(0, 2).Draw(r, "history"))
		create(w, c)
		uids := map[string]string{} // of all jobs there ever were
		latest := w.clock.Now()
		for range 40 {
			if rapid.Bool().Draw(r, "dies") {
				loop.client.dieAt(rapid.IntRange(0, 4).Draw(r, "at write"), rapid.Bool().Draw(r, "after it"))
			}
			switch rapid.SampledFrom([]string{"time", "time", "end", "back", "forward"}).Draw(r, "what") {
			case "time":
				w.pass(time.Duration(rapid.IntRange(1, 90).Draw(r, "seconds")) * time.Second)
			case "back":
				// Never by so much in all that the last run counts as a wrong clock's.
				to := w.clock.Now().Add(-time.Duration(rapid.IntRange(1, 600).Draw(r, "seconds")) * time.Second)
				if least := latest.Add(-59 * time.Minute); to.Before(least) {
					to = least
				}
				w.clock.SetTime(to)
			case "forward":
				w.clock.Step(time.Duration(rapid.IntRange(1, 6000).Draw(r, "seconds")) * time.Second)
				loop.restart()
			case "end":
				w.agent()
				if names := w.unfinished(); len(names) > 0 {
					w.done(rapid.SampledFrom(names).Draw(r, "job"), rapid.Int32Range(0, 1).Draw(r, "code"))
				}
			}
			if now := w.clock.Now(); now.After(latest) {
				latest = now
			}
			w.settle()
			for _, j := range w.allJobs() {
				if was, ok := uids[j.Name]; ok && was != string(j.UID) {
					r.Fatalf("job %s was made twice", j.Name)
				}
				uids[j.Name] = string(j.UID)
			}
			if n := len(w.unfinished()); policy != batchv1.AllowConcurrent && n > 1 {
				r.Fatalf("%d jobs run at once, and the policy is %s", n, policy)
			}
		}
		for _, d := range w.loops {
			d.restart() // the clock was moved without them
		}
		w.settle()
		got, want := activeNames(w.cron("tidy")), w.unfinished()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			r.Errorf("active %v, unfinished %v", got, want)
		}
		w.rests()
	})
}
