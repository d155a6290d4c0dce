package kinds

import (
	"fmt"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// Labels that pods of jobs had before those with a domain.
const (
	legacyJobNameLabel       = "job-name"
	legacyControllerUIDLabel = "controller-uid"
)

func job() *api.Resource {
	gv := batchv1.SchemeGroupVersion
	return stored[batchv1.Job, *batchv1.Job, batchv1.JobList](gv, &api.Resource{
		Plural:        "jobs",
		Singular:      "job",
		Kind:          "Job",
		Categories:    []string{"all"},
		Namespaced:    true,
		Prefix:        "jobs",
		Default:       on(defaultJob),
		PrepareCreate: on(prepareJob),
		PrepareUpdate: onUpdate(func(j, old *batchv1.Job) {
			defaultJob(j)
			prepareJobSpec(&j.Spec, &old.Spec)
			j.Status = *old.Status.DeepCopy()
			if old.Spec.Scheduling == nil { // WorkloadWithJob
				j.Spec.Scheduling = nil
			}
			countChange(j, old, j.Spec, old.Spec)
		}),
		Canonicalize:             on(labelJob),
		Validate:                 validates(validateJob),
		ValidateUpdate:           validatesUpdate(validateJobUpdate),
		Warnings:                 warns(warnJob),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		// batch/v1 keeps the pods of a deleted job unless told otherwise; kubectl
		// does tell.
		DefaultPropagation: ptr.To(metav1.DeletePropagationOrphan),
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Status", "string", "Status of the job."),
					column("Completions", "string", batchv1.JobStatus{}.SwaggerDoc()["succeeded"]),
					column("Duration", "string", "Time required to complete the job."),
					ageColumn(),
				},
				containerColumns(),
				[]metav1.TableColumnDefinition{wideColumn("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"])},
			),
			Row: cells(jobCells),
		},
		FieldLabels:  []string{"status.successful"},
		FieldRefusal: "field label %q not supported for Job",
		Fields: selects(func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(func(j, old *batchv1.Job) { j.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(validateJobStatus),
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

// labelJob labels a job without labels as its pods. The map is one, so that the
// labels that prepareJob gives the pods are the job's as well, as they are in
// Kubernetes.
func labelJob(j *batchv1.Job) {
	if len(j.Labels) == 0 && len(j.Spec.Template.Labels) > 0 {
		j.Labels = j.Spec.Template.Labels
	}
}

func defaultJob(j *batchv1.Job) {
	spec := &j.Spec
	pod.DefaultTemplate(&spec.Template)
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = ptr.To[int32](1)
	}
	if spec.Parallelism == nil {
		spec.Parallelism = ptr.To[int32](1)
	}
	if spec.BackoffLimit == nil {
		spec.BackoffLimit = ptr.To[int32](6)
		if spec.BackoffLimitPerIndex != nil {
			spec.BackoffLimit = ptr.To[int32](math.MaxInt32)
		}
	}
	labelJob(j)
	if spec.CompletionMode == nil {
		spec.CompletionMode = ptr.To(batchv1.NonIndexedCompletion)
	}
	if spec.Suspend == nil {
		spec.Suspend = ptr.To(false)
	}
	if spec.PodReplacementPolicy == nil {
		spec.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
		if spec.PodFailurePolicy != nil {
			spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
		}
	}
	if spec.ManualSelector == nil {
		spec.ManualSelector = ptr.To(false)
	}
	defaultFailurePolicy(spec.PodFailurePolicy)
}

func defaultFailurePolicy(policy *batchv1.PodFailurePolicy) {
	if policy == nil {
		return
	}
	for i := range policy.Rules {
		for k := range policy.Rules[i].OnPodConditions {
			if pattern := &policy.Rules[i].OnPodConditions[k]; pattern.Status == "" {
				pattern.Status = corev1.ConditionTrue
			}
		}
	}
}

// prepareJobSpec drops what belongs to a feature that is off by default (gang
// scheduling by workloads), unless the old spec has it; old is nil on create.
func prepareJobSpec(spec, old *batchv1.JobSpec) {
	if old == nil || old.Scheduling == nil {
		spec.Scheduling = nil
	}
	if old == nil {
		pod.PrepareTemplate(&spec.Template, nil)
	} else {
		pod.PrepareTemplate(&spec.Template, &old.Template)
	}
}

// prepareJob gives the job a selector that no other job's pods match, by its
// UID, which the server must have set before. What the user wrote in these
// labels stays; validation refuses it if it is wrong.
func prepareJob(j *batchv1.Job) {
	defaultJob(j)
	prepareJobSpec(&j.Spec, nil)
	j.Status = batchv1.JobStatus{}
	j.Spec.Scheduling = nil // WorkloadWithJob
	j.Generation = 1
	if isTrue(j.Spec.ManualSelector) {
		return
	}
	template := &j.Spec.Template
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	for label, value := range generatedLabels(j) {
		if _, set := template.Labels[label]; !set {
			template.Labels[label] = value
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, set := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !set {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

func generatedLabels(j *batchv1.Job) map[string]string {
	return map[string]string{
		legacyJobNameLabel:         j.Name,
		batchv1.JobNameLabel:       j.Name,
		legacyControllerUIDLabel:   string(j.UID),
		batchv1.ControllerUidLabel: string(j.UID),
	}
}

func warnJob(j, old *batchv1.Job) []string {
	var warnings []string
	if old == nil {
		warnings = warnPodName(j.Name)
	} else if j.Generation == old.Generation {
		return nil
	}
	return append(warnings, warnJobSpec(&j.Spec, field.NewPath("spec"))...)
}

func warnJobSpec(spec *batchv1.JobSpec, path *field.Path) []string {
	var warnings []string
	if indexed(spec) && ptr.Deref(spec.Completions, 0) > manyCompletions && ptr.Deref(spec.Parallelism, 0) > highParallelism {
		warnings = append(warnings, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", path))
	}
	return append(warnings, pod.TemplateWarnings(&spec.Template, path.Child("template"))...)
}

func isIndexed(j *batchv1.Job) bool { return indexed(&j.Spec) }

func indexed(spec *batchv1.JobSpec) bool {
	return ptr.Deref(spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion
}

func hasJobCondition(j *batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

func jobCells(j *batchv1.Job, now time.Time) []any {
	names, images := containerCells(&j.Spec.Template)
	return []any{j.Name, jobState(j), jobCompletions(j), jobDuration(j, now), age(j.CreationTimestamp, now),
		names, images, metav1.FormatLabelSelector(j.Spec.Selector)}
}

func jobState(j *batchv1.Job) string {
	switch {
	case hasJobCondition(j, batchv1.JobComplete):
		return "Complete"
	case hasJobCondition(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case hasJobCondition(j, batchv1.JobSuspended):
		return "Suspended"
	case hasJobCondition(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	case hasJobCondition(j, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobCompletions(j *batchv1.Job) string {
	switch parallelism := ptr.Deref(j.Spec.Parallelism, 0); {
	case j.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallelism > 1:
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallelism)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func jobDuration(j *batchv1.Job, now time.Time) string {
	start, end := j.Status.StartTime, j.Status.CompletionTime
	switch {
	case start == nil:
		return ""
	case end == nil:
		return duration.HumanDuration(now.Sub(start.Time))
	}
	return duration.HumanDuration(end.Sub(start.Time))
}
