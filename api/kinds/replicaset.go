package kinds

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func replicaSet() *api.Resource {
	gv := appsv1.SchemeGroupVersion
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	return stored[appsv1.ReplicaSet, *appsv1.ReplicaSet, appsv1.ReplicaSetList](gv, &api.Resource{
		Plural:     "replicasets",
		Singular:   "replicaset",
		Kind:       "ReplicaSet",
		ShortNames: []string{"rs"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "replicasets",
		Default:    on(defaultReplicaSet),
		PrepareCreate: on(func(rs *appsv1.ReplicaSet) {
			pod.PrepareTemplate(&rs.Spec.Template, nil)
			rs.Status = appsv1.ReplicaSetStatus{}
			rs.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(rs, old *appsv1.ReplicaSet) {
			defaultReplicaSet(rs)
			pod.PrepareTemplate(&rs.Spec.Template, &old.Spec.Template)
			rs.Status = *old.Status.DeepCopy()
			countChange(rs, old, rs.Spec, old.Spec)
		}),
		Validate: validates(func(rs *appsv1.ReplicaSet) field.ErrorList {
			return append(validateReplicaSet(&rs.Spec),
				validateSelected(rs.Spec.Selector, &rs.Spec.Template, nil, field.NewPath("spec"))...)
		}),
		ValidateUpdate: validatesUpdate(func(rs, old *appsv1.ReplicaSet) field.ErrorList {
			path := field.NewPath("spec")
			errs := validateReplicaSet(&rs.Spec)
			errs = append(errs, validateSelected(rs.Spec.Selector, &rs.Spec.Template, &old.Spec.Template, path)...)
			return append(errs, unchanged(rs.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
		}),
		Warnings: warns(func(rs, old *appsv1.ReplicaSet) []string {
			if old == nil {
				return append(warnPodName(rs.Name), warnTemplate(&rs.Spec.Template)...)
			}
			if rs.Generation == old.Generation {
				return nil
			}
			return warnTemplate(&rs.Spec.Template)
		}),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
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
			Row: cells(func(rs *appsv1.ReplicaSet, now time.Time) []any {
				names, images := containerCells(&rs.Spec.Template)
				return []any{rs.Name, int64(ptr.Deref(rs.Spec.Replicas, 0)), int64(rs.Status.Replicas), int64(rs.Status.ReadyReplicas),
					age(rs.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(rs.Spec.Selector)}
			}),
		},
		Indexes: []api.Index{orphanIndex()},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(func(rs, old *appsv1.ReplicaSet) { rs.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(rs, _ *appsv1.ReplicaSet) field.ErrorList { return validateReplicaSetStatus(rs) }),
				ResetFields:    resets(gv, "spec"),
			},
			"scale": scaleSubresource(func(rs *appsv1.ReplicaSet) scaled {
				return scaled{&rs.Spec.Replicas, rs.Status.Replicas, rs.Spec.Selector}
			}),
		},
	})
}

func defaultReplicaSet(rs *appsv1.ReplicaSet) {
	pod.DefaultTemplate(&rs.Spec.Template)
	if rs.Spec.Replicas == nil {
		rs.Spec.Replicas = ptr.To[int32](1)
	}
}

func validateReplicaSet(spec *appsv1.ReplicaSetSpec) field.ErrorList {
	return nonNegative(field.NewPath("spec"),
		counter{"replicas", int64(ptr.Deref(spec.Replicas, 0))},
		counter{"minReadySeconds", int64(spec.MinReadySeconds)})
}

func validateReplicaSetStatus(rs *appsv1.ReplicaSet) field.ErrorList {
	s, path := &rs.Status, field.NewPath("status")
	errs := nonNegative(path,
		counter{"replicas", int64(s.Replicas)},
		counter{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)},
		counter{"readyReplicas", int64(s.ReadyReplicas)},
		counter{"availableReplicas", int64(s.AvailableReplicas)},
		counter{"terminatingReplicas", int64(ptr.Deref(s.TerminatingReplicas, 0))},
		counter{"observedGeneration", s.ObservedGeneration})
	if s.FullyLabeledReplicas > s.Replicas {
		errs = append(errs, field.Invalid(path.Child("fullyLabeledReplicas"), s.FullyLabeledReplicas, "cannot be greater than status.replicas"))
	}
	return append(errs, replicaCounts{s.Replicas, s.ReadyReplicas, s.AvailableReplicas}.consistent(path)...)
}
