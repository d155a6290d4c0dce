package kinds

import (
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func cronJob() *api.Resource {
	gv := batchv1.SchemeGroupVersion
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	return stored[batchv1.CronJob, *batchv1.CronJob, batchv1.CronJobList](gv, &api.Resource{
		Plural:     "cronjobs",
		Singular:   "cronjob",
		Kind:       "CronJob",
		ShortNames: []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "cronjobs",
		Default:    on(defaultCronJob),
		PrepareCreate: on(func(c *batchv1.CronJob) {
			prepareJobSpec(&c.Spec.JobTemplate.Spec, nil)
			c.Status = batchv1.CronJobStatus{}
			c.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(c, old *batchv1.CronJob) {
			defaultCronJob(c)
			prepareJobSpec(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec)
			c.Status = *old.Status.DeepCopy()
			countChange(c, old, c.Spec, old.Spec)
		}),
		Validate:                 validates(validateCronJob),
		ValidateUpdate:           validatesUpdate(func(c, old *batchv1.CronJob) field.ErrorList { return validateCronJobSpec(&c.Spec, &old.Spec) }),
		Warnings:                 warns(warnCronJob),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Schedule", "string", spec["schedule"]),
					column("Timezone", "string", spec["timeZone"]),
					column("Suspend", "boolean", spec["suspend"]),
					column("Active", "integer", status["active"]),
					column("Last Schedule", "string", status["lastScheduleTime"]),
					ageColumn(),
				},
				containerColumns(),
				[]metav1.TableColumnDefinition{wideColumn("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"])},
			),
			Row: cells(cronJobCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(c, old *batchv1.CronJob) { c.Spec = *old.Spec.DeepCopy() }),
				// Kubernetes takes any status.
				ValidateUpdate: validatesUpdate(func(_, _ *batchv1.CronJob) field.ErrorList { return nil }),
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

// defaultCronJob leaves the defaults of jobs to the jobs, but for what is about
// their pods.
func defaultCronJob(c *batchv1.CronJob) {
	spec := &c.Spec
	if spec.ConcurrencyPolicy == "" {
		spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	if spec.Suspend == nil {
		spec.Suspend = ptr.To(false)
	}
	if spec.SuccessfulJobsHistoryLimit == nil {
		spec.SuccessfulJobsHistoryLimit = ptr.To[int32](3)
	}
	if spec.FailedJobsHistoryLimit == nil {
		spec.FailedJobsHistoryLimit = ptr.To[int32](1)
	}
	pod.DefaultTemplate(&spec.JobTemplate.Spec.Template)
	defaultFailurePolicy(spec.JobTemplate.Spec.PodFailurePolicy)
}

func warnCronJob(c, old *batchv1.CronJob) []string {
	var warnings []string
	if old == nil {
		warnings = warnPodName(c.Name)
	}
	if old == nil || c.Generation != old.Generation {
		warnings = append(warnings, warnJobSpec(&c.Spec.JobTemplate.Spec, field.NewPath("spec", "jobTemplate", "spec"))...)
	}
	if old != nil && strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, fmt.Sprintf("cannot use TZ or CRON_TZ in %s, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
			field.NewPath("spec", "spec", "schedule")))
	}
	return warnings
}

func cronJobCells(c *batchv1.CronJob, now time.Time) []any {
	last := unset
	if c.Status.LastScheduleTime != nil {
		last = age(*c.Status.LastScheduleTime, now)
	}
	suspend := "<unset>"
	if c.Spec.Suspend != nil {
		suspend = "False"
		if *c.Spec.Suspend {
			suspend = "True"
		}
	}
	job := &c.Spec.JobTemplate.Spec
	names, images := containerCells(&job.Template)
	return []any{c.Name, c.Spec.Schedule, ptr.Deref(c.Spec.TimeZone, unset), suspend, int64(len(c.Status.Active)), last,
		age(c.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(job.Selector)}
}
