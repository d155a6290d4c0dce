package kinds

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every machine; the system's come first

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// maxCronJobName leaves room for the time that is appended to the names of its
// jobs, which are labels.
const maxCronJobName = 52

// zonePart is what the names of time zones consist of, between slashes.
var zonePart = regexp.MustCompile(`^[A-Za-z\.\-_0-9+]{1,14}$`)

// ParseSchedule reads the schedule of a cron job: five fields, or a descriptor
// such as @hourly.
func ParseSchedule(text string) (schedule cron.Schedule, err error) {
	// The parser panics at times, for one at "TZ=0".
	defer func() {
		if r := recover(); r != nil {
			schedule, err = nil, fmt.Errorf("invalid schedule format: %v", r)
		}
	}()
	return cron.ParseStandard(text)
}

func validateCronJob(c *batchv1.CronJob) field.ErrorList {
	errs := validateCronJobSpec(&c.Spec, nil)
	if len(c.Name) > maxCronJobName {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, fmt.Sprintf("must be no more than %d characters", maxCronJobName)))
	}
	return errs
}

// validateCronJobSpec checks a spec; old is nil on create. Zones that were let
// in stay, although they may since have got unknown.
func validateCronJobSpec(spec, old *batchv1.CronJobSpec) field.ErrorList {
	path := field.NewPath("spec")
	var oldTemplate *corev1.PodTemplateSpec
	zoneInSchedule := false
	if old != nil {
		oldTemplate = &old.JobTemplate.Spec.Template
		zoneInSchedule = strings.Contains(old.Schedule, "TZ")
	}
	errs := validateSchedule(spec, zoneInSchedule, path.Child("schedule"))
	errs = append(errs, nonNegative(path, counter{"startingDeadlineSeconds", ptr.Deref(spec.StartingDeadlineSeconds, 0)})...)
	if spec.TimeZone != nil && (old == nil || !ptr.Equal(spec.TimeZone, old.TimeZone)) {
		errs = append(errs, validateTimeZone(*spec.TimeZone, path.Child("timeZone"))...)
	}
	errs = append(errs, oneOf(spec.ConcurrencyPolicy, path.Child("concurrencyPolicy"),
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)

	at, job := path.Child("jobTemplate", "spec"), &spec.JobTemplate.Spec
	errs = append(errs, validateJobSpec(job, oldTemplate, at)...)
	if job.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), job.Selector, "`selector` will be auto-generated"))
	}
	if isTrue(job.ManualSelector) {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), job.ManualSelector, []string{"nil", "false"}))
	}
	return append(errs, nonNegative(path,
		counter{"successfulJobsHistoryLimit", int64(ptr.Deref(spec.SuccessfulJobsHistoryLimit, 0))},
		counter{"failedJobsHistoryLimit", int64(ptr.Deref(spec.FailedJobsHistoryLimit, 0))})...)
}

// validateSchedule refuses a zone within the schedule, unless the old schedule
// had one before there was a field for it.
func validateSchedule(spec *batchv1.CronJobSpec, zoneAllowed bool, path *field.Path) field.ErrorList {
	if spec.Schedule == "" {
		return field.ErrorList{field.Required(path, "").MarkBeta()}
	}
	var errs field.ErrorList
	if _, err := ParseSchedule(spec.Schedule); err != nil {
		errs = append(errs, field.Invalid(path, spec.Schedule, err.Error()))
	}
	switch {
	case !strings.Contains(spec.Schedule, "TZ"):
	case !zoneAllowed:
		errs = append(errs, field.Invalid(path, spec.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case spec.TimeZone != nil:
		errs = append(errs, field.Invalid(path, spec.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	}
	return errs
}

func validateTimeZone(zone string, path *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(path, zone, "timeZone must be nil or non-empty string")}
	}
	for _, part := range strings.Split(zone, "/") {
		if part == "." || part == ".." || strings.HasPrefix(part, "-") || !zonePart.MatchString(part) {
			return field.ErrorList{field.Invalid(path, zone, "unknown time zone "+zone)}
		}
	}
	var errs field.ErrorList
	if strings.EqualFold(zone, "Local") {
		errs = append(errs, field.Invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(zone); err != nil {
		errs = append(errs, field.Invalid(path, zone, err.Error()))
	}
	return errs
}
