package webhook

import (
	"slices"
	"strings"

	registrationv1 "k8s.io/api/admissionregistration/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// rules are those of all webhooks of a generation. They say whether one of them
// could match, going by names alone: the library decides.
type rules []registrationv1.RuleWithOperations

// virtual are the reviews (feature ExcludeAdmissionWebhookVirtualResources).
var virtual = kinds.NotAdmitted()

// exempt are the resources that nobody is ever asked about: the reviews, and what
// says who is asked.
func exempt(r *api.Resource) bool {
	return r.Group == registrationv1.GroupName || slices.Contains(virtual, r.GroupResource())
}

// name says whether a rule names an operation on a resource or subresource, in any
// of its versions.
func (rs rules) name(r *api.Resource, subresource, operation string) bool {
	if len(rs) == 0 || exempt(r) {
		return false
	}
	return slices.ContainsFunc(rs, func(rule registrationv1.RuleWithOperations) bool {
		return slices.ContainsFunc(rule.Operations, func(op registrationv1.OperationType) bool {
			return op == registrationv1.OperationAll || string(op) == operation
		}) && inGroup(&rule, r) && slices.ContainsFunc(rule.Resources, func(s string) bool {
			main, sub, _ := strings.Cut(s, "/")
			return (main == "*" || main == r.Plural) && (sub == "*" || sub == subresource)
		})
	})
}

// nameAny says whether a rule names any write to a resource or its subresources.
func (rs rules) nameAny(r *api.Resource) bool {
	if len(rs) == 0 || exempt(r) {
		return false
	}
	return slices.ContainsFunc(rs, func(rule registrationv1.RuleWithOperations) bool {
		writes := slices.ContainsFunc(rule.Operations, func(op registrationv1.OperationType) bool { return op != registrationv1.Connect })
		return writes && inGroup(&rule, r) && slices.ContainsFunc(rule.Resources, func(s string) bool {
			main, _, _ := strings.Cut(s, "/")
			return main == "*" || main == r.Plural
		})
	})
}

// inGroup goes by all groups that a resource is served in, since one that is
// asked for in another group may be equivalent.
func inGroup(rule *registrationv1.RuleWithOperations, r *api.Resource) bool {
	return slices.ContainsFunc(rule.APIGroups, func(g string) bool {
		return g == "*" || g == r.Group || slices.ContainsFunc(r.Versions, func(v api.Version) bool { return v.Group == g })
	})
}
