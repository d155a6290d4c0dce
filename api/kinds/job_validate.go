package kinds

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	maxIndexedParallelism = 100_000
	maxFailedIndexes      = 100_000

	// manyCompletions is where an indexed job gets tighter limits.
	manyCompletions = 100_000
	highParallelism = 10_000

	maxManagedBy = 63
)

func validateJob(j *batchv1.Job) field.ErrorList {
	errs := validateGeneratedSelector(j)
	errs = append(errs, validateJobSpec(&j.Spec, nil, field.NewPath("spec"))...)
	errs = append(errs, validateJobSelector(&j.Spec, field.NewPath("spec"))...)
	return append(errs, validatePodHostname(j)...)
}

// validateJobUpdate keeps what a running job's bookkeeping depends on.
func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	path, spec, was := field.NewPath("spec"), &j.Spec, &old.Spec
	errs := validateJobSpec(spec, &was.Template, path)
	errs = append(errs, validateJobSelector(spec, path)...)
	errs = append(errs, validateCompletionsUpdate(j, old, path.Child("completions"))...)
	errs = append(errs, unchanged(spec.Selector, was.Selector, path.Child("selector"))...)
	errs = append(errs, validateJobTemplateUpdate(j, old, path.Child("template"))...)
	errs = append(errs, unchanged(spec.CompletionMode, was.CompletionMode, path.Child("completionMode"))...)
	errs = append(errs, unchanged(spec.PodFailurePolicy, was.PodFailurePolicy, path.Child("podFailurePolicy"))...)
	errs = append(errs, unchanged(spec.BackoffLimitPerIndex, was.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, unchanged(spec.ManagedBy, was.ManagedBy, path.Child("managedBy"))...)
	errs = append(errs, unchanged(spec.SuccessPolicy, was.SuccessPolicy, path.Child("successPolicy"))...)
	return append(errs, validatePodHostname(j)...)
}

// validatePodHostname makes sure that the last index still fits into the
// hostname of its pod.
func validatePodHostname(j *batchv1.Job) field.ErrorList {
	completions := ptr.Deref(j.Spec.Completions, 0)
	if !isIndexed(j) || completions <= 0 {
		return nil
	}
	hostname := fmt.Sprintf("%s-%d", j.Name, completions-1)
	if len(validation.IsDNS1123Label(hostname)) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), j.Name, "will not able to create pod with invalid DNS label: "+hostname)}
}

// validateGeneratedSelector checks what prepareJob made, if the user left it to
// us.
func validateGeneratedSelector(j *batchv1.Job) field.ErrorList {
	if isTrue(j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	expected := generatedLabels(j)
	for _, label := range []string{legacyControllerUIDLabel, legacyJobNameLabel, batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		want := expected[label]
		at := field.NewPath("spec", "template", "metadata", "labels").Key(label)
		if value, ok := j.Spec.Template.Labels[label]; !ok {
			errs = append(errs, field.Required(at, fmt.Sprintf("must be '%s'", want)))
		} else if value != want {
			errs = append(errs, field.Invalid(at, j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want)))
		}
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(labels.Set(expected)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateJobSpec checks all but the selector, which a template for jobs has
// not; oldTemplate is what the template of the pods replaces, if anything.
func validateJobSpec(spec *batchv1.JobSpec, oldTemplate *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := validateJobNumbers(spec, path)
	if by := spec.ManagedBy; by != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(path.Child("managedBy"), *by)...)
		if len(*by) > maxManagedBy {
			errs = append(errs, field.TooLong(path.Child("managedBy"), "", maxManagedBy))
		}
	}
	errs = append(errs, validateCompletionMode(spec, path)...)
	if spec.PodFailurePolicy != nil {
		errs = append(errs, validatePodFailurePolicy(spec, path.Child("podFailurePolicy", "rules"))...)
	}
	if spec.SuccessPolicy != nil {
		if indexed(spec) {
			errs = append(errs, validateSuccessPolicy(spec, path.Child("successPolicy", "rules"))...)
		} else {
			errs = append(errs, field.Invalid(path.Child("successPolicy"), *spec.SuccessPolicy, "requires indexed completion mode"))
		}
	}
	errs = append(errs, validateReplacementPolicy(spec, path.Child("podReplacementPolicy"))...)
	errs = append(errs, validateTemplate(&spec.Template, oldTemplate, path.Child("template"))...)
	return append(errs, validateJobRestartPolicy(spec, path.Child("template", "spec", "restartPolicy"))...)
}

func validateJobSelector(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

func validateJobNumbers(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	errs := nonNegative(path,
		counter{"parallelism", int64(ptr.Deref(spec.Parallelism, 0))},
		counter{"completions", int64(ptr.Deref(spec.Completions, 0))},
		counter{"activeDeadlineSeconds", ptr.Deref(spec.ActiveDeadlineSeconds, 0)},
		counter{"backoffLimit", int64(ptr.Deref(spec.BackoffLimit, 0))},
		counter{"ttlSecondsAfterFinished", int64(ptr.Deref(spec.TTLSecondsAfterFinished, 0))},
		counter{"backoffLimitPerIndex", int64(ptr.Deref(spec.BackoffLimitPerIndex, 0))},
		counter{"maxFailedIndexes", int64(ptr.Deref(spec.MaxFailedIndexes, 0))})
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	return errs
}

func validateCompletionMode(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	modes := []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}
	switch mode := ptr.Deref(spec.CompletionMode, batchv1.NonIndexedCompletion); mode {
	case batchv1.IndexedCompletion:
		errs = append(errs, validateIndexed(spec, path)...)
	case batchv1.NonIndexedCompletion:
		if spec.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
		if spec.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, "requires indexed completion mode"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("completionMode"), mode, modes))
	}
	return errs
}

