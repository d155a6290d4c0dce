package kinds

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	admissioncel "k8s.io/apiserver/pkg/admission/plugin/cel"
)

const maxAuditAnnotations = 20

var (
	validationReasons = []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge}
	validationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Audit, admissionregistrationv1.Deny, admissionregistrationv1.Warn}
	mutationTypes     = []admissionregistrationv1.PatchType{admissionregistrationv1.PatchTypeApplyConfiguration, admissionregistrationv1.PatchTypeJSONPatch}
)

// validateValidatingPolicy gets a nil old on create.
func validateValidatingPolicy(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
	spec, path := &p.Spec, field.NewPath("spec")
	x, same := newExpressions(spec.ParamKind != nil), false
	if old != nil {
		x.keepConditions(old.Spec.MatchConditions)
		x.keepVariables(old.Spec.Variables)
		for _, v := range old.Spec.Validations {
			x.keep(v.Expression, v.MessageExpression)
		}
		for _, a := range old.Spec.AuditAnnotations {
			x.keep(a.ValueExpression)
		}
		same = sameConditions(spec.ParamKind, old.Spec.ParamKind, spec.MatchConditions, old.Spec.MatchConditions)
	}
	errs := validatePolicyTarget(spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, path)
	if !same {
		errs = append(errs, x.validateConditions(spec.MatchConditions, path.Child("matchConditions"))...)
	}
	errs = append(errs, x.validateVariables(spec.Variables, len(spec.Variables) > 0, path.Child("variables"))...)
	validations, annotations := path.Child("validations"), path.Child("auditAnnotations")
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const missing = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(validations, missing), field.Required(annotations, missing))
	}
	for i := range spec.Validations {
		errs = append(errs, x.validateValidation(&spec.Validations[i], validations.Index(i))...)
	}
	if len(spec.AuditAnnotations) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(annotations, spec.AuditAnnotations, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	keys := map[string]bool{}
	for i := range spec.AuditAnnotations {
		a, at := &spec.AuditAnnotations[i], annotations.Index(i)
		errs = append(errs, x.validateAnnotation(p.Name, a, at)...)
		if keys[a.Key] {
			errs = append(errs, field.Duplicate(at.Child("key"), a.Key))
		}
		keys[a.Key] = true
	}
	return errs
}

// validateMutatingPolicy gets a nil old on create.
func validateMutatingPolicy(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
	spec, path := &p.Spec, field.NewPath("spec")
	x, same := newExpressions(spec.ParamKind != nil), false
	if old != nil {
		x.keepConditions(old.Spec.MatchConditions)
		x.keepVariables(old.Spec.Variables)
		for _, m := range old.Spec.Mutations {
			if m.ApplyConfiguration != nil {
				x.keep(strings.TrimSpace(m.ApplyConfiguration.Expression))
			}
			if m.JSONPatch != nil {
				x.keep(strings.TrimSpace(m.JSONPatch.Expression))
			}
		}
		same = sameConditions(spec.ParamKind, old.Spec.ParamKind, spec.MatchConditions, old.Spec.MatchConditions)
	}
	errs := validatePolicyTarget(spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, path)
	errs = append(errs, validateMutableOperations(spec.MatchConstraints, path.Child("matchConstraints"))...)
	if !same {
		errs = append(errs, x.validateConditions(spec.MatchConditions, path.Child("matchConditions"))...)
	}
	errs = append(errs, x.validateVariables(spec.Variables, true, path.Child("variables"))...)
	mutations := path.Child("mutations")
	if len(spec.Mutations) == 0 {
		errs = append(errs, field.Required(mutations, "mutations must contain at least one item"))
	}
	for i := range spec.Mutations {
		errs = append(errs, x.validateMutation(&spec.Mutations[i], mutations.Index(i))...)
	}
	return append(errs, oneOf(spec.ReinvocationPolicy, path.Child("reinvocationPolicy"), reinvocations...)...)
}

