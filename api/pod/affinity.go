package pod

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	required  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferred = "preferredDuringSchedulingIgnoredDuringExecution"
)

func (c *checker) affinity(at *field.Path, a *corev1.Affinity) {
	if a == nil {
		return
	}
	if a.NodeAffinity != nil {
		c.nodeAffinity(at.Child("nodeAffinity"), a.NodeAffinity)
	}
	if p := a.PodAffinity; p != nil {
		c.podTerms(at.Child("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		c.podTerms(at.Child("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func (c *checker) nodeAffinity(at *field.Path, a *corev1.NodeAffinity) {
	if s := a.RequiredDuringSchedulingIgnoredDuringExecution; s != nil {
		c.nodeSelector(at.Child(required), s)
	}
	for i, term := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		p := at.Child(preferred).Index(i)
		c.weight(p.Child("weight"), term.Weight)
		// A preference for an impossible label harms nobody.
		c.nodeTerm(p.Child("preference"), &term.Preference, false)
	}
}

func (c *checker) weight(at *field.Path, w int32) {
	if w < 1 || w > 100 {
		c.invalid(at, w, "must be in the range 1-100")
	}
}

// ValidateNodeSelector checks a selector of nodes outside of a pod.
func ValidateNodeSelector(s *corev1.NodeSelector, path *field.Path) field.ErrorList {
	var c checker
	c.nodeSelector(path, s)
	return c.errs
}

// ValidateNodeSelectorUpdate is ValidateNodeSelector for the successor of old, or
// of none: values that no label has pass where old has such.
func ValidateNodeSelectorUpdate(s, old *corev1.NodeSelector, path *field.Path) field.ErrorList {
	c := &checker{}
	if old != nil {
		for i := range old.NodeSelectorTerms {
			for k := range old.NodeSelectorTerms[i].MatchExpressions {
				c.nodeLabelValues(path, &old.NodeSelectorTerms[i].MatchExpressions[k])
			}
		}
		c.nodeAffinityLabelValues, c.errs = len(c.errs) > 0, nil
	}
	c.nodeSelector(path, s)
	return c.errs
}

func (c *checker) nodeSelector(at *field.Path, s *corev1.NodeSelector) {
	terms := at.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		c.required(terms, "must have at least one node selector term")
	}
	for i := range s.NodeSelectorTerms {
		c.nodeTerm(terms.Index(i), &s.NodeSelectorTerms[i], !c.nodeAffinityLabelValues)
	}
}

func (c *checker) nodeTerm(at *field.Path, t *corev1.NodeSelectorTerm, checkValues bool) {
	for i, r := range t.MatchExpressions {
		c.nodeLabels(at.Child("matchExpressions").Index(i), &r, checkValues)
	}
	for i, r := range t.MatchFields {
		c.nodeFields(at.Child("matchFields").Index(i), &r)
	}
}

func (c *checker) nodeLabels(at *field.Path, r *corev1.NodeSelectorRequirement, checkValues bool) {
	values := at.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			c.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			c.forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			c.required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
		}
	default:
		c.invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
	}
	c.add(metavalidation.ValidateLabelName(r.Key, at.Child("key"))...)
	if checkValues {
		c.nodeLabelValues(values, r)
	}
}

func (c *checker) nodeLabelValues(at *field.Path, r *corev1.NodeSelectorRequirement) {
	for i, v := range r.Values {
		c.reasons(at.Index(i), v, validation.IsValidLabelValue(v))
	}
}

// requiredNodeLabelValues is the part of required node affinity that old pods
// may break.
func (c *checker) requiredNodeLabelValues(at *field.Path, a *corev1.Affinity) {
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return
	}
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for i := range t.MatchExpressions {
			c.nodeLabelValues(at, &t.MatchExpressions[i])
		}
	}
}

// nodeFields: of a node's fields only the name can be selected, one at a time.
func (c *checker) nodeFields(at *field.Path, r *corev1.NodeSelectorRequirement) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			c.required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	default:
		c.invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
	}
	if r.Key != metav1.ObjectNameField {
		c.invalid(at.Child("key"), r.Key, "not a valid field selector key")
		return
	}
	for i, v := range r.Values {
		c.reasons(at.Child("values").Index(i), v, apivalidation.NameIsDNSSubdomain(v, false))
	}
}

// podTerms checks the terms of affinity or anti-affinity to pods.
func (c *checker) podTerms(at *field.Path, must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
	for i := range must {
		c.podTerm(at.Child(required).Index(i), &must[i])
	}
	for i := range may {
		p := at.Child(preferred).Index(i)
		c.weight(p.Child("weight"), may[i].Weight)
		c.podTerm(p.Child("podAffinityTerm"), &may[i].PodAffinityTerm)
	}
}

func (c *checker) podTerm(at *field.Path, t *corev1.PodAffinityTerm) {
	c.affinitySelectors(at, t)
	for _, name := range t.Namespaces {
		c.reasons(at.Child("namespace"), name, apivalidation.ValidateNamespaceName(name, false))
	}
	c.matchLabelKeys(at, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector)
	if t.TopologyKey == "" {
		c.required(at.Child("topologyKey"), "can not be empty")
	}
	c.add(metavalidation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
}

func (c *checker) affinitySelectors(at *field.Path, t *corev1.PodAffinityTerm) {
	opts := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.affinityLabelValues}
	c.add(metavalidation.ValidateLabelSelector(t.LabelSelector, opts, at.Child("labelSelector"))...)
	c.add(metavalidation.ValidateLabelSelector(t.NamespaceSelector, opts, at.Child("namespaceSelector"))...)
}

// eachAffinityTerm visits the terms of affinity and anti-affinity to pods;
// writes reach the spec.
func eachAffinityTerm(a *corev1.Affinity, visit func(*corev1.PodAffinityTerm)) {
	if a == nil {
		return
	}
	list := func(must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i := range must {
			visit(&must[i])
		}
		for i := range may {
			visit(&may[i].PodAffinityTerm)
		}
	}
	if p := a.PodAffinity; p != nil {
		list(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		list(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// matchLabelKeys checks keys whose values are taken from the pod itself. When
// this runs they have been merged into the selector already (PrepareCreate), so
// that a key given in both places is there twice.
func (c *checker) matchLabelKeys(at *field.Path, match, mismatch []string, selector *metav1.LabelSelector) {
	c.labelKeys(at.Child("matchLabelKeys"), match, selector)
	c.labelKeys(at.Child("mismatchLabelKeys"), mismatch, selector)
	if selector != nil {
		index := make(map[string]int, len(match))
		for i, key := range match {
			index[key] = i
		}
		seen := sets.KeySet(selector.MatchLabels)
		for _, r := range selector.MatchExpressions {
			if i, ok := index[r.Key]; ok && seen.Has(r.Key) {
				c.invalid(at.Index(i), r.Key, "exists in both matchLabelKeys and labelSelector")
			}
			seen.Insert(r.Key)
		}
	}
	not := sets.New(mismatch...)
	for i, key := range match {
		if not.Has(key) {
			c.invalid(at.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

func (c *checker) labelKeys(at *field.Path, keys []string, selector *metav1.LabelSelector) {
	switch {
	case len(keys) == 0:
	case selector == nil:
		c.forbidden(at, "must not be specified when labelSelector is not set")
	default:
		for i, key := range keys {
			c.add(metavalidation.ValidateLabelName(key, at.Index(i))...)
		}
	}
}
