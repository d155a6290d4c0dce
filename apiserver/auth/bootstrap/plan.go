package bootstrap

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/rbacrules"
)

// View is what a plan needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Write is one write of a plan: exactly one of Create, Update and Delete.
type Write struct {
	Resource *api.Resource
	Create   api.Object
	Update   api.Object
	Delete   api.Object
}

// Plan says what must be written for the objects of every cluster to be there.
// The writes of a plan do not depend on one another. Whoever has done a plan
// asks for the next one until it is empty: what is within a namespace that one
// plan creates is created by the next, and so is a binding that one plan had to
// delete because it led to another role.
//
// What is there keeps everything that was added to it: roles and bindings only
// ever gain the rules, subjects, labels and annotations that they lack, and
// none if their annotation says rbac.authorization.kubernetes.io/autoupdate:
// "false". Aggregated cluster roles get the rules of what they select.
func Plan(reg *api.Registry, view View) ([]Write, error) {
	var writes []Write
	clusterRoles := reg.Must(rbacv1.GroupName, "clusterroles")
	roles := map[string]*rbacv1.ClusterRole{}
	for obj := range view.List(clusterRoles, "") {
		roles[obj.GetName()] = obj.(*rbacv1.ClusterRole)
	}
	changed := map[string]bool{}
	namespaces := reg.Must("", "namespaces")
	for _, want := range Objects() {
		if ns := want.GetNamespace(); ns != "" && view.Get(namespaces, api.Key{Name: ns}) == nil {
			continue
		}
		r := reg.Of(want)
		have := view.Get(r, api.RefTo(r, want).Key())
		if want, ok := want.(*rbacv1.ClusterRole); ok {
			if have == nil {
				roles[want.Name], changed[want.Name] = want, true
			} else if next := reconcile(have, want); next != nil {
				roles[want.Name], changed[want.Name] = next.(*rbacv1.ClusterRole), true
			}
			continue
		}
		if have == nil {
			writes = append(writes, Write{Resource: r, Create: want})
		} else if next := reconcile(have, want); next != nil {
			writes = append(writes, Write{Resource: r, Update: next})
		} else if roleRefDiffers(have, want) {
			writes = append(writes, Write{Resource: r, Delete: have})
		}
	}
	if err := aggregate(roles, changed); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		if view.Get(clusterRoles, api.Key{Name: name}) == nil {
			writes = append(writes, Write{Resource: clusterRoles, Create: roles[name]})
		} else {
			writes = append(writes, Write{Resource: clusterRoles, Update: roles[name]})
		}
	}
	return writes, nil
}

// aggregate brings the rules of all aggregated roles up to date. It goes on
// until nothing changes, since one may gather another. Roles that gather one
// another in a circle need not settle; then all are left as they are.
func aggregate(roles map[string]*rbacv1.ClusterRole, changed map[string]bool) error {
	work, touched := maps.Clone(roles), map[string]bool{}
	inOrder := func(yield func(*rbacv1.ClusterRole) bool) {
		for _, name := range slices.Sorted(maps.Keys(work)) {
			if !yield(work[name]) {
				return
			}
		}
	}
	// Rules pass from role to role: the longest way has as many steps as there
	// are roles, and one more pass sees that nothing changes.
	for range len(work) + 1 {
		settled := true
		for r := range inOrder {
			if r.AggregationRule == nil {
				continue
			}
			rules, err := rbacrules.Aggregate(r, inOrder)
			if err != nil {
				return err
			}
			if equality.Semantic.DeepEqual(rules, r.Rules) {
				continue
			}
			next := r.DeepCopy()
			next.Rules = rules
			work[r.Name], touched[r.Name] = next, true
			settled = false
		}
		if settled {
			maps.Copy(roles, work)
			maps.Copy(changed, touched)
			return nil
		}
	}
	return nil
}

// reconcile is a copy of have with what it lacks, or nil if it lacks nothing.
func reconcile(have, want api.Object) api.Object {
	if have.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return nil
	}
	next := have.DeepCopyObject().(api.Object)
	next.SetLabels(merged(want.GetLabels(), have.GetLabels()))
	next.SetAnnotations(merged(want.GetAnnotations(), have.GetAnnotations()))
	switch want := want.(type) {
	case *rbacv1.ClusterRole:
		next := next.(*rbacv1.ClusterRole)
		next.Rules = lackingRules(next.Rules, want.Rules)
		if want.AggregationRule == nil {
			// One that was made to gather others would lose its own rules.
			next.AggregationRule = nil
		} else {
			next.AggregationRule = lackingSelectors(next.AggregationRule, want.AggregationRule)
		}
	case *rbacv1.Role:
		next := next.(*rbacv1.Role)
		next.Rules = lackingRules(next.Rules, want.Rules)
	case *rbacv1.ClusterRoleBinding:
		next := next.(*rbacv1.ClusterRoleBinding)
		next.Subjects = lackingSubjects(next.Subjects, want.Subjects)
		if next.RoleRef != want.RoleRef {
			return nil
		}
	case *rbacv1.RoleBinding:
		next := next.(*rbacv1.RoleBinding)
		next.Subjects = lackingSubjects(next.Subjects, want.Subjects)
		if next.RoleRef != want.RoleRef {
			return nil
		}
	default:
		// Of namespaces and priority classes the names are enough.
		return nil
	}
	if equality.Semantic.DeepEqual(next, have) {
		return nil
	}
	return next
}

// roleRefDiffers is true for a binding to another role, which cannot be
// changed. One that is not to be touched is left as it is.
func roleRefDiffers(have, want api.Object) bool {
	if have.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] == "false" {
		return false
	}
	switch want := want.(type) {
	case *rbacv1.ClusterRoleBinding:
		return have.(*rbacv1.ClusterRoleBinding).RoleRef != want.RoleRef
	case *rbacv1.RoleBinding:
		return have.(*rbacv1.RoleBinding).RoleRef != want.RoleRef
	}
	return false
}

// merged prefers the later map's values.
func merged(first, second map[string]string) map[string]string {
	m := map[string]string{}
	maps.Copy(m, first)
	maps.Copy(m, second)
	if len(m) == 0 {
		return nil
	}
	return m
}

// lackingRules adds what is not covered, in the single permissions into which
// Kubernetes takes apart rules that are covered in part.
func lackingRules(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	_, lacking := validation.Covers(have, want)
	return append(have, lacking...)
}

func lackingSelectors(have, want *rbacv1.AggregationRule) *rbacv1.AggregationRule {
	have = cmp.Or(have, &rbacv1.AggregationRule{})
	for _, selector := range want.ClusterRoleSelectors {
		same := func(s metav1.LabelSelector) bool { return equality.Semantic.DeepEqual(s, selector) }
		if !slices.ContainsFunc(have.ClusterRoleSelectors, same) {
			have.ClusterRoleSelectors = append(have.ClusterRoleSelectors, selector)
		}
	}
	return have
}

func lackingSubjects(have, want []rbacv1.Subject) []rbacv1.Subject {
	for _, subject := range want {
		if !slices.Contains(have, subject) {
			have = append(have, subject)
		}
	}
	return have
}
