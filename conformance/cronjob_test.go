package conformance

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Documentation: "CronJob", "Schedule syntax", "Time zones". What cannot be kept is
// refused with a reason; with what is accepted there is no warning.
func TestCronJobSchedules(t *testing.T) {
	ns := namespace(t)
	body := func(spec string) string {
		return "metadata: {name: c}\nspec: {" + spec + ", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}"
	}
	for _, spec := range []string{
		`schedule: "0 3 29 2 *"`, `schedule: "@yearly"`, `schedule: "@every 8760h"`, `schedule: "5-59/25 0,12 1 JAN-mar ?", timeZone: Asia/Kolkata`,
		`schedule: "0 0 1 1 *", timeZone: America/Argentina/Buenos_Aires, concurrencyPolicy: Replace, startingDeadlineSeconds: 10`,
	} {
		var c batchv1.CronJob
		answer := admin.want(t, http.StatusCreated, call{method: "POST", path: under("batch/v1", "cronjobs", ns), body: body(spec)}, &c)
		if got := answer.header.Values("Warning"); len(got) > 0 {
			t.Errorf("%s: %v", spec, got)
		}
		admin.want(t, http.StatusOK, call{method: "DELETE", path: under("batch/v1", "cronjobs", ns, "c")}, nil)
	}
	for spec, message := range map[string]string{
		`schedule: "61 * * * *"`:                             "spec.schedule: Invalid value",
		`schedule: "* * * *"`:                                "expected exactly 5 fields, found 4",
		`schedule: "@fortnightly"`:                           "unrecognized descriptor: @fortnightly",
		`schedule: "TZ=UTC * * * * *"`:                       "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
		`schedule: "* * * * *", timeZone: Mars/Olympus`:      "unknown time zone Mars/Olympus",
		`schedule: "* * * * *", timeZone: Local`:             "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
		`schedule: "* * * * *", timeZone: ""`:                "timeZone must be nil or non-empty string",
		`schedule: "* * * * *", concurrencyPolicy: Never`:    `supported values: "Allow", "Forbid", "Replace"`,
		`schedule: "* * * * *", startingDeadlineSeconds: -1`: "spec.startingDeadlineSeconds: Invalid value",
	} {
		admin.do(t, call{method: "POST", path: under("batch/v1", "cronjobs", ns), body: body(spec)}).refused(t, 422, metav1.StatusReasonInvalid, message)
	}
}

// A CronJob starts jobs, and none while it is suspended.
func TestCronJobStartsJobs(t *testing.T) {
	ns := namespace(t)
	for _, name := range []string{"started", "suspended"} {
		spec := `schedule: "@every 1s", suspend: ` + strconv.FormatBool(name == "suspended")
		admin.want(t, http.StatusCreated, call{method: "POST", path: under("batch/v1", "cronjobs", ns),
			body: "metadata: {name: " + name + "}\nspec: {" + spec + ", jobTemplate: {metadata: {labels: {from: " + name + "}}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}"}, nil)
	}
	var c batchv1.CronJob
	eventually(t, "a job is active", func() bool {
		admin.want(t, http.StatusOK, call{path: under("batch/v1", "cronjobs", ns, "started")}, &c)
		return len(c.Status.Active) > 0 && c.Status.LastScheduleTime != nil
	})
	var jobs batchv1.JobList
	admin.want(t, http.StatusOK, call{path: under("batch/v1", "jobs", ns)}, &jobs)
	for _, j := range jobs.Items {
		if j.Labels["from"] != "started" || !strings.HasPrefix(j.Name, "started-") || !metav1.IsControlledBy(&j, &c) {
			t.Errorf("job %s has labels %v and owners %v", j.Name, j.Labels, j.OwnerReferences)
		}
	}
}

// A missedRun is a CronJob whose last run is said to be long ago, so that it has one
// to make up for at once, whatever its schedule. Its jobs are suspended.
func missedRun(t *testing.T, ns, name, spec string, ago time.Duration) {
	t.Helper()
	admin.want(t, http.StatusCreated, call{method: "POST", path: under("batch/v1", "cronjobs", ns),
		body: "metadata: {name: " + name + "}\nspec: {" + spec + ", suspend: true, jobTemplate: {spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}"}, nil)
	last := time.Now().Add(-ago).UTC().Format(time.RFC3339)
	admin.want(t, http.StatusOK, call{method: "PATCH", path: under("batch/v1", "cronjobs", ns, name, "status"), contentType: mergePatch, body: `{"status":{"lastScheduleTime":"` + last + `"}}`}, nil)
	admin.want(t, http.StatusOK, call{method: "PATCH", path: under("batch/v1", "cronjobs", ns, name), contentType: mergePatch, body: `{"spec":{"suspend":false}}`}, nil)
}

