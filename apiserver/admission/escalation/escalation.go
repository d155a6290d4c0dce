// Package escalation keeps users from giving, by roles and bindings, what they
// do not have themselves. Who may "escalate" a role may put any rule into it,
// and who may "bind" a role may give it to anybody.
package escalation

import (
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// Rules answers from the cluster's roles.
type Rules interface {
	ConfirmNoEscalation(u user.Info, namespace string, rules []rbacv1.PolicyRule) error
	RulesOfRole(ref *rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// Plugin is a validator.
type Plugin struct {
	rules      Rules
	authorizer authorizer.UnconditionalAuthorizer
}

// New is the plugin. z decides about "escalate" and "bind".
func New(rules Rules, z authorizer.UnconditionalAuthorizer) *Plugin { return &Plugin{rules, z} }

// all is what only an administrator of the cluster has.
var all = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource.Group != rbacv1.GroupName || a.Subresource != "" {
		return nil
	}
	if a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	if slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) {
		return nil
	}
	if a.Operation == admission.Update && admission.OnlyCollectorFields(a) {
		return nil
	}
	switch obj := a.Object.(type) {
	case *rbacv1.Role:
		return p.role(ctx, a, obj.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := a.Old.(*rbacv1.ClusterRole)
		return p.role(ctx, a, obj.Rules, aggregates(obj) || old != nil && aggregates(old))
	case *rbacv1.RoleBinding:
		return p.binding(ctx, a, &obj.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return p.binding(ctx, a, &obj.RoleRef)
	}
	return nil
}

func (p *Plugin) role(ctx context.Context, a *admission.Attributes, rules []rbacv1.PolicyRule, aggregates bool) error {
	name := a.Name
	if a.Operation == admission.Create {
		name = "" // a create is authorized before its body, and so its name, is read
	}
	if p.allowed(ctx, a, "escalate", a.Resource.Plural, name) {
		return nil
	}
	if err := p.rules.ConfirmNoEscalation(a.User, a.Namespace, rules); err != nil {
		return refusal.Forbidden(a, "%v", err)
	}
	// What a selector will gather is not known yet.
	if aggregates && p.rules.ConfirmNoEscalation(a.User, a.Namespace, all) != nil {
		return refusal.Forbidden(a, "must have cluster-admin privileges to use the aggregationRule")
	}
	return nil
}

func (p *Plugin) binding(ctx context.Context, a *admission.Attributes, ref *rbacv1.RoleRef) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if p.allowed(ctx, a, "bind", resource, ref.Name) {
		return nil
	}
	rules, err := p.rules.RulesOfRole(ref, a.Namespace)
	if err != nil {
		return err
	}
	if err := p.rules.ConfirmNoEscalation(a.User, a.Namespace, rules); err != nil {
		return refusal.Forbidden(a, "%v", err)
	}
	return nil
}

// allowed asks about the role in the namespace of the write: for a binding, the
// one in which it would give the role.
func (p *Plugin) allowed(ctx context.Context, a *admission.Attributes, verb, resource, name string) bool {
	decision, _, _ := p.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User:            a.User,
		Verb:            verb,
		Namespace:       a.Namespace,
		APIGroup:        rbacv1.GroupName,
		APIVersion:      "*",
		Resource:        resource,
		Name:            name,
		ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}