func validateIndexed(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	parallelism, failed := path.Child("parallelism"), path.Child("maxFailedIndexes")
	if spec.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
	}
	if p := ptr.Deref(spec.Parallelism, 0); p > maxIndexedParallelism {
		errs = append(errs, field.Invalid(parallelism, p, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxIndexedParallelism, batchv1.IndexedCompletion)))
	}
	if limit := spec.MaxFailedIndexes; limit != nil {
		if spec.Completions != nil && *limit > *spec.Completions {
			errs = append(errs, field.Invalid(failed, *limit, "must be less than or equal to completions"))
		}
		if *limit > maxFailedIndexes {
			errs = append(errs, field.Invalid(failed, *limit, fmt.Sprintf("must be less than or equal to %d", maxFailedIndexes)))
		}
	}
	if ptr.Deref(spec.Completions, 0) <= manyCompletions || spec.BackoffLimitPerIndex == nil {
		return errs
	}
	tight := fmt.Sprintf("must be less than or equal to %d when completions are above %d and used with backoff limit per index", highParallelism, manyCompletions)
	if spec.MaxFailedIndexes == nil {
		errs = append(errs, field.Required(failed, fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	} else if *spec.MaxFailedIndexes > highParallelism {
		errs = append(errs, field.Invalid(failed, *spec.MaxFailedIndexes, tight))
	}
	if p := ptr.Deref(spec.Parallelism, 0); p > highParallelism {
		errs = append(errs, field.Invalid(parallelism, p, tight))
	}
	return errs
}

func validateReplacementPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if spec.PodReplacementPolicy == nil {
		return nil
	}
	allowed := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
	if spec.PodFailurePolicy != nil {
		allowed = allowed[:1]
	}
	if slices.Contains(allowed, *spec.PodReplacementPolicy) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *spec.PodReplacementPolicy, allowed)}
}

// validateJobRestartPolicy treats Always as missing, because it is the default.
func validateJobRestartPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	switch policy := spec.Template.Spec.RestartPolicy; policy {
	case corev1.RestartPolicyAlways, "":
		return field.ErrorList{field.Required(path, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case corev1.RestartPolicyNever:
	case corev1.RestartPolicyOnFailure:
		if spec.PodFailurePolicy != nil {
			return field.ErrorList{field.Invalid(path, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
		}
	default:
		return field.ErrorList{field.NotSupported(path, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	}
	return nil
}

// validateCompletionsUpdate lets an indexed job grow and shrink together with
// its parallelism.
func validateCompletionsUpdate(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	if !isIndexed(j) {
		return unchanged(j.Spec.Completions, old.Spec.Completions, path)
	}
	if j.Spec.Completions == nil || ptr.Equal(j.Spec.Completions, old.Spec.Completions) || ptr.Equal(j.Spec.Completions, j.Spec.Parallelism) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *j.Spec.Completions, fmt.Sprintf("can only be modified in tandem with %s", path.Root().Child("parallelism")))}
}

// validateJobTemplateUpdate lets the scheduling directives and resources of a
// suspended job's pods change, as long as none runs: queues decide late where
// and how big.
func validateJobTemplateUpdate(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	if !isIdle(old) {
		return unchanged(j.Spec.Template, old.Spec.Template, path)
	}
	spec, allowed := &j.Spec.Template.Spec, old.Spec.Template.Spec.DeepCopy()
	allowSchedulingDirectives(allowed, spec)
	allowResources(allowed.Containers, spec.Containers)
	allowResources(allowed.InitContainers, spec.InitContainers)
	return unchanged(*spec, *allowed, path.Child("spec"))
}

// isIdle says whether a job is suspended and has not started, or has stopped.
func isIdle(j *batchv1.Job) bool {
	return isTrue(j.Spec.Suspend) && j.Status.Active == 0 &&
		(j.Status.StartTime == nil || hasJobCondition(j, batchv1.JobSuspended))
}

func allowSchedulingDirectives(allowed, wanted *corev1.PodSpec) {
	switch {
	case wanted.Affinity == nil && allowed.Affinity != nil:
		allowed.Affinity.NodeAffinity = nil
		if *allowed.Affinity == (corev1.Affinity{}) {
			allowed.Affinity = nil
		}
	case wanted.Affinity != nil:
		if allowed.Affinity == nil {
			allowed.Affinity = &corev1.Affinity{}
		}
		allowed.Affinity.NodeAffinity = wanted.Affinity.NodeAffinity
	}
	allowed.NodeSelector = wanted.NodeSelector
	allowed.Tolerations = wanted.Tolerations
	allowed.SchedulingGates = wanted.SchedulingGates
}

func allowResources(allowed, wanted []corev1.Container) {
	if len(allowed) != len(wanted) {
		return
	}
	for i := range allowed {
		if allowed[i].Name == wanted[i].Name {
			allowed[i].Resources = wanted[i].Resources
		}
	}
}
