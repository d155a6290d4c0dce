package kinds

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/onfailure"
)

// statefulSetCheck is one validation of a spec. On update, what cannot be
// changed is not looked at again, and neither is the template's spec if the old
// object was invalid already.
type statefulSetCheck struct {
	old          *corev1.PodTemplateSpec
	update       bool
	skipTemplate bool
}

func validateStatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	return append(statefulSetCheck{}.spec(&s.Spec, field.NewPath("spec")), onfailure.Validate(s.Annotations, nil, "")...)
}

func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	path := field.NewPath("spec")
	check := statefulSetCheck{old: &old.Spec.Template, update: true}
	check.skipTemplate = len(check.spec(&old.Spec, nil)) > 0
	errs := append(check.spec(&s.Spec, path), onfailure.Validate(s.Annotations, old.Annotations, "")...)
	errs = append(errs, unchanged(s.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
	errs = append(errs, unchanged(s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates, path.Child("volumeClaimTemplates"))...)
	errs = append(errs, unchanged(s.Spec.ServiceName, old.Spec.ServiceName, path.Child("serviceName"))...)
	return append(errs, unchanged(s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy, path.Child("podManagementPolicy"))...)
}

func (c statefulSetCheck) spec(spec *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	policy := path.Child("podManagementPolicy")
	switch spec.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(policy, ""))
	default:
		errs = append(errs, field.Invalid(policy, spec.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, validateStatefulSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	if retention := spec.PersistentVolumeClaimRetentionPolicy; retention != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		keep, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, supported(retention.WhenDeleted, at.Child("whenDeleted"), keep, remove)...)
		errs = append(errs, supported(retention.WhenScaled, at.Child("whenScaled"), keep, remove)...)
	}
	if !c.update {
		for i := range spec.VolumeClaimTemplates {
			errs = append(errs, pod.ValidateClaimSpec(&spec.VolumeClaimTemplates[i].Spec, path.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
		}
	}
	errs = append(errs, nonNegative(path,
		counter{"replicas", int64(ptr.Deref(spec.Replicas, 0))},
		counter{"minReadySeconds", int64(spec.MinReadySeconds)})...)
	if spec.Ordinals != nil {
		errs = append(errs, nonNegative(path.Child("ordinals"), counter{"start", int64(spec.Ordinals.Start)})...)
	}
	if !c.update && spec.ServiceName != "" {
		errs = append(errs, isDNSLabel(spec.ServiceName, path.Child("serviceName"))...)
	}
	errs = append(errs, c.selected(spec, path)...)
	return append(errs, validateEndless(&spec.Template.Spec, path.Child("template", "spec"), "StatefulSet")...)
}

// selected checks the selector and the template.
func (c statefulSetCheck) selected(spec *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("selector")
	if spec.Selector == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, at)...)
		if len(spec.Selector.MatchLabels)+len(spec.Selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, spec.Selector, "empty selector is invalid for statefulset"))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err != nil {
		return append(errs, field.Invalid(at, spec.Selector, ""))
	}
	at = path.Child("template")
	template := madeTemplate(spec)
	if !selector.Empty() && !selector.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	if c.skipTemplate {
		return append(errs, pod.ValidateTemplateLabels(template, c.old, at)...)
	}
	return append(errs, validateTemplate(template, c.old, at)...)
}

// madeTemplate is the template as pods are made of it: without what comes from
// the set, and with a volume for each claim, in place of one of that name.
func madeTemplate(spec *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	template := spec.Template.DeepCopy()
	template.Spec.Subdomain, template.Spec.Hostname = "", ""
	var volumes []corev1.Volume
	has := func(name string) bool {
		return slices.ContainsFunc(volumes, func(v corev1.Volume) bool { return v.Name == name })
	}
	for i := range spec.VolumeClaimTemplates {
		if name := spec.VolumeClaimTemplates[i].Name; !has(name) {
			volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
			}})
		}
	}
	claims := len(volumes)
	for _, v := range template.Spec.Volumes {
		if !slices.ContainsFunc(volumes[:claims], func(claim corev1.Volume) bool { return claim.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	template.Spec.Volumes = volumes
	return template
}

func validateStatefulSetStrategy(s *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch s.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(rolling, s.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
	default:
		return field.ErrorList{field.Invalid(path, *s,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
	if s.RollingUpdate == nil {
		return nil
	}
	errs := nonNegative(rolling, counter{"partition", int64(ptr.Deref(s.RollingUpdate.Partition, 0))})
	if s.RollingUpdate.MaxUnavailable != nil {
		errs = append(errs, validateSomeShare(*s.RollingUpdate.MaxUnavailable, rolling.Child("maxUnavailable"))...)
	}
	return errs
}

func validateSomeShare(value intstr.IntOrString, path *field.Path) field.ErrorList {
	errs := validateShare(value, path)
	if shareValue(value) == 0 {
		errs = append(errs, field.Invalid(path, value, "cannot be 0"))
	}
	return append(errs, notAboveAll(value, path)...)
}

func validateStatefulSetStatus(s, old *appsv1.StatefulSetStatus) field.ErrorList {
	path := field.NewPath("status")
	errs := nonNegative(path,
		counter{"replicas", int64(s.Replicas)},
		counter{"readyReplicas", int64(s.ReadyReplicas)},
		counter{"currentReplicas", int64(s.CurrentReplicas)},
		counter{"updatedReplicas", int64(s.UpdatedReplicas)},
		counter{"availableReplicas", int64(s.AvailableReplicas)},
		counter{"observedGeneration", s.ObservedGeneration},
		counter{"collisionCount", int64(ptr.Deref(s.CollisionCount, 0))})
	for _, part := range []counter{
		{"readyReplicas", int64(s.ReadyReplicas)},
		{"currentReplicas", int64(s.CurrentReplicas)},
		{"updatedReplicas", int64(s.UpdatedReplicas)},
		{"availableReplicas", int64(s.AvailableReplicas)},
	} {
		if part.value > int64(s.Replicas) {
			errs = append(errs, field.Invalid(path.Child(part.name), part.value, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than status.readyReplicas"))
	}
	return append(errs, notDecremented(s.CollisionCount, old.CollisionCount, path.Child("collisionCount"))...)
}
