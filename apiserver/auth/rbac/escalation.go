package rbac

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// ConfirmNoEscalation refuses rules that the user does not have himself in the
// namespace ("" for cluster-wide); the error lists what is missing.
func (x *Index) ConfirmNoEscalation(u user.Info, namespace string, rules []rbacv1.PolicyRule) error {
	own, broken := x.RulesOf(u, namespace)
	covered, lacking := validation.Covers(own, rules)
	if covered {
		return nil
	}
	var texts []string
	for _, rule := range compact(lacking) {
		texts = append(texts, describe(&rule))
	}
	slices.Sort(texts)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(slices.Compact(texts), "\n"))
	if broken != nil {
		msg += fmt.Sprintf("; resolution errors: %v", []error{broken})
	}
	return errors.New(msg)
}

// compact joins rules about the same resource that differ in verbs alone.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	type about struct{ group, resource, name string }
	var joined []rbacv1.PolicyRule
	place := map[about]int{}
	for _, r := range rules {
		if len(r.NonResourceURLs) > 0 || len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.ResourceNames) > 1 {
			joined = append(joined, r)
			continue
		}
		key := about{group: r.APIGroups[0], resource: r.Resources[0]}
		if len(r.ResourceNames) == 1 {
			key.name = r.ResourceNames[0]
		}
		i, seen := place[key]
		if !seen {
			place[key] = len(joined)
			r.Verbs = slices.Clone(r.Verbs)
			joined = append(joined, r)
			continue
		}
		joined[i].Verbs = append(joined[i].Verbs, r.Verbs...)
	}
	return joined
}

func describe(r *rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", r.APIGroups},
		{"Resources", r.Resources},
		{"NonResourceURLs", r.NonResourceURLs},
		{"ResourceNames", r.ResourceNames},
		{"Verbs", r.Verbs},
	} {
		if len(p.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
