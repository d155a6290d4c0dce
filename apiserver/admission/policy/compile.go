package policy

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// stored is how expressions are compiled that have been let in already. One that
// does not compile all the same fails when it is evaluated.
const stored = environment.StoredExpressions

// newCompiler is one that knows the variables of a policy.
func newCompiler(variables []admissionregistrationv1.Variable, decls cel.OptionalVariableDeclarations) (*cel.CompositedCompiler, error) {
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, fmt.Errorf("make a compiler: %w", err)
	}
	for _, v := range variables {
		c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, decls, stored)
	}
	return c, nil
}

// conditions is nil if there are none.
func conditions(c *cel.CompositedCompiler, list []admissionregistrationv1.MatchCondition, decls cel.OptionalVariableDeclarations,
	failure *admissionregistrationv1.FailurePolicyType, verb, policy string,
) matchconditions.Matcher {
	if len(list) == 0 {
		return nil
	}
	all := make([]cel.ExpressionAccessor, 0, len(list))
	for i := range list {
		all = append(all, (*matchconditions.MatchCondition)(&list[i]))
	}
	return matchconditions.NewMatcher(c.CompileCondition(all, decls, stored), failure, "policy", verb, policy)
}

func compileValidating(p *admissionregistrationv1.ValidatingAdmissionPolicy) validating.Validator {
	spec := &p.Spec
	decls := cel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil, HasAuthorizer: true}
	unasked := cel.OptionalVariableDeclarations{HasParams: decls.HasParams} // messages do not ask who may what
	c, err := newCompiler(spec.Variables, decls)
	if err != nil {
		return validating.NewValidator(nil, nil, nil, nil, spec.FailurePolicy, err)
	}
	// Messages have the places of their validations; most have none.
	validations, messages := make([]cel.ExpressionAccessor, len(spec.Validations)), make([]cel.ExpressionAccessor, len(spec.Validations))
	for i, v := range spec.Validations {
		validations[i] = &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}
		if v.MessageExpression != "" {
			messages[i] = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
	}
	var annotations []cel.ExpressionAccessor
	for _, a := range spec.AuditAnnotations {
		annotations = append(annotations, &validating.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression})
	}
	return validating.NewValidator(
		c.CompileCondition(validations, decls, stored),
		conditions(c, spec.MatchConditions, decls, spec.FailurePolicy, "validate", p.Name),
		c.CompileCondition(annotations, decls, stored),
		c.CompileCondition(messages, unasked, stored),
		spec.FailurePolicy, nil,
	)
}

// compileMutating makes a patcher for each mutation: the library counts them.
func compileMutating(p *admissionregistrationv1.MutatingAdmissionPolicy) mutating.PolicyEvaluator {
	spec := &p.Spec
	decls := cel.OptionalVariableDeclarations{HasParams: spec.ParamKind != nil, HasAuthorizer: true}
	c, err := newCompiler(spec.Variables, decls)
	if err != nil {
		return mutating.PolicyEvaluator{Error: &apiservercel.Error{Type: apiservercel.ErrorTypeInternal, Detail: err.Error()}}
	}
	e := mutating.PolicyEvaluator{
		CompositedCompiler: c,
		Matcher:            conditions(c, spec.MatchConditions, decls, spec.FailurePolicy, "admit", p.Name),
	}
	decls.HasPatchTypes = true
	for _, m := range spec.Mutations {
		switch {
		case m.PatchType == admissionregistrationv1.PatchTypeJSONPatch && m.JSONPatch != nil:
			x := &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}
			e.Mutators = append(e.Mutators, patch.NewJSONPatcher(c.CompileMutatingEvaluator(x, decls, stored)))
		case m.PatchType == admissionregistrationv1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			x := &patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}
			e.Mutators = append(e.Mutators, patch.NewApplyConfigurationPatcher(c.CompileMutatingEvaluator(x, decls, stored)))
		}
	}
	return e
}
