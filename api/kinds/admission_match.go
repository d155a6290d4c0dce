package kinds

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What webhooks, policies and bindings say about the requests that they are for.

var admissionOperations = []admissionregistrationv1.OperationType{
	admissionregistrationv1.OperationAll, admissionregistrationv1.Connect, admissionregistrationv1.Create,
	admissionregistrationv1.Delete, admissionregistrationv1.Update,
}

// mutableOperations are those with an object that could be changed.
var mutableOperations = []admissionregistrationv1.OperationType{
	admissionregistrationv1.OperationAll, admissionregistrationv1.Connect, admissionregistrationv1.Create, admissionregistrationv1.Update,
}

var admissionScopes = []admissionregistrationv1.ScopeType{
	admissionregistrationv1.AllScopes, admissionregistrationv1.ClusterScope, admissionregistrationv1.NamespacedScope,
}

// defaultMatch fills in what matches everything.
func defaultMatch(m *admissionregistrationv1.MatchResources) {
	if m == nil {
		return
	}
	fill(&m.MatchPolicy, admissionregistrationv1.Equivalent)
	fill(&m.NamespaceSelector, metav1.LabelSelector{})
	fill(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionregistrationv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			fill(&rules[i].Scope, admissionregistrationv1.AllScopes)
		}
	}
}

func validateMatch(m *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(path.Child("matchPolicy"), ""))
	} else {
		errs = append(errs, supported(*m.MatchPolicy, path.Child("matchPolicy"), matchPolicies...)...)
	}
	errs = append(errs, validateMatchSelector(m.NamespaceSelector, path.Child("namespaceSelector"))...)
	errs = append(errs, validateMatchSelector(m.ObjectSelector, path.Child("objectSelector"))...)
	for i := range m.ResourceRules {
		errs = append(errs, validateNamedRule(&m.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, validateNamedRule(&m.ExcludeResourceRules[i], path.Child("excludeResourceRules").Index(i))...)
	}
	return errs
}

func validateMatchSelector(s *metav1.LabelSelector, path *field.Path) field.ErrorList {
	if s == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, path)
}

// validateMutableOperations is for who changes objects: a deletion has none.
func validateMutableOperations(m *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	for _, rule := range m.ResourceRules {
		for _, op := range rule.Operations {
			errs = append(errs, supported(op, path.Child("resourceRules", "operations"), mutableOperations...)...)
		}
	}
	return errs
}

func validateNamedRule(r *admissionregistrationv1.NamedRuleWithOperations, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range r.ResourceNames {
		at := path.Child("resourceNames").Index(i)
		errs = append(errs, invalidEach(at, name, content.IsPathSegmentName(name))...)
		if slices.Contains(r.ResourceNames[:i], name) {
			errs = append(errs, field.Duplicate(at, name))
		}
	}
	return append(errs, validateAdmissionRule(&r.RuleWithOperations, path)...)
}

func validateAdmissionRule(r *admissionregistrationv1.RuleWithOperations, path *field.Path) field.ErrorList {
	operations, groups, versions := path.Child("operations"), path.Child("apiGroups"), path.Child("apiVersions")
	var errs field.ErrorList
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(operations, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionregistrationv1.OperationAll) {
		errs = append(errs, field.Invalid(operations, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, op := range r.Operations {
		errs = append(errs, supported(op, operations.Index(i), admissionOperations...)...)
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(groups, ""))
	}
	errs = append(errs, aloneIfWildcard(r.APIGroups, groups, "API groups")...)
	if len(r.APIVersions) == 0 {
		errs = append(errs, field.Required(versions, ""))
	}
	errs = append(errs, aloneIfWildcard(r.APIVersions, versions, "API versions")...)
	for i, v := range r.APIVersions {
		if v == "" {
			errs = append(errs, field.Required(versions.Index(i), ""))
		}
	}
	errs = append(errs, validateRuleResources(r.Resources, path.Child("resources"))...)
	if r.Scope != nil {
		errs = append(errs, supported(*r.Scope, path.Child("scope"), admissionScopes...)...)
	}
	return errs
}

// validateRuleResources refuses lists in which one entry has another in it.
func validateRuleResources(resources []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(resources) == 0 {
		errs = append(errs, field.Required(path, ""))
	}
	allOf, inAll := map[string]bool{}, map[string]bool{} // RESOURCE/* and */SUBRESOURCE
	plain := false                                       // of the last entry without a slash, as in Kubernetes
	for i, entry := range resources {
		at := path.Index(i)
		if entry == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		resource, sub, isSub := strings.Cut(entry, "/")
		if !isSub {
			plain = entry != wildcard
			continue
		}
		if allOf[resource] {
			errs = append(errs, field.Invalid(at, entry, fmt.Sprintf("if '%s/*' is present, must not specify %s", resource, entry)))
		}
		if inAll[sub] {
			errs = append(errs, field.Invalid(at, entry, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, entry)))
		}
		if sub == wildcard {
			allOf[resource] = true
		}
		if resource == wildcard {
			inAll[sub] = true
		}
	}
	if len(resources) > 1 && slices.Contains(resources, "*/*") {
		errs = append(errs, field.Invalid(path, resources, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(resources, wildcard) {
		errs = append(errs, field.Invalid(path, resources, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}
