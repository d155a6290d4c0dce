package kinds

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/onfailure"
)

func daemonSet() *api.Resource {
	gv := appsv1.SchemeGroupVersion
	status := appsv1.DaemonSetStatus{}.SwaggerDoc()
	return stored[appsv1.DaemonSet, *appsv1.DaemonSet, appsv1.DaemonSetList](gv, &api.Resource{
		Plural:     "daemonsets",
		Singular:   "daemonset",
		Kind:       "DaemonSet",
		ShortNames: []string{"ds"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "daemonsets",
		Parse:      parses(parseDaemonSet),
		Default:    on(defaultDaemonSet),
		PrepareCreate: on(func(ds *appsv1.DaemonSet) {
			pod.PrepareTemplate(&ds.Spec.Template, nil)
			ds.Status = appsv1.DaemonSetStatus{}
			ds.Generation = 1
			setTemplateGeneration(ds, max(templateGeneration(ds), 1))
		}),
		PrepareUpdate: onUpdate(prepareDaemonSetUpdate),
		Validate: validates(func(ds *appsv1.DaemonSet) field.ErrorList {
			return append(validateDaemonSet(&ds.Spec, nil), onfailure.Validate(ds.Annotations, nil, "")...)
		}),
		ValidateUpdate: validatesUpdate(func(ds, old *appsv1.DaemonSet) field.ErrorList {
			errs := unchanged(ds.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))
			errs = append(errs, validateDaemonSet(&ds.Spec, &old.Spec)...)
			return append(errs, onfailure.Validate(ds.Annotations, old.Annotations, "")...)
		}),
		Warnings: warns(func(ds, old *appsv1.DaemonSet) []string {
			if old != nil && equality.Semantic.DeepEqual(ds.Spec.Template, old.Spec.Template) {
				return onfailure.Warnings(ds.Annotations)
			}
			return append(warnTemplate(&ds.Spec.Template), onfailure.Warnings(ds.Annotations)...)
		}),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Desired", "integer", status["desiredNumberScheduled"]),
					column("Current", "integer", status["currentNumberScheduled"]),
					column("Ready", "integer", status["numberReady"]),
					column("Up-to-date", "integer", status["updatedNumberScheduled"]),
					column("Available", "integer", status["numberAvailable"]),
					column("Node Selector", "string", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]),
					ageColumn(),
				},
				containerColumns(),
				[]metav1.TableColumnDefinition{wideColumn("Selector", "string", appsv1.DaemonSetSpec{}.SwaggerDoc()["selector"])},
			),
			Row: cells(func(ds *appsv1.DaemonSet, now time.Time) []any {
				s := &ds.Status
				names, images := containerCells(&ds.Spec.Template)
				return []any{ds.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
					int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), labels.FormatLabels(ds.Spec.Template.Spec.NodeSelector),
					age(ds.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(ds.Spec.Selector)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(ds, old *appsv1.DaemonSet) {
					ds.Spec = *old.Spec.DeepCopy()
					keepTemplateGeneration(ds, old, 0)
				}),
				ValidateUpdate: validatesUpdate(func(ds, old *appsv1.DaemonSet) field.ErrorList {
					return validateDaemonSetStatus(&ds.Status, &old.Status)
				}),
				ResetFields: resets(gv, "spec"),
			},
		},
	})
}

func defaultDaemonSet(ds *appsv1.DaemonSet) {
	spec := &ds.Spec
	pod.DefaultTemplate(&spec.Template)
	if spec.UpdateStrategy.Type == "" {
		spec.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if spec.UpdateStrategy.RollingUpdate == nil {
			spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		rolling := spec.UpdateStrategy.RollingUpdate
		if rolling.MaxUnavailable == nil {
			rolling.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		}
		if rolling.MaxSurge == nil {
			rolling.MaxSurge = ptr.To(intstr.FromInt32(0))
		}
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = ptr.To[int32](10)
	}
}

func prepareDaemonSetUpdate(ds, old *appsv1.DaemonSet) {
	defaultDaemonSet(ds)
	pod.PrepareTemplate(&ds.Spec.Template, &old.Spec.Template)
	ds.Status = *old.Status.DeepCopy()
	countChange(ds, old, ds.Spec, old.Spec)
	var changed int64
	if !equality.Semantic.DeepEqual(ds.Spec.Template, old.Spec.Template) {
		changed = 1
	}
	keepTemplateGeneration(ds, old, changed)
}

// The number of the template was a field of the spec in versions of old. What
// is left of it is an annotation, which every writer gets to see and none to
// set, but for its first value.

// parseDaemonSet reads the number; who leaves it out has written 0, and owns that.
func parseDaemonSet(ds *appsv1.DaemonSet) error {
	n := int64(0)
	if text, ok := ds.Annotations[appsv1.DeprecatedTemplateGeneration]; ok {
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			return err
		}
	}
	setTemplateGeneration(ds, n)
	return nil
}

