package rbac

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Authorize allows what a rule allows and has no opinion on anything else.
// Bindings to roles that do not exist are the reason then.
func (x *Index) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	q := newQuestion(a)
	namespace := ""
	if q.resourceRequest {
		namespace = a.GetNamespace()
	}
	decision, reason := authorizer.DecisionNoOpinion, ""
	var broken []error

	x.mu.RLock()
	defer x.mu.RUnlock()
	x.visit(a.GetUser(), namespace, func(g *grant) bool {
		rules := x.roles[g.role]
		if rules == nil {
			broken = append(broken, missing(g.role, "clusterrole", "role"))
			return true
		}
		if rules.allow(&q) {
			decision, reason = authorizer.DecisionAllow, g.reason
		}
		return decision != authorizer.DecisionAllow
	})
	if decision != authorizer.DecisionAllow && len(broken) > 0 {
		reason = "RBAC: " + utilerrors.NewAggregate(broken).Error()
	}
	return decision, reason, nil
}

// RulesOf are all rules that a user has, cluster-wide and in the namespace.
// The error names bindings whose role does not exist; the rules are right
// nevertheless. They share memory with the roles.
func (x *Index) RulesOf(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var broken []error
	x.mu.RLock()
	defer x.mu.RUnlock()
	x.visit(u, namespace, func(g *grant) bool {
		if r := x.roles[g.role]; r != nil {
			rules = append(rules, r.source...)
		} else {
			broken = append(broken, missing(g.role, "clusterrole", "role"))
		}
		return true
	})
	return rules, utilerrors.NewAggregate(broken)
}

// RulesFor implements authorizer.RuleResolver.
func (x *Index) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := x.RulesOf(u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for i := range rules {
		r := &rules[i]
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames,
			})
		}
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}

// RulesOfRole are the rules that a binding in a namespace ("" for a cluster
// binding) would give; a role that does not exist is a NotFound status error.
func (x *Index) RulesOfRole(ref *rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	key := referenced(ref, namespace)
	x.mu.RLock()
	defer x.mu.RUnlock()
	if r := x.roles[key]; r != nil {
		return r.source, nil
	}
	return nil, missing(key, "clusterroles", "roles")
}
