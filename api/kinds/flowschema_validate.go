package kinds

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
)

// wildcard stands for everything in lists of rules.
const wildcard = "*"

// flowVerbs are those that a rule may name, sorted as the refusal lists them.
var flowVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func validateFlowSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateFlowSchemaSpec(f, path)
	for _, fixed := range bootstrap.MandatoryFlowSchemas {
		if fixed.Name == f.Name && !equality.Semantic.DeepEqual(f.Spec, fixed.Spec) {
			errs = append(errs, field.Invalid(path, f.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", f.Name)))
		}
	}
	return append(errs, validateFlowSchemaStatus(f)...)
}

func validateFlowSchemaSpec(f *flowcontrolv1.FlowSchema, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	spec := &f.Spec
	precedence := path.Child("matchingPrecedence")
	if spec.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(precedence, spec.MatchingPrecedence, "must be a positive value"))
	}
	if most := flowcontrolv1.FlowSchemaMaxMatchingPrecedence; spec.MatchingPrecedence > most {
		errs = append(errs, field.Invalid(precedence, spec.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", most)))
	}
	if spec.MatchingPrecedence == 1 && f.Name != flowcontrolv1.FlowSchemaNameExempt {
		errs = append(errs, field.Invalid(precedence, spec.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	methods := []flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}
	if m := spec.DistinguisherMethod; m != nil && !slices.Contains(methods, m.Type) {
		errs = append(errs, field.NotSupported(path.Child("distinguisherMethod", "type"), m, methods))
	}
	level := path.Child("priorityLevelConfiguration", "name")
	if name := spec.PriorityLevelConfiguration.Name; name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		errs = append(errs, invalidEach(level, name, apivalidation.NameIsDNSSubdomain(name, false))...)
	}
	for i := range spec.Rules {
		errs = append(errs, validateFlowRules(&spec.Rules[i], path.Child("rules").Index(i))...)
	}
	return errs
}

func validateFlowRules(rules *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(rules.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range rules.Subjects {
		errs = append(errs, validateFlowSubject(&rules.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(rules.ResourceRules)+len(rules.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range rules.ResourceRules {
		errs = append(errs, validateFlowResourceRule(&rules.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range rules.NonResourceRules {
		errs = append(errs, validateFlowURLRule(&rules.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

// validateFlowSubject demands the one member that the kind is about.
func validateFlowSubject(s *flowcontrolv1.Subject, path *field.Path) field.ErrorList {
	members := []struct {
		kind  flowcontrolv1.SubjectKind
		name  string
		set   bool
		check func(*field.Path) field.ErrorList
	}{
		{flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil, func(at *field.Path) field.ErrorList {
			return validateFlowServiceAccount(s.ServiceAccount, at)
		}},
		{flowcontrolv1.SubjectKindUser, "user", s.User != nil, func(at *field.Path) field.ErrorList { return named(s.User.Name, at.Child("name")) }},
		{flowcontrolv1.SubjectKindGroup, "group", s.Group != nil, func(at *field.Path) field.ErrorList { return named(s.Group.Name, at.Child("name")) }},
	}
	known := []flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser}
	if !slices.Contains(known, s.Kind) {
		return field.ErrorList{field.NotSupported(path.Child("kind"), s.Kind, known)}
	}
	var errs field.ErrorList
	for _, m := range members {
		switch at := path.Child(m.name); {
		case m.kind != s.Kind:
		case m.set:
			errs = append(errs, m.check(at)...)
		default:
			errs = append(errs, field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", m.name, m.kind)))
		}
	}
	for _, m := range members {
		if m.kind != s.Kind && m.set {
			errs = append(errs, field.Forbidden(path.Child(m.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", m.name, m.kind)))
		}
	}
	return errs
}

func named(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

func validateFlowServiceAccount(s *flowcontrolv1.ServiceAccountSubject, path *field.Path) field.ErrorList {
	errs := named(s.Name, path.Child("name"))
	if s.Name != "" && s.Name != flowcontrolv1.NameAll {
		errs = append(errs, invalidEach(path.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, invalidEach(path.Child("namespace"), s.Namespace, apivalidation.ValidateNamespaceName(s.Namespace, false))...)
}

func validateFlowVerbs(verbs []string, path *field.Path) field.ErrorList {
	switch {
	case len(verbs) == 0:
		return field.ErrorList{field.Required(path, "verbs must contain at least one value")}
	case slices.Contains(verbs, wildcard):
		return aloneIfWildcard(verbs, path, "verbs")
	case !sets.New(flowVerbs...).HasAll(verbs...):
		return field.ErrorList{field.NotSupported(path, verbs, flowVerbs)}
	}
	return nil
}

// aloneIfWildcard demands that nothing stands beside a wildcard.
func aloneIfWildcard(list []string, path *field.Path, what string) field.ErrorList {
	if len(list) > 1 && slices.Contains(list, wildcard) {
		return field.ErrorList{field.Invalid(path, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

func validateFlowURLRule(r *flowcontrolv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateFlowVerbs(r.Verbs, path.Child("verbs"))
	urls := path.Child("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		errs = append(errs, field.Required(urls, "nonResourceURLs must contain at least one value"))
	case slices.Contains(r.NonResourceURLs, wildcard):
		errs = append(errs, aloneIfWildcard(r.NonResourceURLs, urls, "non-resource URLs")...)
	default:
		for i, url := range r.NonResourceURLs {
			if flaw := urlFlaw(url); flaw != "" {
				errs = append(errs, field.Invalid(urls.Index(i), url, flaw))
			}
		}
	}
	return errs
}

func urlFlaw(url string) string {
	switch {
	case url == "":
		return "must not be empty"
	case url == "/":
		return ""
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	}
	if n := strings.Count(url, wildcard); n > 1 || n == 1 && !strings.HasSuffix(url, "/*") {
		return "wildcard can only do suffix matching"
	}
	return ""
}

func validateFlowResourceRule(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateFlowVerbs(r.Verbs, path.Child("verbs"))
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	errs = append(errs, aloneIfWildcard(r.APIGroups, path.Child("apiGroups"), "api groups")...)
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	errs = append(errs, aloneIfWildcard(r.Resources, path.Child("resources"), "resources")...)
	namespaces := path.Child("namespaces")
	switch {
	case len(r.Namespaces) == 0 && !r.ClusterScope:
		errs = append(errs, field.Required(namespaces, "resource rules that are not cluster scoped must supply at least one namespace"))
	case slices.Contains(r.Namespaces, wildcard):
		errs = append(errs, aloneIfWildcard(r.Namespaces, namespaces, "namespaces")...)
	default:
		for i, name := range r.Namespaces {
			for _, msg := range apivalidation.ValidateNamespaceName(name, false) {
				errs = append(errs, field.Invalid(namespaces.Index(i), name, "each member of this list must be '*' or a DNS-1123 label; "+msg))
			}
		}
	}
	return errs
}

func validateFlowSchemaStatus(f *flowcontrolv1.FlowSchema) field.ErrorList {
	types := make([]string, 0, len(f.Status.Conditions))
	for _, c := range f.Status.Conditions {
		types = append(types, string(c.Type))
	}
	return validateConditionTypes(types, field.NewPath("status", "conditions"))
}

// validateConditionTypes demands that each condition has a type of its own.
func validateConditionTypes(types []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range types {
		at := path.Index(i).Child("type")
		if slices.Contains(types[:i], t) {
			errs = append(errs, field.Duplicate(at, t))
		}
		errs = append(errs, named(t, at)...)
	}
	return errs
}
