package rules_test

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/apiserver/request/rules"
)

// Who writes a policy or binding that refers to parameters must be allowed to read
// them, unless the reference was there before.
func TestParametersAreAuthorized(t *testing.T) {
	view := requesttest.Store(t).View()
	all := rules.New(kinds.Registry(), view, requesttest.AdminOnly)
	policy := func(kind string) api.Object {
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
		if kind != "" {
			p.Spec.ParamKind = &admissionregistrationv1.ParamKind{APIVersion: "v1", Kind: kind}
		}
		return p
	}
	binding := func(name string) api.Object {
		b := &admissionregistrationv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
		b.Spec.PolicyName, b.Spec.ParamRef = "gone", &admissionregistrationv1.ParamRef{Name: name}
		return b
	}
	nobody, admin := user.Info(requesttest.Nobody), user.Info(requesttest.Admin)
	for name, c := range map[string]struct {
		who      user.Info
		obj, old api.Object
		found    field.ErrorList
		want     string
	}{
		"no parameters":     {nobody, policy(""), nil, nil, ""},
		"may not read":      {nobody, policy("Secret"), nil, nil, `spec.paramKind: Forbidden: user &{u  [system:authenticated] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)`},
		"the administrator": {admin, policy("Secret"), nil, nil, ""},
		"as before":         {nobody, policy("Secret"), policy("Secret"), nil, ""},
		"another kind":      {nobody, policy("Secret"), policy("ConfigMap"), nil, `must have "get" permission`},
		"invalid already":   {nobody, policy("Secret"), nil, field.ErrorList{field.Required(field.NewPath("x"), "")}, "x: Required value"},
		"no such policy":    {nobody, binding("a"), nil, nil, `spec.paramRef: Forbidden: unable to get policy gone to determine minimum required permissions`},
		"same reference":    {nobody, binding("a"), binding("a"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			row := kinds.Registry().Of(c.obj)
			info := requesttest.Info("create", "admissionregistration.k8s.io/v1", row.Plural, "", "")
			info.User = c.who
			errs := all[row.GroupResource().String()].Validate(t.Context(), info, c.obj, c.old, c.found)
			switch {
			case c.want == "" && len(errs) > 0:
				t.Errorf("refused: %v", errs)
			case c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)):
				t.Errorf("found %v, want %s", errs, c.want)
			}
		})
	}
}

// Warnings say by a path where they belong.
func TestTypeCheckingPaths(t *testing.T) {
	all := rules.New(kinds.Registry(), requesttest.Store(t).View(), requesttest.AdminOnly)
	check := all["validatingadmissionpolicies.admissionregistration.k8s.io/status"].Validate
	p := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	p.Status.TypeChecking = &admissionregistrationv1.TypeChecking{ExpressionWarnings: []admissionregistrationv1.ExpressionWarning{{FieldRef: "spec.validations[0].expression"}, {FieldRef: "spec.validations["}}}
	errs := check(t.Context(), nil, p, p, nil)
	if len(errs) != 1 || errs[0].Field != "status.typeChecking.expressionWarnings[1].fieldRef" || !strings.Contains(errs[0].Detail, "invalid JSONPath") {
		t.Errorf("found %v", errs)
	}
}
