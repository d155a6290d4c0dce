package kinds

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func role() *api.Resource {
	validate := func(r *rbacv1.Role) field.ErrorList { return validatePolicyRules(r.Rules, true) }
	return stored[rbacv1.Role, *rbacv1.Role, rbacv1.RoleList](rbacv1.SchemeGroupVersion, &api.Resource{
		Plural:                   "roles",
		Singular:                 "role",
		Kind:                     "Role",
		Namespaced:               true,
		Prefix:                   "roles",
		NameRule:                 rbacName,
		Validate:                 validates(validate),
		ValidateUpdate:           validatesUpdate(func(r, _ *rbacv1.Role) field.ErrorList { return validate(r) }),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table:                    plainTable(),
	})
}

func clusterRole() *api.Resource {
	return stored[rbacv1.ClusterRole, *rbacv1.ClusterRole, rbacv1.ClusterRoleList](rbacv1.SchemeGroupVersion, &api.Resource{
		Plural:                   "clusterroles",
		Singular:                 "clusterrole",
		Kind:                     "ClusterRole",
		Prefix:                   "clusterroles",
		NameRule:                 rbacName,
		Validate:                 validates(validateClusterRole),
		ValidateUpdate:           validatesUpdate(func(r, _ *rbacv1.ClusterRole) field.ErrorList { return validateClusterRole(r) }),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table:                    plainTable(),
	})
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := validatePolicyRules(r.Rules, false)
	if r.AggregationRule == nil {
		return errs
	}
	at := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		selector := &r.AggregationRule.ClusterRoleSelectors[i]
		errs = append(errs, metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, at.Index(i))...)
		if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
			errs = append(errs, field.Invalid(at.Index(i), nil, "invalid label selector."))
		}
	}
	return errs
}
