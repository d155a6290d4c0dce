package kinds

import (
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func roleBinding() *api.Resource {
	validate := func(b *rbacv1.RoleBinding) field.ErrorList {
		return validateBinding(&b.RoleRef, b.Subjects, true, "Role", "ClusterRole")
	}
	return stored[rbacv1.RoleBinding, *rbacv1.RoleBinding, rbacv1.RoleBindingList](rbacv1.SchemeGroupVersion, &api.Resource{
		Plural:     "rolebindings",
		Singular:   "rolebinding",
		Kind:       "RoleBinding",
		Namespaced: true,
		Prefix:     "rolebindings",
		NameRule:   rbacName,
		Default:    on(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate:   validates(validate),
		ValidateUpdate: validatesUpdate(func(b, old *rbacv1.RoleBinding) field.ErrorList {
			return append(validate(b), unchanged(b.RoleRef, old.RoleRef, field.NewPath("roleRef")).MarkBeta()...)
		}),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: bindingColumns("roleBinding", rbacv1beta1.RoleBinding{}.SwaggerDoc()["roleRef"]),
			Row: cells(func(b *rbacv1.RoleBinding, now time.Time) []any {
				return bindingCells(b.Name, age(b.CreationTimestamp, now), &b.RoleRef, b.Subjects)
			}),
		},
	})
}

func clusterRoleBinding() *api.Resource {
	validate := func(b *rbacv1.ClusterRoleBinding) field.ErrorList {
		return validateBinding(&b.RoleRef, b.Subjects, false, "ClusterRole")
	}
	return stored[rbacv1.ClusterRoleBinding, *rbacv1.ClusterRoleBinding, rbacv1.ClusterRoleBindingList](rbacv1.SchemeGroupVersion, &api.Resource{
		Plural:   "clusterrolebindings",
		Singular: "clusterrolebinding",
		Kind:     "ClusterRoleBinding",
		Prefix:   "clusterrolebindings",
		NameRule: rbacName,
		Default:  on(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) }),
		Validate: validates(validate),
		ValidateUpdate: validatesUpdate(func(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
			return append(validate(b), unchanged(b.RoleRef, old.RoleRef, field.NewPath("roleRef")).MarkBeta()...)
		}),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: bindingColumns("clusterRoleBinding", rbacv1beta1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"]),
			Row: cells(func(b *rbacv1.ClusterRoleBinding, now time.Time) []any {
				return bindingCells(b.Name, age(b.CreationTimestamp, now), &b.RoleRef, b.Subjects)
			}),
		},
	})
}
