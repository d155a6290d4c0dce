package kinds

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/onfailure"
)

func deployment() *api.Resource {
	gv := appsv1.SchemeGroupVersion
	status := appsv1.DeploymentStatus{}.SwaggerDoc()
	return stored[appsv1.Deployment, *appsv1.Deployment, appsv1.DeploymentList](gv, &api.Resource{
		Plural:     "deployments",
		Singular:   "deployment",
		Kind:       "Deployment",
		ShortNames: []string{"deploy"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "deployments",
		Parse:      parses(parseDeployment),
		Default:    on(defaultDeployment),
		PrepareCreate: on(func(d *appsv1.Deployment) {
			pod.PrepareTemplate(&d.Spec.Template, nil)
			d.Status = appsv1.DeploymentStatus{}
			d.Generation = 1
		}),
		PrepareUpdate: onUpdate(prepareDeploymentUpdate),
		Validate: validates(func(d *appsv1.Deployment) field.ErrorList {
			return append(validateDeployment(d, nil), onfailure.Validate(d.Annotations, nil, deploymentDeadline)...)
		}),
		ValidateUpdate: validatesUpdate(func(d, old *appsv1.Deployment) field.ErrorList {
			errs := append(validateDeployment(d, old), onfailure.Validate(d.Annotations, old.Annotations, deploymentDeadline)...)
			return append(errs, unchanged(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
		}),
		Warnings: warns(func(d, old *appsv1.Deployment) []string {
			if old == nil {
				return slices.Concat(warnPodName(d.Name), warnTemplate(&d.Spec.Template), onfailure.Warnings(d.Annotations))
			}
			if d.Generation == old.Generation {
				return nil
			}
			return append(warnTemplate(&d.Spec.Template), onfailure.Warnings(d.Annotations)...)
		}),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Ready", "string", "Number of the pod with ready state"),
					column("Up-to-date", "string", status["updatedReplicas"]),
					column("Available", "string", status["availableReplicas"]),
					ageColumn(),
				},
				containerColumns(),
				[]metav1.TableColumnDefinition{wideColumn("Selector", "string", appsv1.DeploymentSpec{}.SwaggerDoc()["selector"])},
			),
			Row: cells(deploymentCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(d, old *appsv1.Deployment) {
					kept := old.DeepCopy()
					d.Spec, d.Labels = kept.Spec, kept.Labels
					keepRollback(d, old)
				}),
				ValidateUpdate: validatesUpdate(validateDeploymentStatus),
				ResetFields:    resets(gv, "spec", "metadata.labels"),
			},
			"scale": scaleSubresource(func(d *appsv1.Deployment) scaled {
				return scaled{&d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector}
			}),
		},
	})
}

// deploymentDeadline is the field that other kinds have an annotation for.
const deploymentDeadline = "spec.progressDeadlineSeconds"

func defaultDeployment(d *appsv1.Deployment) {
	spec := &d.Spec
	pod.DefaultTemplate(&spec.Template)
	if spec.Replicas == nil {
		spec.Replicas = ptr.To[int32](1)
	}
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if spec.Strategy.RollingUpdate == nil {
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		rolling := spec.Strategy.RollingUpdate
		if rolling.MaxUnavailable == nil {
			rolling.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		}
		if rolling.MaxSurge == nil {
			rolling.MaxSurge = ptr.To(intstr.FromString("25%"))
		}
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = ptr.To[int32](10)
	}
	if spec.ProgressDeadlineSeconds == nil {
		spec.ProgressDeadlineSeconds = ptr.To[int32](600)
	}
}

// prepareDeploymentUpdate counts changed annotations as a new generation, since
// the loop copies them to replica sets.
func prepareDeploymentUpdate(d, old *appsv1.Deployment) {
	defaultDeployment(d)
	pod.PrepareTemplate(&d.Spec.Template, &old.Spec.Template)
	d.Status = *old.Status.DeepCopy()
	if !equality.Semantic.DeepEqual(d.Spec, old.Spec) || !equality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
		d.Generation = old.Generation + 1
	}
}

// The revision to go back to was a field of the spec in versions of old, and is an
// annotation since, by which the loop still goes.

func parseDeployment(d *appsv1.Deployment) error {
	text, ok := d.Annotations[appsv1.DeprecatedRollbackTo]
	switch {
	case !ok:
	case text == "":
		delete(d.Annotations, appsv1.DeprecatedRollbackTo)
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("failed to parse annotation[%s]=%s as int64: %w", appsv1.DeprecatedRollbackTo, text, err)
		}
		d.Annotations[appsv1.DeprecatedRollbackTo] = strconv.FormatInt(n, 10)
	}
	return nil
}

