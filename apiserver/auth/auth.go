// Package auth puts together who may do what: members of system:masters may do
// everything, nodes what the Node authorizer allows, and everybody what the
// cluster's roles allow. The parts are in the packages below it.
package auth

import (
	"context"
	"slices"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Decider is one authorizer of a chain.
type Decider interface {
	authorizer.UnconditionalAuthorizer
	authorizer.RuleResolver
}

// Authorizer is a whole chain, whether or not it may change.
type Authorizer interface {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// Chain asks authorizers in order until one has an opinion. Members of
// system:masters are allowed everything before that.
type Chain []Decider

var _ authorizer.Authorizer = Chain(nil)
var _ authorizer.RuleResolver = Chain(nil)

// Authorize implements authorizer.Authorizer. Without an opinion the reasons of
// all are the reason.
func (c Chain) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := a.GetUser(); u == nil {
		return authorizer.DecisionNoOpinion, "no user on request.", nil
	} else if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	var reasons []string
	var errs []error
	for _, z := range c {
		decision, reason, err := z.Authorize(ctx, a)
		if err != nil {
			errs = append(errs, err)
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
		if decision != authorizer.DecisionNoOpinion {
			return decision, reason, err
		}
	}
	return authorizer.DecisionNoOpinion, strings.Join(reasons, "\n"), utilerrors.NewAggregate(errs)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; no decision here
// has conditions.
func (c Chain) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(c.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer: there are none.
func (c Chain) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesFor implements authorizer.RuleResolver.
func (c Chain) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	var incomplete bool
	var errs []error
	for _, z := range c {
		r, p, i, err := z.RulesFor(ctx, u, namespace)
		resources, paths, incomplete = append(resources, r...), append(paths, p...), incomplete || i
		if err != nil {
			errs = append(errs, err)
		}
	}
	return resources, paths, incomplete, utilerrors.NewAggregate(errs)
}
