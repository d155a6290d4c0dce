package kinds

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
)

func validateNode(n *corev1.Node) field.ErrorList {
	errs := validateNodeAnnotations(n.Annotations)
	// Kubernetes reports taints below metadata.
	errs = append(errs, validateTaints(n.Spec.Taints, field.NewPath("metadata", "taints"))...)
	errs = append(errs, validateNodeResources(n)...)
	if swap := n.Status.NodeInfo.Swap; swap != nil && swap.Capacity != nil && *swap.Capacity <= 0 {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "nodeSwapStatus", "capacity"), *swap.Capacity, "must be greater than zero"))
	}
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	errs = append(errs, validatePodCIDRs(n.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
	return errs
}

func validateNodeResources(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	for name, value := range n.Status.Capacity {
		errs = append(errs, pod.ValidateResourceQuantity(name, value, field.NewPath("status", "capacity", string(name)))...)
	}
	for name, value := range n.Status.Allocatable {
		errs = append(errs, pod.ValidateResourceQuantity(name, value, field.NewPath("status", "allocatable", string(name)))...)
	}
	return errs
}

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`)

// validateDeclaredFeatures demands a sorted list, so that the scheduler can
// compare it.
func validateDeclaredFeatures(features []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range features {
		switch at := path.Index(i); {
		case len(name) > validation.DNS1123SubdomainMaxLength:
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("invalid feature name %q: must be no more than %d characters", name, validation.DNS1123SubdomainMaxLength)))
		case !featureName.MatchString(name):
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name)))
		}
		if i == 0 {
			continue
		}
		switch before := features[i-1]; {
		case before == name:
			errs = append(errs, field.Duplicate(path.Index(i), name))
		case before > name:
			errs = append(errs, field.Invalid(path.Index(i), name, "list must be sorted alphabetically"))
		}
	}
	return errs
}

func validatePodCIDRs(cidrs []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), cidr, true, nil)...)
	}
	if len(cidrs) < 2 {
		return errs
	}
	dual, err := netutils.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
	}
	if !dual || len(cidrs) > 2 {
		errs = append(errs, field.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

// validateNodeUpdate also checks updates of the status alone.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	errs := validateNodeAnnotations(n.Annotations)
	errs = append(errs, validateNodeResources(n)...)
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	for i, address := range n.Status.Addresses {
		if slices.Contains(n.Status.Addresses[:i], address) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), address))
		}
	}
	spec := field.NewPath("spec")
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(old.Spec.PodCIDRs, n.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if was := old.Spec.ProviderID; was != "" && was != n.Spec.ProviderID {
		verb := "modified"
		if n.Spec.ProviderID == "" {
			verb = "cleared"
		}
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be "+verb+" once set"))
	}
	if s := n.Spec.ConfigSource; s != nil {
		errs = append(errs, validateConfigSource(s, false, spec.Child("configSource"))...)
	}
	if c := n.Status.Config; c != nil {
		path := field.NewPath("status", "config")
		for _, s := range []struct {
			name   string
			source *corev1.NodeConfigSource
		}{{"assigned", c.Assigned}, {"active", c.Active}, {"lastKnownGood", c.LastKnownGood}} {
			if s.source != nil {
				errs = append(errs, validateConfigSource(s.source, true, path.Child(s.name))...)
			}
		}
	}
	errs = append(errs, validateTaints(n.Spec.Taints, field.NewPath("metadata", "taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(spec.Child("externalID"), "may not be updated"))
	}
	return errs
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	type identity struct {
		key    string
		effect corev1.TaintEffect
	}
	var errs field.ErrorList
	seen := sets.New[identity]()
	for i, t := range taints {
		at := path.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, at.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, oneOf(t.Effect, at.Child("effect"),
			corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		id := identity{t.Key, t.Effect}
		if seen.Has(id) {
			err := field.Duplicate(at, t)
			err.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, err)
		}
		seen.Insert(id)
	}
	return errs
}

// taintsAnnotation held taints before spec.taints did.
const taintsAnnotation = "scheduler.alpha.kubernetes.io/taints"

// validateNodeAnnotations checks those that schedulers may still read.
func validateNodeAnnotations(annotations map[string]string) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata", "annotations")
	if value := annotations[taintsAnnotation]; value != "" {
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(value), &taints); err != nil {
			errs = append(errs, field.Invalid(path, taintsAnnotation, err.Error()))
		} else {
			errs = append(errs, validateTaints(taints, path.Child(taintsAnnotation))...)
		}
	}
	if value := annotations[corev1.PreferAvoidPodsAnnotationKey]; value != "" {
		var avoid corev1.AvoidPods
		if err := json.Unmarshal([]byte(value), &avoid); err != nil {
			return append(errs, field.Invalid(path.Child("AvoidPods"), corev1.PreferAvoidPodsAnnotationKey, err.Error()))
		}
		for i, entry := range avoid.PreferAvoidPods {
			at := path.Child(corev1.PreferAvoidPodsAnnotationKey).Index(i).Child("podSignature")
			if owner := entry.PodSignature.PodController; owner == nil {
				errs = append(errs, field.Required(at, ""))
			} else if !ptr.Deref(owner.Controller, false) {
				errs = append(errs, field.Invalid(at.Child("podController", "controller"), ptr.Deref(owner.Controller, false), "must point to a controller"))
			}
		}
	}
	return errs
}

// validateConfigSource checks what is left of the removed DynamicKubeletConfig:
// identity is part of the status only.
func validateConfigSource(s *corev1.NodeConfigSource, inStatus bool, path *field.Path) field.ErrorList {
	if s.ConfigMap == nil {
		return field.ErrorList{field.Invalid(path, s, "exactly one reference subfield must be non-nil")}
	}
	var errs field.ErrorList
	ref, at := s.ConfigMap, path.Child("configMap")
	for _, identity := range []struct{ name, value string }{{"uid", string(ref.UID)}, {"resourceVersion", ref.ResourceVersion}} {
		switch {
		case inStatus && identity.value == "":
			errs = append(errs, field.Required(at.Child(identity.name), identity.name+" must be set in status"))
		case !inStatus && identity.value != "":
			errs = append(errs, field.Forbidden(at.Child(identity.name), identity.name+" must not be set in spec"))
		}
	}
	for _, f := range []struct {
		name, value string
		check       func(string) []string
	}{
		{"namespace", ref.Namespace, func(v string) []string { return apivalidation.ValidateNamespaceName(v, false) }},
		{"name", ref.Name, func(v string) []string { return apivalidation.NameIsDNSSubdomain(v, false) }},
		{"kubeletConfigKey", ref.KubeletConfigKey, validation.IsConfigMapKey},
	} {
		if f.value == "" {
			errs = append(errs, field.Required(at.Child(f.name), f.name+" must be set"))
		} else {
			errs = append(errs, invalidEach(at.Child(f.name), f.value, f.check(f.value))...)
		}
	}
	return errs
}
