package kinds

import (
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// Whoever writes a policy with a paramKind, or a binding with a paramRef, must be
// allowed to read those parameters: a rule of the server asks.

func validatingAdmissionPolicy() *api.Resource {
	gv := admissionregistrationv1.SchemeGroupVersion
	return stored[admissionregistrationv1.ValidatingAdmissionPolicy, *admissionregistrationv1.ValidatingAdmissionPolicy, admissionregistrationv1.ValidatingAdmissionPolicyList](gv, &api.Resource{
		Plural:       "validatingadmissionpolicies",
		Singular:     "validatingadmissionpolicy",
		Kind:         "ValidatingAdmissionPolicy",
		Categories:   []string{"api-extensions"},
		Prefix:       "validatingadmissionpolicies",
		ChecksBase:   true,
		AnyFinalizer: true,
		Default:      on(defaultValidatingPolicy),
		PrepareCreate: on(func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
			p.Status = admissionregistrationv1.ValidatingAdmissionPolicyStatus{}
			p.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) {
			p.Status = *old.Status.DeepCopy()
			defaultValidatingPolicy(p)
			countChange(p, old, p.Spec, old.Spec)
		}),
		Validate: validates(func(p *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
			return append(validateValidatingPolicy(p, nil), isNoStaticName(p.Name)...)
		}),
		ValidateUpdate: validatesUpdate(validateValidatingPolicy),
		Warnings: warns(func(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) []string {
			return onlyOnUpdate(p.Name, old != nil)
		}),
		ResetFields: resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Validations", "integer", "Validations indicates the number of validation rules defined in this configuration"),
				column("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy"),
				ageColumn(),
			},
			Row: cells(func(p *admissionregistrationv1.ValidatingAdmissionPolicy, now time.Time) []any {
				return []any{p.Name, int64(len(p.Spec.Validations)), paramKindCell(p.Spec.ParamKind), age(p.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) {
					p.Spec = *old.Spec.DeepCopy()
					keepMeta(p, old)
				}),
				ValidateUpdate: validatesUpdate(func(p, _ *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
					return validatePolicyStatus(&p.Status)
				}),
				ResetFields: resets(gv, "metadata", "spec"),
			},
		},
	})
}

func mutatingAdmissionPolicy() *api.Resource {
	gv := admissionregistrationv1.SchemeGroupVersion
	return stored[admissionregistrationv1.MutatingAdmissionPolicy, *admissionregistrationv1.MutatingAdmissionPolicy, admissionregistrationv1.MutatingAdmissionPolicyList](gv, &api.Resource{
		Plural:        "mutatingadmissionpolicies",
		Singular:      "mutatingadmissionpolicy",
		Kind:          "MutatingAdmissionPolicy",
		Categories:    []string{"api-extensions"},
		Prefix:        "mutatingadmissionpolicies",
		ChecksBase:    true,
		AnyFinalizer:  true,
		Default:       on(defaultMutatingPolicy),
		PrepareCreate: on(func(p *admissionregistrationv1.MutatingAdmissionPolicy) { p.Generation = 1 }),
		PrepareUpdate: onUpdate(func(p, old *admissionregistrationv1.MutatingAdmissionPolicy) {
			defaultMutatingPolicy(p)
			countChange(p, old, p.Spec, old.Spec)
		}),
		Validate: validates(func(p *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
			return append(validateMutatingPolicy(p, nil), isNoStaticName(p.Name)...)
		}),
		ValidateUpdate: validatesUpdate(validateMutatingPolicy),
		Warnings: warns(func(p, old *admissionregistrationv1.MutatingAdmissionPolicy) []string {
			return onlyOnUpdate(p.Name, old != nil)
		}),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Mutations", "integer", "Mutation indicates the number of mutations rules defined in this configuration"),
				column("ParamKind", "string", "ParamKind specifies the kind of resources used to parameterize this policy"),
				ageColumn(),
			},
			Row: cells(func(p *admissionregistrationv1.MutatingAdmissionPolicy, now time.Time) []any {
				return []any{p.Name, int64(len(p.Spec.Mutations)), paramKindCell(p.Spec.ParamKind), age(p.CreationTimestamp, now)}
			}),
		},
	})
}

