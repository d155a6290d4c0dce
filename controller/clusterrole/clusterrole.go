// Package clusterrole keeps the rules of aggregated ClusterRoles: the union of
// those of the roles that they select.
package clusterrole

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/rbacrules"
)

// Loop is the ClusterRole aggregation controller.
type Loop struct {
	client client.Interface
	roles  *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{client: c, roles: c.Registry().Must(rbacv1.GroupName, "clusterroles")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "clusterrole-aggregation-controller" }

// Sources are the roles: a change of one concerns every aggregated one, of which
// there are few.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{{Resource: l.roles, Keys: func(old, new api.Object) []api.Key {
		if old != nil && new != nil && equality.Semantic.DeepEqual(old.(*rbacv1.ClusterRole).Rules, new.(*rbacv1.ClusterRole).Rules) &&
			equality.Semantic.DeepEqual(old.GetLabels(), new.GetLabels()) && equality.Semantic.DeepEqual(old.(*rbacv1.ClusterRole).AggregationRule, new.(*rbacv1.ClusterRole).AggregationRule) {
			return nil
		}
		var keys []api.Key
		for o := range l.client.View().List(l.roles, "") {
			if o.(*rbacv1.ClusterRole).AggregationRule != nil {
				keys = append(keys, api.Key{Name: o.GetName()})
			}
		}
		if r, ok := new.(*rbacv1.ClusterRole); ok && r.AggregationRule != nil {
			keys = append(keys, api.Key{Name: r.Name})
		}
		return keys
	}}}
}

// Step brings the rules of one aggregated role up to date.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	role, ok := view.Get(l.roles, key).(*rbacv1.ClusterRole)
	if !ok || role.AggregationRule == nil || role.DeletionTimestamp != nil {
		return 0, nil
	}
	var roles []*rbacv1.ClusterRole
	for o := range view.List(l.roles, "") {
		roles = append(roles, o.(*rbacv1.ClusterRole))
	}
	slices.SortFunc(roles, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	rules, err := rbacrules.Aggregate(role, slices.Values(roles))
	if err != nil {
		return 0, err
	}
	if equality.Semantic.DeepEqual(rules, role.Rules) {
		return 0, nil
	}
	role = role.DeepCopy()
	role.Rules = rules
	if _, err := l.client.Update(ctx, l.roles, role, ""); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update rules of cluster role %s: %w", key.Name, err)
	}
	return 0, nil
}