// sameConditions says that what conditions depend on has not changed, so that
// they need not be compiled again.
func sameConditions(now, was *admissionregistrationv1.ParamKind, conditions, before []admissionregistrationv1.MatchCondition) bool {
	return equality.Semantic.DeepEqual(now, was) && equality.Semantic.DeepEqual(conditions, before)
}

// validatePolicyTarget checks what a policy is for.
func validatePolicyTarget(failure *admissionregistrationv1.FailurePolicyType, kind *admissionregistrationv1.ParamKind, match *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if failure == nil {
		errs = append(errs, field.Required(path.Child("failurePolicy"), ""))
	} else {
		errs = append(errs, supported(*failure, path.Child("failurePolicy"), failurePolicies...)...)
	}
	if kind != nil {
		errs = append(errs, validateParamKind(kind, path.Child("paramKind"))...)
	}
	constraints := path.Child("matchConstraints")
	if match == nil {
		return append(errs, field.Required(constraints, ""))
	}
	errs = append(errs, validateMatch(match, constraints)...)
	if len(match.ResourceRules) == 0 {
		errs = append(errs, field.Required(constraints.Child("resourceRules"), ""))
	}
	return errs
}

func validateParamKind(k *admissionregistrationv1.ParamKind, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("apiVersion")
	group, version, isGroup := strings.Cut(k.APIVersion, "/")
	if !isGroup {
		group, version = "", k.APIVersion
	}
	switch {
	case k.APIVersion == "":
		errs = append(errs, field.Required(at, ""))
	case strings.Count(k.APIVersion, "/") > 1:
		errs = append(errs, field.Invalid(at, k.APIVersion, "unexpected GroupVersion string: "+k.APIVersion))
	default:
		if group != "" {
			errs = append(errs, joined(at, group, "", validation.IsDNS1123Subdomain(group))...)
		}
		if version == "" {
			errs = append(errs, field.Invalid(at, k.APIVersion, "version must be specified"))
		} else {
			errs = append(errs, joined(at, version, "", validation.IsDNS1035Label(version))...)
		}
	}
	if k.Kind == "" {
		return append(errs, field.Required(path.Child("kind"), ""))
	}
	return append(errs, joined(path.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: ", validation.IsDNS1035Label(strings.ToLower(k.Kind)))...)
}

// joined is one error for all messages about a value.
func joined(path *field.Path, value, before string, msgs []string) field.ErrorList {
	if len(msgs) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, before+strings.Join(msgs, ","))}
}

func (e *expressions) keepVariables(variables []admissionregistrationv1.Variable) {
	for _, v := range variables {
		e.keep(v.Expression)
	}
}

// validateVariables compiles the variables in order: each may use those before
// it. composed lets what follows be compiled with them.
func (e *expressions) validateVariables(variables []admissionregistrationv1.Variable, composed bool, path *field.Path) field.ErrorList {
	if composed {
		if err := e.compose(); err != nil {
			return field.ErrorList{field.InternalError(path, err)}
		}
	}
	var errs field.ErrorList
	for i := range variables {
		errs = append(errs, e.validateVariable(&variables[i], path.Index(i))...)
	}
	return errs
}

func (e *expressions) validateValidation(v *admissionregistrationv1.Validation, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	} else {
		x := &expression{text: v.Expression, returns: conditionTypes}
		errs = append(errs, e.validate(x, admissioncel.OptionalVariableDeclarations{HasAuthorizer: true}, path.Child("expression"))...)
	}
	if v.MessageExpression != "" {
		at := path.Child("messageExpression")
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(at, v.MessageExpression, "must be non-empty if specified"))
		} else {
			x := &expression{text: v.MessageExpression, returns: messageTypes}
			errs = append(errs, e.validate(x, admissioncel.OptionalVariableDeclarations{}, at)...)
		}
	}
	switch message := strings.TrimSpace(v.Message); {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must be non-empty if specified"))
	case strings.ContainsAny(message, "\n\r"):
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must not contain line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, supported(*v.Reason, path.Child("reason"), validationReasons...)...)
	}
	return errs
}