func validatingAdmissionPolicyBinding() *api.Resource {
	r := stored[admissionregistrationv1.ValidatingAdmissionPolicyBinding, *admissionregistrationv1.ValidatingAdmissionPolicyBinding, admissionregistrationv1.ValidatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "validatingadmissionpolicybindings",
		Singular: "validatingadmissionpolicybinding",
		Kind:     "ValidatingAdmissionPolicyBinding",
		Validate: validates(func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return append(validateValidatingBinding(b), isNoStaticName(b.Name)...)
		}),
		ValidateUpdate: validatesUpdate(func(b, _ *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return validateValidatingBinding(b)
		}),
	})
	return policyBinding(r, func(obj api.Object) bindingParts {
		spec := obj.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding).Spec
		return bindingParts{spec, spec.MatchResources, spec.PolicyName, spec.ParamRef}
	})
}

func mutatingAdmissionPolicyBinding() *api.Resource {
	r := stored[admissionregistrationv1.MutatingAdmissionPolicyBinding, *admissionregistrationv1.MutatingAdmissionPolicyBinding, admissionregistrationv1.MutatingAdmissionPolicyBindingList](admissionregistrationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "mutatingadmissionpolicybindings",
		Singular: "mutatingadmissionpolicybinding",
		Kind:     "MutatingAdmissionPolicyBinding",
		Validate: validates(func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
			return append(validateMutatingBinding(b), isNoStaticName(b.Name)...)
		}),
		ValidateUpdate: validatesUpdate(func(b, _ *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
			return validateMutatingBinding(b)
		}),
	})
	return policyBinding(r, func(obj api.Object) bindingParts {
		spec := obj.(*admissionregistrationv1.MutatingAdmissionPolicyBinding).Spec
		return bindingParts{spec, spec.MatchResources, spec.PolicyName, spec.ParamRef}
	})
}

func defaultValidatingPolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
	fill(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
	defaultMatch(p.Spec.MatchConstraints)
}

func defaultMutatingPolicy(p *admissionregistrationv1.MutatingAdmissionPolicy) {
	fill(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
	defaultMatch(p.Spec.MatchConstraints)
}

// onlyOnUpdate warns of names that a new object cannot have any more.
func onlyOnUpdate(name string, update bool) []string {
	if !update {
		return nil
	}
	return staticWarnings(name)
}

// notSet is what a cell of these kinds shows that has no value.
const notSet = "<unset>"

func paramKindCell(k *admissionregistrationv1.ParamKind) string {
	if k == nil {
		return notSet
	}
	return k.APIVersion + "/" + k.Kind
}

// bindingParts are what both kinds of bindings have.
type bindingParts struct {
	spec   any
	match  *admissionregistrationv1.MatchResources
	policy string
	params *admissionregistrationv1.ParamRef
}

// policyBinding adds what both kinds of bindings have in common.
func policyBinding(r *api.Resource, parts func(api.Object) bindingParts) *api.Resource {
	r.Categories, r.Prefix, r.AnyFinalizer = []string{"api-extensions"}, r.Plural, true
	r.ChecksBase = true
	r.Default = func(obj api.Object) { defaultMatch(parts(obj).match) }
	r.PrepareCreate = func(obj api.Object) { obj.SetGeneration(1) }
	r.PrepareUpdate = func(obj, old api.Object) {
		defaultMatch(parts(obj).match)
		countChange(obj, old, parts(obj).spec, parts(old).spec)
	}
	r.Warnings = func(obj, old api.Object) []string { return onlyOnUpdate(obj.GetName(), old != nil) }
	r.Table = &api.Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("PolicyName", "string", "PolicyName indicates the policy definition which the policy binding binded to"),
			column("ParamRef", "string", "ParamRef indicates the param resource which sets the configuration param"),
			ageColumn(),
		},
		Row: func(obj api.Object, now time.Time) []any {
			b := parts(obj)
			return []any{obj.GetName(), b.policy, paramRefCell(b.params), age(obj.GetCreationTimestamp(), now)}
		},
	}
	return r
}

func paramRefCell(r *admissionregistrationv1.ParamRef) string {
	switch {
	case r == nil:
		return notSet
	case r.Name != "" && r.Namespace != "":
		return r.Namespace + "/" + r.Name
	case r.Name != "":
		return wildcard + "/" + r.Name
	case r.Selector != nil:
		return r.Selector.String()
	}
	return notSet
}