// scheduledFor are the times for which a CronJob has jobs.
func scheduledFor(t *testing.T, ns, name string) (times []string) {
	t.Helper()
	list, err := kube.BatchV1().Jobs(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range list.Items {
		if ref := metav1.GetControllerOf(&j); ref != nil && ref.Name == name {
			times = append(times, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
		}
	}
	return times
}

// latest is the last minute before now of which is holds, in a zone.
func latest(zone *time.Location, is func(time.Time) bool) string {
	at := time.Now().In(zone).Truncate(time.Minute)
	for !is(at) {
		at = at.Add(-time.Minute)
	}
	return at.Format(time.RFC3339)
}

// Documentation: "CronJob", "Schedule syntax", "Time zones": macros, steps, ranges,
// lists, names, days of either kind, and zones. Of the runs that were missed the
// latest is made up for, and that is the one that a look at each minute finds.
func TestCronJobRunsBySchedule(t *testing.T) {
	ns := namespace(t)
	day := func(t time.Time, hour, minute int) bool { return t.Hour() == hour && t.Minute() == minute }
	for i, c := range []struct {
		schedule, zone string
		is             func(time.Time) bool
	}{
		{"@yearly", "Europe/Berlin", func(t time.Time) bool { return day(t, 0, 0) && t.YearDay() == 1 }},
		{"@annually", "UTC", func(t time.Time) bool { return day(t, 0, 0) && t.YearDay() == 1 }},
		{"@monthly", "Asia/Kolkata", func(t time.Time) bool { return day(t, 0, 0) && t.Day() == 1 }},
		{"@weekly", "America/New_York", func(t time.Time) bool { return day(t, 0, 0) && t.Weekday() == time.Sunday }},
		{"@daily", "Pacific/Auckland", func(t time.Time) bool { return day(t, 0, 0) }},
		{"@midnight", "America/Los_Angeles", func(t time.Time) bool { return day(t, 0, 0) }},
		{"@hourly", "Asia/Kathmandu", func(t time.Time) bool { return t.Minute() == 0 }},
		{"*/20 * * * *", "UTC", func(t time.Time) bool { return t.Minute()%20 == 0 }},
		{"5-59/25 3 * * *", "UTC", func(t time.Time) bool { return t.Hour() == 3 && t.Minute()%25 == 5 }},
		{"0 12 1,15 MAR-apr ?", "UTC", func(t time.Time) bool {
			return day(t, 12, 0) && (t.Day() == 1 || t.Day() == 15) && (t.Month() == time.March || t.Month() == time.April)
		}},
		{"0 9 * * MON-FRI", "America/New_York", func(t time.Time) bool {
			return day(t, 9, 0) && t.Weekday() != time.Saturday && t.Weekday() != time.Sunday
		}},
		{"30 6-16/4 * jan,JUL sun", "Asia/Tokyo", func(t time.Time) bool {
			return t.Minute() == 30 && (t.Hour() == 6 || t.Hour() == 10 || t.Hour() == 14) && t.Weekday() == time.Sunday && (t.Month() == time.January || t.Month() == time.July)
		}},
		{"0 0 13 * 5", "UTC", func(t time.Time) bool { return day(t, 0, 0) && (t.Day() == 13 || t.Weekday() == time.Friday) }},
		{"0 0 29 2 *", "UTC", func(t time.Time) bool { return day(t, 0, 0) && t.Day() == 29 && t.Month() == time.February }},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		name, before := "c"+strconv.Itoa(i), latest(zone, c.is)
		missedRun(t, ns, name, `schedule: "`+c.schedule+`", timeZone: `+c.zone, 9*366*24*time.Hour)
		var got []string
		eventually(t, c.schedule+" has a job", func() bool {
			got = scheduledFor(t, ns, name)
			return len(got) > 0
		})
		if after := latest(zone, c.is); !slices.Contains(got, before) && !slices.Contains(got, after) {
			t.Errorf("%s in %s has jobs for %v, want one for %s", c.schedule, c.zone, got, after)
		}
	}
}

// Documentation: "CronJob", "Deadline for delayed Job start", "Job suspension", and
// what is said of more than 100 missed schedules.
func TestCronJobMissedRuns(t *testing.T) {
	ns := namespace(t)
	missedRun(t, ns, "late", `schedule: "@yearly", timeZone: UTC, startingDeadlineSeconds: 10`, 3*366*24*time.Hour)
	missedRun(t, ns, "intime", `schedule: "@yearly", timeZone: UTC, startingDeadlineSeconds: 40000000`, 3*366*24*time.Hour)
	missedRun(t, ns, "many", `schedule: "* * * * *", timeZone: UTC`, 24*time.Hour)
	// Within the deadline there are not many that were missed.
	missedRun(t, ns, "few", `schedule: "* * * * *", timeZone: UTC, startingDeadlineSeconds: 300`, 24*time.Hour)
	said := func(name, reason string) (messages []string) {
		list, err := kube.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=CronJob,involvedObject.name=" + name + ",reason=" + reason})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			messages = append(messages, e.Type+" "+e.Message)
		}
		return messages
	}
	for _, c := range []struct{ name, reason, message string }{
		{"late", "MissSchedule", "Warning Missed scheduled time to start a job: "},
		{"many", "TooManyMissedTimes", "Warning too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"},
		{"intime", "SuccessfulCreate", "Normal Created job intime-"},
		{"many", "SuccessfulCreate", "Normal Created job many-"},
		{"few", "SuccessfulCreate", "Normal Created job few-"},
	} {
		eventually(t, "an event "+c.reason+" of "+c.name, func() bool {
			return slices.ContainsFunc(said(c.name, c.reason), func(m string) bool { return strings.HasPrefix(m, c.message) })
		})
	}
	if got := scheduledFor(t, ns, "late"); len(got) > 0 {
		t.Errorf("the late one has jobs for %v", got)
	}
	if got := said("few", "TooManyMissedTimes"); len(got) > 0 {
		t.Errorf("of few it is said %v", got)
	}
}
