package kinds

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// nonConvertible is how annotations start that name a field which an API group
// of old could express and this one cannot.
const nonConvertible = "non-convertible.kubernetes.io"

func replicationController() *api.Resource {
	gv := corev1.SchemeGroupVersion
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return stored[corev1.ReplicationController, *corev1.ReplicationController, corev1.ReplicationControllerList](gv, &api.Resource{
		Plural:     "replicationcontrollers",
		AnyBase:    true,
		Singular:   "replicationcontroller",
		Kind:       "ReplicationController",
		ShortNames: []string{"rc"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "controllers",
		Default:    on(defaultReplicationController),
		PrepareCreate: on(func(rc *corev1.ReplicationController) {
			prepareOptionalTemplate(rc.Spec.Template, nil)
			rc.Status = corev1.ReplicationControllerStatus{}
			rc.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(rc, old *corev1.ReplicationController) {
			defaultReplicationController(rc)
			prepareOptionalTemplate(rc.Spec.Template, old.Spec.Template)
			rc.Status = *old.Status.DeepCopy()
			countChange(rc, old, rc.Spec, old.Spec)
		}),
		Validate: validates(func(rc *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(&rc.Spec, nil)
		}),
		ValidateUpdate: validatesUpdate(func(rc, old *corev1.ReplicationController) field.ErrorList {
			return append(validateReplicationController(&rc.Spec, old.Spec.Template), validateNonConvertible(rc, old)...)
		}),
		Warnings:                 warns(warnReplicationController),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		// As with jobs of batch/v1: the pods stay unless told otherwise.
		DefaultPropagation: ptr.To(metav1.DeletePropagationOrphan),
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Desired", "integer", spec["replicas"]),
					column("Current", "integer", status["replicas"]),
					column("Ready", "integer", status["readyReplicas"]),
					ageColumn(),
				},
				containerColumns(),
				[]metav1.TableColumnDefinition{wideColumn("Selector", "string", spec["selector"])},
			),
			Row: cells(func(rc *corev1.ReplicationController, now time.Time) []any {
				var names, images string
				if rc.Spec.Template != nil {
					names, images = containerCells(rc.Spec.Template)
				}
				return []any{rc.Name, int64(ptr.Deref(rc.Spec.Replicas, 0)), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
					age(rc.CreationTimestamp, now), names, images, labels.FormatLabels(rc.Spec.Selector)}
			}),
		},
		FieldLabels: []string{"status.replicas"},
		Fields: selects(func(rc *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(rc, old *corev1.ReplicationController) { rc.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(rc, _ *corev1.ReplicationController) field.ErrorList {
					return validateReplicationControllerStatus(&rc.Status)
				}),
				ResetFields: resets(gv, "spec"),
			},
			"scale": scaleSubresource(func(rc *corev1.ReplicationController) scaled {
				return scaled{&rc.Spec.Replicas, rc.Status.Replicas, &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}}
			}),
		},
	})
}

// prepareOptionalTemplate is pod.PrepareTemplate for a template that may be
// missing.
func prepareOptionalTemplate(t, old *corev1.PodTemplateSpec) {
	if t != nil {
		pod.PrepareTemplate(t, old)
	}
}

func defaultReplicationController(rc *corev1.ReplicationController) {
	if t := rc.Spec.Template; t != nil {
		if t.Labels != nil && len(rc.Spec.Selector) == 0 {
			rc.Spec.Selector = maps.Clone(t.Labels)
		}
		if t.Labels != nil && len(rc.Labels) == 0 {
			rc.Labels = maps.Clone(t.Labels)
		}
		pod.DefaultTemplate(t)
	}
	if rc.Spec.Replicas == nil {
		rc.Spec.Replicas = ptr.To[int32](1)
	}
}

// validateReplicationController checks a spec; old is the template that its own
// replaces, if any.
func validateReplicationController(spec *corev1.ReplicationControllerSpec, old *corev1.PodTemplateSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := nonNegative(path,
		counter{"replicas", int64(ptr.Deref(spec.Replicas, 0))},
		counter{"minReadySeconds", int64(spec.MinReadySeconds)}).MarkBeta()
	if len(spec.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	at := path.Child("template")
	if spec.Template == nil {
		return append(errs, field.Required(at, ""))
	}
	if len(spec.Selector) > 0 && !labels.SelectorFromSet(spec.Selector).Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, validateTemplate(spec.Template, old, at)...)
	return append(errs, validateEndless(&spec.Template.Spec, at.Child("spec"), "ReplicationController")...)
}

// validateNonConvertible keeps what an annotation says about a field from
// getting wrong.
func validateNonConvertible(rc, old *corev1.ReplicationController) field.ErrorList {
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(old.Annotations)) {
		name := strings.Split(key, "/")
		if !strings.HasPrefix(key, nonConvertible) || len(name) != 2 {
			continue
		}
		if !strings.Contains(name[1], "selector") {
			errs = append(errs, &field.Error{Type: field.ErrorTypeNotFound, Field: name[1], BadValue: old.Annotations[key], Detail: "unknown non-convertible field"})
		} else if !maps.Equal(rc.Spec.Selector, old.Spec.Selector) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), rc.Spec.Selector, "cannot update non-convertible selector"))
		}
	}
	return errs
}

func validateReplicationControllerStatus(s *corev1.ReplicationControllerStatus) field.ErrorList {
	path := field.NewPath("status")
	errs := nonNegative(path,
		counter{"replicas", int64(s.Replicas)},
		counter{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)},
		counter{"readyReplicas", int64(s.ReadyReplicas)},
		counter{"availableReplicas", int64(s.AvailableReplicas)},
		counter{"observedGeneration", s.ObservedGeneration})
	if s.FullyLabeledReplicas > s.Replicas {
		errs = append(errs, field.Invalid(path.Child("fullyLabeledReplicas"), s.FullyLabeledReplicas, "cannot be greater than status.replicas"))
	}
	return append(errs, replicaCounts{s.Replicas, s.ReadyReplicas, s.AvailableReplicas}.consistent(path)...)
}

// warnReplicationController warns on update about the template that is being
// replaced, as Kubernetes does.
func warnReplicationController(rc, old *corev1.ReplicationController) []string {
	var warnings []string
	t := rc.Spec.Template
	if old == nil {
		warnings = warnPodName(rc.Name)
	} else {
		t = old.Spec.Template
		if rc.Generation == old.Generation {
			return nil
		}
	}
	if t == nil {
		return warnings
	}
	return append(warnings, warnTemplate(t)...)
}