func templateGeneration(ds *appsv1.DaemonSet) int64 {
	n, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0 // not written by a client: stored by others
	}
	return n
}

func setTemplateGeneration(ds *appsv1.DaemonSet, n int64) {
	if ds.Annotations == nil {
		ds.Annotations = map[string]string{}
	}
	ds.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
}

// keepTemplateGeneration takes the number over from old, counted on by changed.
func keepTemplateGeneration(ds, old *appsv1.DaemonSet, changed int64) {
	setTemplateGeneration(ds, templateGeneration(old)+changed)
}

// validateDaemonSet checks a spec; old is nil on create.
func validateDaemonSet(spec, old *appsv1.DaemonSetSpec) field.ErrorList {
	path := field.NewPath("spec")
	var options metav1validation.LabelSelectorValidationOptions
	var oldTemplate *corev1.PodTemplateSpec
	if old != nil {
		options.AllowInvalidLabelValueInSelector = metav1validation.LabelSelectorHasInvalidLabelValue(old.Selector)
		oldTemplate = &old.Template
	}
	errs := metav1validation.ValidateLabelSelector(spec.Selector, options, path.Child("selector"))
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	if spec.Selector != nil && len(spec.Selector.MatchLabels)+len(spec.Selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path.Child("selector"), spec.Selector, "empty selector is invalid for daemonset"))
	}
	errs = append(errs, validateTemplate(&spec.Template, oldTemplate, path.Child("template"))...)
	errs = append(errs, validateEndless(&spec.Template.Spec, path.Child("template", "spec"), "DaemonSet")...)
	errs = append(errs, nonNegative(path, counter{"minReadySeconds", int64(spec.MinReadySeconds)})...)
	errs = append(errs, validateDaemonSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	return append(errs, nonNegative(path, counter{"revisionHistoryLimit", int64(ptr.Deref(spec.RevisionHistoryLimit, 0))})...)
}

func validateDaemonSetStrategy(s *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path, *s,
			[]appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	}
	at := path.Child("rollingUpdate")
	if s.RollingUpdate == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	unavailable, surge := ptr.Deref(s.RollingUpdate.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(s.RollingUpdate.MaxSurge, intstr.IntOrString{})
	errs := validateShare(unavailable, at.Child("maxUnavailable"))
	errs = append(errs, validateShare(surge, at.Child("maxSurge"))...)
	errs = append(errs, notAboveAll(unavailable, at.Child("maxUnavailable"))...)
	errs = append(errs, notAboveAll(surge, at.Child("maxSurge"))...)
	switch some, more := shareValue(unavailable) != 0, shareValue(surge) != 0; {
	case some && more:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !some && !more:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(s, old *appsv1.DaemonSetStatus) field.ErrorList {
	path := field.NewPath("status")
	errs := nonNegative(path,
		counter{"currentNumberScheduled", int64(s.CurrentNumberScheduled)},
		counter{"numberMisscheduled", int64(s.NumberMisscheduled)},
		counter{"desiredNumberScheduled", int64(s.DesiredNumberScheduled)},
		counter{"numberReady", int64(s.NumberReady)},
		counter{"observedGeneration", s.ObservedGeneration},
		counter{"updatedNumberScheduled", int64(s.UpdatedNumberScheduled)},
		counter{"numberAvailable", int64(s.NumberAvailable)},
		counter{"numberUnavailable", int64(s.NumberUnavailable)},
		counter{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	return append(errs, notDecremented(s.CollisionCount, old.CollisionCount, path.Child("collisionCount"))...)
}