func (e *expressions) validateMutation(m *admissionregistrationv1.Mutation, path *field.Path) field.ErrorList {
	apply, patch := path.Child("applyConfiguration"), path.Child("jsonPatch")
	errs := oneOf(m.PatchType, path.Child("patchType"), mutationTypes...)
	switch m.PatchType {
	case admissionregistrationv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(patch, "must be specified when patchType is JSONPatch"))
		} else {
			errs = append(errs, e.validateChange(m.JSONPatch.Expression, patchTypes, patch.Child("expression"))...)
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
	case admissionregistrationv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		} else {
			errs = append(errs, e.validateChange(m.ApplyConfiguration.Expression, applyTypes, apply.Child("expression"))...)
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
	}
	return errs
}

func (e *expressions) validateChange(text string, returns []*cel.Type, path *field.Path) field.ErrorList {
	text = strings.TrimSpace(text)
	if text == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return e.validate(&expression{text: text, returns: returns}, admissioncel.OptionalVariableDeclarations{HasAuthorizer: true, HasPatchTypes: true}, path)
}

func validateValidatingBinding(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateBindingTarget(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, path)
	if b.Spec.PolicyName == "" {
		errs[0].MarkBeta()
	}
	actions, at := b.Spec.ValidationActions, path.Child("validationActions")
	for i, a := range actions {
		errs = append(errs, supported(a, at.Index(i), validationActions...)...)
		if slices.Contains(actions[:i], a) {
			errs = append(errs, field.Duplicate(at.Index(i), a))
		}
	}
	if slices.Contains(actions, admissionregistrationv1.Deny) && slices.Contains(actions, admissionregistrationv1.Warn) {
		errs = append(errs, field.Invalid(at, actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	if len(actions) == 0 {
		errs = append(errs, field.Required(at, "").MarkBeta())
	}
	return errs
}

func validateMutatingBinding(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateBindingTarget(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, path)
	return append(errs, validateMutableOperations(b.Spec.MatchResources, path.Child("matchResources"))...)
}

func validateBindingTarget(policy string, params *admissionregistrationv1.ParamRef, match *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(path.Child("policyName"), ""))
	} else {
		errs = append(errs, invalidEach(path.Child("policyName"), policy, apivalidation.NameIsDNSSubdomain(policy, false))...)
	}
	errs = append(errs, validateParamRef(params, path.Child("paramRef"))...)
	return append(errs, validateMatch(match, path.Child("matchResources"))...)
}

func validateParamRef(r *admissionregistrationv1.ParamRef, path *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	const exclusive = "name and selector are mutually exclusive"
	var errs field.ErrorList
	if r.Name != "" {
		errs = append(errs, invalidEach(path.Child("name"), r.Name, content.IsPathSegmentName(r.Name))...)
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(path.Child("name"), exclusive))
		}
	}
	if r.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(r.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
		if r.Name != "" {
			errs = append(errs, field.Forbidden(path.Child("selector"), exclusive))
		}
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(path, "one of name or selector must be specified"))
	}
	action := path.Child("parameterNotFoundAction")
	if r.ParameterNotFoundAction == nil {
		return append(errs, field.Required(action, ""))
	}
	return append(errs, oneOf(*r.ParameterNotFoundAction, action, admissionregistrationv1.DenyAction, admissionregistrationv1.AllowAction)...)
}

func validatePolicyStatus(s *admissionregistrationv1.ValidatingAdmissionPolicyStatus) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	if s.TypeChecking != nil {
		for i, w := range s.TypeChecking.ExpressionWarnings {
			at := path.Child("typeChecking", "expressionWarnings").Index(i)
			if w.Warning == "" {
				errs = append(errs, field.Required(at.Child("warning"), ""))
			}
			// A rule of the server knows what a path looks like.
			if strings.TrimSpace(w.FieldRef) == "" {
				errs = append(errs, field.Required(at.Child("fieldRef"), ""))
			}
		}
	}
	return append(errs, metav1validation.ValidateConditions(s.Conditions, path.Child("conditions"))...)
}
