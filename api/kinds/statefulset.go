package kinds

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/onfailure"
)

func statefulSet() *api.Resource {
	gv := appsv1.SchemeGroupVersion
	row := stored[appsv1.StatefulSet, *appsv1.StatefulSet, appsv1.StatefulSetList](gv, &api.Resource{
		Plural:     "statefulsets",
		Singular:   "statefulset",
		Kind:       "StatefulSet",
		ShortNames: []string{"sts"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "statefulsets",
		// Pods are named after it, and so is part of their hostnames.
		NameRule: apivalidation.NameIsDNSLabel,
		Default:  on(defaultStatefulSet),
		PrepareCreate: on(func(s *appsv1.StatefulSet) {
			pod.PrepareTemplate(&s.Spec.Template, nil)
			s.Status = appsv1.StatefulSetStatus{}
			s.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(s, old *appsv1.StatefulSet) {
			defaultStatefulSet(s)
			pod.PrepareTemplate(&s.Spec.Template, &old.Spec.Template)
			s.Status = *old.Status.DeepCopy()
			countChange(s, old, s.Spec, old.Spec)
		}),
		Validate:                 validates(validateStatefulSet),
		ValidateUpdate:           validatesUpdate(validateStatefulSetUpdate),
		Warnings:                 warns(warnStatefulSet),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: columns(
				[]metav1.TableColumnDefinition{
					nameColumn(),
					column("Ready", "string", "Number of the pod with ready state"),
					ageColumn(),
				},
				containerColumns(),
			),
			Row: cells(func(s *appsv1.StatefulSet, now time.Time) []any {
				names, images := containerCells(&s.Spec.Template)
				return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 0)),
					age(s.CreationTimestamp, now), names, images}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(s, old *appsv1.StatefulSet) { s.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(s, old *appsv1.StatefulSet) field.ErrorList {
					return validateStatefulSetStatus(&s.Status, &old.Status)
				}),
				ResetFields: resets(gv, "spec"),
			},
			"scale": scaleSubresource(func(s *appsv1.StatefulSet) scaled {
				return scaled{&s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector}
			}),
		},
	})
	row.Versions[0].FromHub = statefulSetFromHub
	return row
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	pod.DefaultTemplate(&spec.Template)
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	defaultStatefulSetStrategy(&spec.UpdateStrategy)
	if spec.PersistentVolumeClaimRetentionPolicy == nil {
		spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{}
	}
	retention := spec.PersistentVolumeClaimRetentionPolicy
	if retention.WhenDeleted == "" {
		retention.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if retention.WhenScaled == "" {
		retention.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if spec.Replicas == nil {
		spec.Replicas = ptr.To[int32](1)
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = ptr.To[int32](10)
	}
	for i := range spec.VolumeClaimTemplates {
		defaultClaimTemplate(&spec.VolumeClaimTemplates[i])
	}
}

// defaultStatefulSetStrategy leaves a rolling update without parameters as it
// is, unless the type was left out, too.
func defaultStatefulSetStrategy(s *appsv1.StatefulSetUpdateStrategy) {
	if s.Type == "" {
		s.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if s.RollingUpdate == nil {
			s.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if s.Type != appsv1.RollingUpdateStatefulSetStrategyType || s.RollingUpdate == nil {
		return
	}
	if s.RollingUpdate.Partition == nil {
		s.RollingUpdate.Partition = ptr.To[int32](0)
	}
	if s.RollingUpdate.MaxUnavailable == nil {
		s.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(1))
	}
}

// statefulSetFromHub gives the claims their kind, which old clients have come to
// see. The hub has none, as what is stored has none.
func statefulSetFromHub(obj api.Object) (api.Object, error) {
	s := obj.(*appsv1.StatefulSet)
	if len(s.Spec.VolumeClaimTemplates) == 0 {
		return s, nil
	}
	shown := *s
	shown.Spec.VolumeClaimTemplates = slices.Clone(s.Spec.VolumeClaimTemplates)
	for i := range shown.Spec.VolumeClaimTemplates {
		shown.Spec.VolumeClaimTemplates[i].TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}
	}
	return &shown, nil
}

// defaultClaimTemplate makes a claim complete, down to its phase, which old
// clients have come to see.
func defaultClaimTemplate(claim *corev1.PersistentVolumeClaim) {
	claim.TypeMeta = metav1.TypeMeta{}
	pod.DefaultClaimSpec(&claim.Spec)
	if claim.Status.Phase == "" {
		claim.Status.Phase = corev1.ClaimPending
	}
	roundToMilli(claim.Status.Capacity)
	roundToMilli(claim.Status.AllocatedResources)
}

// warnStatefulSet looks at claims and history at every write. On update the
// path of a claim has a capital letter in Kubernetes, too.
func warnStatefulSet(s, old *appsv1.StatefulSet) []string {
	var warnings []string
	if old == nil || s.Generation != old.Generation {
		warnings = warnTemplate(&s.Spec.Template)
		if len(s.Spec.VolumeClaimTemplates) > 0 {
			warnings = append(warnings, "spec.volumeClaimTemplates: pods wait for their claims, which are made, but nothing finds or makes a volume for them in this version of Hansa")
		}
	}
	warnings = append(warnings, onfailure.Warnings(s.Annotations)...)
	for i := range s.Spec.VolumeClaimTemplates {
		at := field.NewPath("spec", "volumeClaimTemplates").Index(i)
		if old != nil {
			at = at.Child("Spec")
		}
		warnings = append(warnings, pod.ClaimSpecWarnings(&s.Spec.VolumeClaimTemplates[i].Spec, at)...)
	}
	if ptr.Deref(s.Spec.RevisionHistoryLimit, 0) < 0 {
		warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return warnings
}
