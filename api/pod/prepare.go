package pod

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PrepareCreate gives a new pod its first status, whatever the client sent, and
// merges into selectors what is derived from the pod's labels. It changes p in
// place, after defaulting it, and must run once per pod, when nobody will change
// the pod any more: the class of service and the selectors depend on all of it.
// The time of the first condition is the pod's creation timestamp.
func PrepareCreate(p *corev1.Pod) {
	Default(p)
	defaultPodResources(&p.Spec)
	p.Generation = 1
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOS(p)}
	dropDisabled(&p.Spec, nil)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type:               corev1.PodScheduled,
			Status:             corev1.ConditionFalse,
			Reason:             corev1.PodReasonSchedulingGated,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
			LastTransitionTime: p.CreationTimestamp,
		}}
	}
	mergeLabelKeys(p)
	appArmorFieldsFromAnnotations(p)
}

// PrepareTemplate removes from a template what PrepareCreate would remove from
// its pods. old is the template it replaces, or nil.
func PrepareTemplate(t, old *corev1.PodTemplateSpec) {
	var oldSpec *corev1.PodSpec
	if old != nil {
		oldSpec = &old.Spec
	}
	dropDisabled(&t.Spec, oldSpec)
}

// PrepareUpdate keeps the status as it was and counts a change of the spec,
// which it defaults first: leaving a default out is no change.
func PrepareUpdate(p, old *corev1.Pod) {
	Default(p)
	p.Status = *old.Status.DeepCopy()
	keepPodResources(p, old)
	dropDisabled(&p.Spec, &old.Spec)
	countChange(p, old)
}

// keepPodResources: a writer that does not know of resources of the pod as a
// whole does not take them away.
func keepPodResources(p, old *corev1.Pod) {
	if p.Spec.Resources == nil {
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
}

// countChange raises the generation if the spec is not what it was.
func countChange(p, old *corev1.Pod) {
	if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation = old.Generation + 1
	}
}

// PrepareStatusUpdate keeps everything but status, labels, annotations and
// finalizers as it was, and the parts of the status that a writer who does not
// know them would drop.
func PrepareStatusUpdate(p, old *corev1.Pod) {
	defaultStatus(&p.Status)
	p.Spec = *old.Spec.DeepCopy()
	p.DeletionTimestamp = old.DeletionTimestamp.DeepCopy()
	p.OwnerReferences = old.DeepCopy().OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	keepObservedGenerations(&p.Status, &old.Status)
	dropDisabledStatus(&p.Status, &old.Status)
}

// keepObservedGenerations: zero means "not told". Conditions are matched by
// type, and by order among those of one type.
func keepObservedGenerations(s, old *corev1.PodStatus) {
	setIfEmpty(&s.ObservedGeneration, old.ObservedGeneration)
	known := map[corev1.PodConditionType][]int64{}
	for _, c := range old.Conditions {
		known[c.Type] = append(known[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if g := known[c.Type]; len(g) > 0 {
			setIfEmpty(&c.ObservedGeneration, g[0])
			known[c.Type] = g[1:]
		}
	}
}

// PrepareEphemeralContainersUpdate keeps everything but the ephemeral containers
// as it was.
func PrepareEphemeralContainersUpdate(p, old *corev1.Pod) {
	Default(p)
	added := p.Spec.EphemeralContainers
	keepAllBut(p, old)
	p.Spec.EphemeralContainers = added
	dropDisabled(&p.Spec, &old.Spec)
	countChange(p, old)
}

// PrepareResize keeps everything but resources and resize policies as it was. A
// pod whose containers were added, removed, renamed or reordered is left as it
// is, for ValidateResize to refuse. What the pod states as a whole is completed
// again.
func PrepareResize(p, old *corev1.Pod) {
	Default(p)
	keepPodResources(p, old)
	spec := p.Spec
	if !sameContainers(spec.Containers, old.Spec.Containers) || !sameContainers(spec.InitContainers, old.Spec.InitContainers) {
		return
	}
	keepAllBut(p, old)
	p.Spec.Resources = spec.Resources
	takeResources(p.Spec.Containers, spec.Containers)
	takeResources(p.Spec.InitContainers, spec.InitContainers)
	defaultPodResources(&p.Spec)
	dropDisabled(&p.Spec, &old.Spec)
	countChange(p, old)
}

func sameContainers(a, b []corev1.Container) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}

func takeResources(to, from []corev1.Container) {
	for i := range to {
		to[i].Resources = from[i].Resources
		to[i].ResizePolicy = from[i].ResizePolicy
	}
}

// keepAllBut makes p a copy of old, except for the identity of the write
// (resource version, managed fields).
func keepAllBut(p, old *corev1.Pod) {
	p.Spec = *old.Spec.DeepCopy()
	p.Status = *old.Status.DeepCopy()
	metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.DeepCopy().ObjectMeta)
}

// mergeLabelKeys turns matchLabelKeys and mismatchLabelKeys into requirements on
// the values that the pod has for these keys, so that whoever selects need not
// know the keys.
func mergeLabelKeys(p *corev1.Pod) {
	merge := func(s *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		if s == nil {
			return
		}
		for _, key := range keys {
			if v, ok := p.Labels[key]; ok {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{v}})
			}
		}
	}
	eachAffinityTerm(p.Spec.Affinity, func(t *corev1.PodAffinityTerm) {
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	})
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

// appArmorFieldsFromAnnotations gives containers the profile that the old
// annotations name, unless they have one or the pod's is the same.
func appArmorFieldsFromAnnotations(p *corev1.Pod) {
	eachAppArmorAnnotation(p, func(_ string, ctr *corev1.Container, profile *corev1.AppArmorProfile) {
		if profile == nil || reflect.DeepEqual(profile, deref(p.Spec.SecurityContext).AppArmorProfile) {
			return
		}
		setIfNil(&ctr.SecurityContext, corev1.SecurityContext{})
		ctr.SecurityContext.AppArmorProfile = profile
	})
}

// eachAppArmorAnnotation visits the containers without a profile of their own to
// which an annotation gives one, nil if it names none.
func eachAppArmorAnnotation(p *corev1.Pod, visit func(key string, ctr *corev1.Container, profile *corev1.AppArmorProfile)) {
	if len(p.Annotations) == 0 || p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return
	}
	eachContainer(&p.Spec, nil, func(ctr *corev1.Container, _ *field.Path) {
		key := appArmorPrefix + ctr.Name
		annotation, ok := p.Annotations[key]
		if ok && deref(ctr.SecurityContext).AppArmorProfile == nil {
			visit(key, ctr, appArmorFromAnnotation(annotation))
		}
	})
}

// appArmorFromAnnotation answers nil for what is no valid profile.
func appArmorFromAnnotation(v string) *corev1.AppArmorProfile {
	var p *corev1.AppArmorProfile
	switch v {
	case corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	default:
		name, ok := strings.CutPrefix(v, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if !ok {
			return nil
		}
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	}
	c := &checker{}
	if c.appArmor(nil, p); len(c.errs) > 0 {
		return nil
	}
	return p
}
