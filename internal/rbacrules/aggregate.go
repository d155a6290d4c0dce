// Package rbacrules works with rules of roles, for those who decide by them and
// those who keep them.
package rbacrules

import (
	"fmt"
	"iter"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Aggregate gives the rules that a ClusterRole with an aggregation rule should
// have: those of all others that one of its selectors selects, each once. roles
// come in order of name. Since what is selected may itself be aggregated,
// whoever keeps rules up to date asks again when they changed.
func Aggregate(role *rbacv1.ClusterRole, roles iter.Seq[*rbacv1.ClusterRole]) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("aggregate cluster role %s: selector %d: %w", role.Name, i, err)
		}
		for other := range roles {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, rule := range other.Rules {
				same := func(r rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(r, rule) }
				if !slices.ContainsFunc(rules, same) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
