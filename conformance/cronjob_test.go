package conformance

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

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
