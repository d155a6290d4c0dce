package cronjob

import (
	"fmt"
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

// 2 January 2030 is a Wednesday.
var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func aCron(schedule string) *batchv1.CronJob {
	return &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tidy", UID: "tidy", CreationTimestamp: metav1.NewTime(now)},
		Spec:       batchv1.CronJobSpec{Schedule: schedule, ConcurrencyPolicy: batchv1.AllowConcurrent},
	}
}

func zoned(schedule, zone string) *batchv1.CronJob {
	c := aCron(schedule)
	c.Spec.TimeZone = &zone
	return c
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t
}

func mustRead(t testing.TB, c *batchv1.CronJob) runs {
	t.Helper()
	schedule, err := readSchedule(c, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return runs{schedule, c.CreationTimestamp.Time}
}

// Documentation: "CronJob", "Schedule syntax", "Time zones"; in zones with summer
// time a time of day that is left out does not come, one that comes twice is
// two runs.
func TestSchedules(t *testing.T) {
	for _, tt := range []struct {
		schedule, zone, from string
		want                 string // the next runs, in UTC
	}{
		{"* * * * *", "", "2030-01-02 03:04:05", "01-02 03:05, 01-02 03:06, 01-02 03:07"},
		{"*/20 * * * *", "", "2030-01-02 03:04:05", "01-02 03:20, 01-02 03:40, 01-02 04:00"},
		{"5-59/25 3 * * *", "", "2030-01-02 03:04:05", "01-02 03:05, 01-02 03:30, 01-02 03:55"},
		{"0 0 13 * 5", "", "2030-01-02 03:04:05", "01-04 00:00, 01-11 00:00, 01-13 00:00"},
		{"0 12 1,15 MAR-apr ?", "", "2030-01-02 03:04:05", "03-01 12:00, 03-15 12:00, 04-01 12:00"},
		{"0 9 * * MON-FRI", "", "2030-01-04 03:04:05", "01-04 09:00, 01-07 09:00, 01-08 09:00"},
		{"0 0 * * sun", "", "2030-01-02 03:04:05", "01-06 00:00, 01-13 00:00, 01-20 00:00"},
		{"@hourly", "", "2030-01-02 03:04:05", "01-02 04:00, 01-02 05:00, 01-02 06:00"},
		{"@daily", "", "2030-01-02 03:04:05", "01-03 00:00, 01-04 00:00, 01-05 00:00"},
		{"@midnight", "", "2030-01-02 03:04:05", "01-03 00:00, 01-04 00:00, 01-05 00:00"},
		{"@weekly", "", "2030-01-02 03:04:05", "01-06 00:00, 01-13 00:00, 01-20 00:00"},
		{"@monthly", "", "2030-01-02 03:04:05", "02-01 00:00, 03-01 00:00, 04-01 00:00"},
		{"@yearly", "", "2030-01-02 03:04:05", "01-01 00:00, 01-01 00:00, 01-01 00:00"},
		{"@annually", "", "2030-01-02 03:04:05", "01-01 00:00, 01-01 00:00, 01-01 00:00"},
		{"@every 1h30m", "", "2030-01-02 03:04:05", "01-02 04:34, 01-02 06:04, 01-02 07:34"},
		{"0 0 29 2 *", "", "2030-01-02 03:04:05", "02-29 00:00, 02-29 00:00, 02-29 00:00"},
		{"0 9 * * *", "Asia/Kolkata", "2030-01-02 03:04:05", "01-02 03:30, 01-03 03:30, 01-04 03:30"},
		{"@daily", "America/New_York", "2030-01-02 03:04:05", "01-02 05:00, 01-03 05:00, 01-04 05:00"},
		// Clocks in New York are put on at 2:00 on 10 March 2030, and back at 2:00 on
		// 3 November.
		{"30 2 * * *", "America/New_York", "2030-03-09 00:00:00", "03-09 07:30, 03-11 06:30, 03-12 06:30"},
		{"30 * * * *", "America/New_York", "2030-03-10 06:00:00", "03-10 06:30, 03-10 07:30, 03-10 08:30"},
		{"30 1 * * *", "America/New_York", "2030-11-02 12:00:00", "11-03 05:30, 11-03 06:30, 11-04 06:30"},
		{"0 12 * * *", "America/New_York", "2030-11-02 12:00:00", "11-02 16:00, 11-03 17:00, 11-04 17:00"},
	} {
		c := aCron(tt.schedule)
		if tt.zone != "" {
			c = zoned(tt.schedule, tt.zone)
		}
		c.CreationTimestamp = metav1.NewTime(at(tt.from))
		r := mustRead(t, c)
		var got []string
		for next := r.from; len(got) < 3; {
			next = r.next(next)
			got = append(got, next.UTC().Format("01-02 15:04"))
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s in %q after %s:\n%s", tt.schedule, tt.zone, tt.from, diff)
		}
	}
}

// A schedule that names no zone is about the one of the machine.
func TestSchedulesWithoutZone(t *testing.T) {
	s, err := readSchedule(aCron("0 12 * * *"), time.FixedZone("", 3600))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Next(now).UTC(); got != at("2030-01-02 11:00:00") {
		t.Errorf("noon is %s", got)
	}
}

// The latest run is found as by counting them all.
func TestLatestRun(t *testing.T) {
	schedules := []string{"* * * * *", "*/7 * * * *", "0 0,1 * * *", "30 6-16/4 * * 1-5", "0 0 1 * *", "@every 100s", "@every 7h", "30 2 * * *"}
	zones := []string{"UTC", "America/New_York", "Australia/Lord_Howe"}
	rapid.Check(t, func(r *rapid.T) {
		c := zoned(rapid.SampledFrom(schedules).Draw(r, "schedule"), rapid.SampledFrom(zones).Draw(r, "zone"))
		schedule, err := readSchedule(c, time.UTC)
		if err != nil {
			r.Fatal(err)
		}
		all := runs{schedule, now.AddDate(0, 0, rapid.IntRange(0, 400).Draw(r, "day"))}
		until := all.from.Add(time.Duration(rapid.IntRange(0, 5*24*3600).Draw(r, "seconds")) * time.Second)
		var want time.Time
		n := 0
		for t := all.next(all.from); !t.After(until); t = all.next(t) {
			want = t
			n++
		}
		got, ok := all.last(until)
		if ok != (n > 0) || !got.Equal(want) {
			r.Errorf("the latest run of %s after %s until %s is %s, want %s", c.Spec.Schedule, all.from, until, got, want)
		}
		if many := all.tooMany(all.from, until); many != (n > mostMissed) {
			r.Errorf("too many of %d: %v", n, many)
		}
	})
}

// jobOf is the job of a run, with how it ended.
func jobOf(c *batchv1.CronJob, when time.Time, end batchv1.JobConditionType) *batchv1.Job {
	j, err := newJob(c, when)
	if err != nil {
		panic(err)
	}
	j.UID = types.UID(j.Name)
	j.Status.StartTime = &metav1.Time{Time: when}
	if end != "" {
		j.Status.Conditions = []batchv1.JobCondition{{Type: end, Status: corev1.ConditionTrue}}
	}
	if end == batchv1.JobComplete {
		j.Status.CompletionTime = &metav1.Time{Time: when.Add(time.Minute)}
	}
	return j
}

// text is what a decision comes to.
func text(d decision) string {
	var b strings.Builder
	for _, j := range d.replace {
		fmt.Fprintf(&b, "replace %s\n", j.Name)
	}
	if d.run != nil {
		fmt.Fprintf(&b, "run %s\n", d.run.UTC().Format(time.RFC3339))
	}
	for _, j := range d.remove {
		fmt.Fprintf(&b, "remove %s\n", j.Name)
	}
	for _, n := range d.notes {
		fmt.Fprintf(&b, "%s %s\n", n.reason, n.message)
	}
	for _, ref := range d.status.Active {
		fmt.Fprintf(&b, "active %s\n", ref.Name)
	}
	if d.after > 0 {
		fmt.Fprintf(&b, "after %s\n", d.after)
	}
	return b.String()
}

// Documentation: "CronJob", "Writing a CronJob spec".
func TestPlan(t *testing.T) {
	hour := func(n int) time.Time { return now.Truncate(time.Hour).Add(time.Duration(n) * time.Hour) } // 1 is the first run
	minutes := func(when time.Time) string { return fmt.Sprintf("tidy-%d", when.Unix()/60) }
	running := func(s *snapshot, when time.Time) {
		j := jobOf(s.cron, when, "")
		s.jobs = append(s.jobs, j)
		s.cron.Status.Active = append(s.cron.Status.Active, refTo(j))
		s.cron.Status.LastScheduleTime = &metav1.Time{Time: when}
	}
	due := hour(2).Add(time.Second)
	for name, tt := range map[string]struct {
		now   time.Time
		given func(*snapshot)
		want  string
	}{
		"before the first run":           {now: now, want: "after 55m55s\n"},
		"the first run":                  {now: hour(1), want: "run 2030-01-02T04:00:00Z\nafter 1h0m0s\n"},
		"a missed run is made up for":    {now: hour(1).Add(time.Minute), want: "run 2030-01-02T04:00:00Z\nafter 59m0s\n"},
		"of several the latest":          {now: hour(9).Add(time.Minute), want: "run 2030-01-02T12:00:00Z\nafter 59m0s\n"},
		"a hundred missed":               {now: hour(100), want: "run 2030-01-06T07:00:00Z\nafter 1h0m0s\n"},
		"too many missed":                {now: hour(101), want: "run 2030-01-06T08:00:00Z\nTooManyMissedTimes too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew\nafter 1h0m0s\n"},
		"too many, but for the deadline": {now: hour(101), given: func(s *snapshot) { s.cron.Spec.StartingDeadlineSeconds = ptr.To[int64](7200) }, want: "run 2030-01-06T08:00:00Z\nafter 1h0m0s\n"},
		"within the deadline":            {now: hour(1).Add(time.Minute), given: func(s *snapshot) { s.cron.Spec.StartingDeadlineSeconds = ptr.To[int64](60) }, want: "run 2030-01-02T04:00:00Z\nafter 59m0s\n"},
		"after the deadline": {now: hour(1).Add(61 * time.Second), given: func(s *snapshot) { s.cron.Spec.StartingDeadlineSeconds = ptr.To[int64](60) },
			want: "MissSchedule Missed scheduled time to start a job: Wed, 02 Jan 2030 04:00:00 +0000\nafter 58m59s\n"},
		"every so often, with a deadline": {now: now.Add(601 * time.Second), given: func(s *snapshot) {
			s.cron.Spec.Schedule, s.cron.Spec.StartingDeadlineSeconds = "@every 10m", ptr.To[int64](5)
		}, want: "run 2030-01-02T03:14:05Z\nafter 9m59s\n"},
		"started already": {now: due, given: func(s *snapshot) { running(s, hour(2)) }, want: "active " + minutes(hour(2)) + "\nafter 59m59s\n"},
		"Allow":           {now: due, given: func(s *snapshot) { running(s, hour(1)) }, want: "run 2030-01-02T05:00:00Z\nactive " + minutes(hour(1)) + "\nafter 59m59s\n"},
		"Forbid": {now: due, given: func(s *snapshot) { running(s, hour(1)); s.cron.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent },
			want: "JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid\nactive " + minutes(hour(1)) + "\nafter 59m59s\n"},
		"Forbid, when the one before has ended": {now: due, given: func(s *snapshot) {
			running(s, hour(1))
			s.jobs[0] = jobOf(s.cron, hour(1), batchv1.JobFailed)
			s.cron.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent
		}, want: "run 2030-01-02T05:00:00Z\nSawCompletedJob Saw completed job: " + minutes(hour(1)) + ", condition: Failed\nafter 59m59s\n"},
		"Replace": {now: due, given: func(s *snapshot) { running(s, hour(1)); s.cron.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent },
			want: "replace " + minutes(hour(1)) + "\nrun 2030-01-02T05:00:00Z\nafter 59m59s\n"},
		"suspended": {now: due, given: func(s *snapshot) { s.cron.Spec.Suspend = ptr.To(true); running(s, hour(1)) }, want: "active " + minutes(hour(1)) + "\n"},
		"deleted":   {now: due, given: func(s *snapshot) { s.cron.DeletionTimestamp = &metav1.Time{Time: now}; running(s, hour(1)) }, want: "active " + minutes(hour(1)) + "\n"},
		"another schedule, by which it would have run": {now: due, given: func(s *snapshot) { s.since = due }, want: "after 59m59s\n"},
		"a zone that is not known any more": {now: due, given: func(s *snapshot) { s.cron.Spec.TimeZone = ptr.To("Mars/Olympus") },
			want: "UnknownTimeZone invalid timeZone: \"Mars/Olympus\": unknown time zone Mars/Olympus\n"},
		"a zone in the schedule": {now: hour(1), given: func(s *snapshot) { s.cron.Spec.Schedule = "TZ=Europe/Berlin 0 5 * * *" },
			want: "run 2030-01-02T04:00:00Z\nUnsupportedSchedule CRON_TZ or TZ used in schedule \"TZ=Europe/Berlin 0 5 * * *\" is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details\nafter 24h0m0s\n"},
		"no schedule": {now: due, given: func(s *snapshot) { s.cron.Spec.Schedule = "now" }, want: "UnparseableSchedule unparseable schedule: \"now\" : expected exactly 5 fields, found 1: [now]\n"},
		"no such day": {now: due, given: func(s *snapshot) { s.cron.Spec.Schedule = "0 0 31 2 *" }, want: "InvalidSchedule invalid schedule: 0 0 31 2 * : no time in the next five years fits it\n"},
		"a job that went missing": {now: now, given: func(s *snapshot) {
			s.cron.Status.Active = []corev1.ObjectReference{{Name: "gone", UID: "gone"}}
		}, want: "MissingJob Active job went missing: gone\nafter 55m55s\n"},
		"a job by hand": {now: now, given: func(s *snapshot) {
			s.jobs = []*batchv1.Job{{ObjectMeta: metav1.ObjectMeta{Name: "mine", UID: "mine"}}}
		}, want: "UnexpectedJob Saw a job that the controller did not create or forgot: mine\nafter 55m55s\n"},
		"a job that was not written down": {now: due, given: func(s *snapshot) { s.jobs = []*batchv1.Job{jobOf(s.cron, hour(2), "")} },
			want: "active " + minutes(hour(2)) + "\nafter 59m59s\n"},
		"the same, and it has ended":      {now: due, given: func(s *snapshot) { s.jobs = []*batchv1.Job{jobOf(s.cron, hour(2), batchv1.JobComplete)} }, want: "after 59m59s\n"},
		"the clock was put back a little": {now: hour(2).Add(-time.Minute), given: func(s *snapshot) { running(s, hour(2)) }, want: "active " + minutes(hour(2)) + "\nafter 1h1m0s\n"},
		"the clock was wrong by years": {now: due, given: func(s *snapshot) {
			s.cron.Status.LastScheduleTime, s.since = &metav1.Time{Time: now.AddDate(3, 0, 0)}, hour(1)
		}, want: "run 2030-01-02T05:00:00Z\nafter 59m59s\n"},
		"history": {now: due, given: func(s *snapshot) {
			s.cron.Spec.SuccessfulJobsHistoryLimit, s.cron.Spec.FailedJobsHistoryLimit = ptr.To[int32](2), ptr.To[int32](0)
			s.cron.Status.LastScheduleTime = &metav1.Time{Time: hour(2)}
			for i := range 4 {
				s.jobs = append(s.jobs, jobOf(s.cron, hour(-i), batchv1.JobComplete), jobOf(s.cron, hour(-10-i), batchv1.JobFailed))
			}
		}, want: fmt.Sprintf("remove %s\nremove %s\nremove %s\nremove %s\nremove %s\nremove %s\nafter 59m59s\n",
			minutes(hour(-3)), minutes(hour(-2)), minutes(hour(-13)), minutes(hour(-12)), minutes(hour(-11)), minutes(hour(-10)))},
	} {
		s := snapshot{cron: aCron("@hourly"), local: time.UTC, now: tt.now}
		if tt.given != nil {
			tt.given(&s)
		}
		before := s.cron.DeepCopy()
		if diff := cmp.Diff(tt.want, text(plan(s))); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if diff := cmp.Diff(before, s.cron); diff != "" {
			t.Errorf("%s: the plan writes to what it read:\n%s", name, diff)
		}
	}
}

// The time of the last success is that of whoever completed last, jobs by hand
// among them.
func TestLastSuccessfulTime(t *testing.T) {
	c := aCron("@hourly")
	first, second := jobOf(c, now, batchv1.JobComplete), jobOf(c, now.Add(time.Hour), batchv1.JobComplete)
	failed := jobOf(c, now.Add(2*time.Hour), batchv1.JobFailed)
	for _, jobs := range [][]*batchv1.Job{{first, second, failed}, {failed, second, first}} {
		d := plan(snapshot{cron: c, jobs: jobs, local: time.UTC, now: now})
		if got := d.status.LastSuccessfulTime; !got.Equal(second.Status.CompletionTime) {
			t.Errorf("last success at %v", got)
		}
	}
	if slices.ContainsFunc(plan(snapshot{cron: c, jobs: []*batchv1.Job{failed}, local: time.UTC, now: now}).notes, func(n note) bool { return n.reason == "UnexpectedJob" }) {
		t.Error("a finished job is unexpected")
	}
}

// Names and annotations of jobs: documentation, "CronJob".
func TestNewJob(t *testing.T) {
	c := zoned("@hourly", "America/New_York")
	c.Spec.JobTemplate = batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}},
		Spec:       batchv1.JobSpec{Parallelism: ptr.To[int32](3)},
	}
	j, err := newJob(c, at("2030-01-02 04:00:00"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"c": "d", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2030-01-01T23:00:00-05:00"}
	if j.Name != "tidy-31559280" || j.Labels["a"] != "b" || !cmp.Equal(j.Annotations, want) || *j.Spec.Parallelism != 3 || !metav1.IsControlledBy(j, c) {
		t.Errorf("the job is %+v", j)
	}
	if when, ours := scheduledFor(c, j); !ours || !when.Equal(at("2030-01-02 04:00:00")) {
		t.Errorf("it is for %s, ours: %v", when, ours)
	}
	if c.Spec.JobTemplate.Annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] != "" {
		t.Error("the template was written to")
	}
}