// keepRollback takes the revision to go back to over from old, as part of its spec.
func keepRollback(d, old *appsv1.Deployment) {
	if text, ok := old.Annotations[appsv1.DeprecatedRollbackTo]; !ok {
		delete(d.Annotations, appsv1.DeprecatedRollbackTo)
	} else {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[appsv1.DeprecatedRollbackTo] = text
	}
}

func validateRollback(d *appsv1.Deployment, path *field.Path) field.ErrorList {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedRollbackTo], 10, 64)
	if err != nil {
		return nil // there is none
	}
	return nonNegative(path, counter{"version", n})
}

// validateDeployment checks what is asked for; before is nil on create.
func validateDeployment(d, before *appsv1.Deployment) field.ErrorList {
	path, spec := field.NewPath("spec"), &d.Spec
	var old *appsv1.DeploymentSpec
	if before != nil {
		old = &before.Spec
	}
	errs := nonNegative(path, counter{"replicas", int64(ptr.Deref(spec.Replicas, 0))})
	if old == nil {
		errs = append(errs, validateSelected(spec.Selector, &spec.Template, nil, path)...)
	} else {
		errs = append(errs, validateSelected(spec.Selector, &spec.Template, &old.Template, path)...)
	}
	errs = append(errs, validateStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, nonNegative(path,
		counter{"minReadySeconds", int64(spec.MinReadySeconds)},
		counter{"revisionHistoryLimit", int64(ptr.Deref(spec.RevisionHistoryLimit, 0))})...)
	errs = append(errs, validateRollback(d, path.Child("rollback"))...)
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		errs = append(errs, nonNegative(path, counter{"progressDeadlineSeconds", int64(*deadline)})...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is '"+string(s.Type)+"'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(s.RollingUpdate, rolling)
	}
	return field.ErrorList{field.NotSupported(path, *s,
		[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
}

func validateRollingUpdate(r *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	unavailable, surge := ptr.Deref(r.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(r.MaxSurge, intstr.IntOrString{})
	at := path.Child("maxUnavailable")
	errs := validateShare(unavailable, at)
	errs = append(errs, validateShare(surge, path.Child("maxSurge"))...)
	if shareValue(unavailable) == 0 && shareValue(surge) == 0 {
		errs = append(errs, field.Invalid(at, unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, notAboveAll(unavailable, at)...)
}

// notAboveAll refuses a percentage of more than all.
func notAboveAll(value intstr.IntOrString, path *field.Path) field.ErrorList {
	if value.Type == intstr.String && len(validation.IsValidPercent(value.StrVal)) == 0 && shareValue(value) > 100 {
		return field.ErrorList{field.Invalid(path, value, "must not be greater than 100%")}
	}
	return nil
}

// validateShare demands a number or a percentage of replicas.
func validateShare(value intstr.IntOrString, path *field.Path) field.ErrorList {
	if value.Type == intstr.String {
		return invalidEach(path, value, validation.IsValidPercent(value.StrVal))
	}
	return apivalidation.ValidateNonnegativeField(int64(value.IntVal), path)
}

// shareValue is the number in 25, "25%" or "25"; of what is no share it is 0.
func shareValue(value intstr.IntOrString) int {
	if value.Type == intstr.Int {
		return int(value.IntVal)
	}
	text := value.StrVal
	if len(validation.IsValidPercent(text)) == 0 {
		text = strings.TrimSuffix(text, "%")
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	errs := nonNegative(path,
		counter{"observedGeneration", s.ObservedGeneration},
		counter{"replicas", int64(s.Replicas)},
		counter{"updatedReplicas", int64(s.UpdatedReplicas)},
		counter{"readyReplicas", int64(s.ReadyReplicas)},
		counter{"availableReplicas", int64(s.AvailableReplicas)},
		counter{"unavailableReplicas", int64(s.UnavailableReplicas)},
		counter{"terminatingReplicas", int64(ptr.Deref(s.TerminatingReplicas, 0))},
		counter{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	if s.UpdatedReplicas > s.Replicas {
		errs = append(errs, field.Invalid(path.Child("updatedReplicas"), s.UpdatedReplicas, "cannot be greater than status.replicas"))
	}
	errs = append(errs, replicaCounts{s.Replicas, s.ReadyReplicas, s.AvailableReplicas}.consistent(path)...)
	return append(errs, notDecremented(s.CollisionCount, old.Status.CollisionCount, path.Child("collisionCount"))...)
}

func deploymentCells(d *appsv1.Deployment, now time.Time) []any {
	names, images := containerCells(&d.Spec.Template)
	selector := "<error>"
	if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
		selector = s.String()
	}
	return []any{d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 0)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
		names, images, selector}
}
