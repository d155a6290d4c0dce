package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/util/jsonpath"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
)

// policies are the rules of admission policies and their bindings: what a policy
// is given as a parameter it may show, in messages and annotations, so who writes
// it must be allowed to read it.
type policies struct {
	registry   *api.Registry
	view       View
	authorizer authorizer.UnconditionalAuthorizer
}

// subject is a policy's kind of parameters or a binding's reference to some.
type subject struct {
	Kind   *admissionregistrationv1.ParamKind
	Policy string // of a binding
	Ref    *admissionregistrationv1.ParamRef
}

func subjectOf(obj api.Object) subject {
	switch o := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return subject{Kind: o.Spec.ParamKind}
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return subject{Kind: o.Spec.ParamKind}
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return subject{Policy: o.Spec.PolicyName, Ref: o.Spec.ParamRef}
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		return subject{Policy: o.Spec.PolicyName, Ref: o.Spec.ParamRef}
	}
	return subject{}
}

// unasked says that nobody need be asked: nothing is referred to, nothing has
// changed, the object is refused already, or the user may do everything.
func unasked(info *request.Info, obj, old api.Object, found field.ErrorList) bool {
	now := subjectOf(obj)
	return len(found) > 0 || now.Kind == nil && now.Ref == nil ||
		old != nil && equality.Semantic.DeepEqual(now, subjectOf(old)) ||
		slices.Contains(info.User.GetGroups(), user.SystemPrivilegedGroup)
}

// resource is what to ask about: everything, as far as a kind is not known.
func (p *policies) resource(kind *admissionregistrationv1.ParamKind) (a authorizer.AttributesRecord, unknown error) {
	a = authorizer.AttributesRecord{ResourceRequest: true, APIGroup: "*", APIVersion: "*", Resource: "*"}
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return a, fmt.Errorf("unable to parse paramKind %v", kind)
	}
	a.APIGroup, a.APIVersion = gv.Group, gv.Version
	served := p.registry.ByGVK(gv.WithKind(kind.Kind))
	if served == nil {
		return a, fmt.Errorf("unable to resolve paramKind %v", kind)
	}
	a.Resource = served.Plural
	return a, nil
}

func (p *policies) policy(ctx context.Context, info *request.Info, obj, old api.Object, found field.ErrorList) field.ErrorList {
	if unasked(info, obj, old, found) {
		return found
	}
	kind := subjectOf(obj).Kind
	a, _ := p.resource(kind)
	a.User, a.Verb, a.Name, a.Namespace = info.User, "get", "*", "*"
	why := fmt.Sprintf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`, info.User, kind.Kind, kind.APIVersion)
	return p.ask(ctx, a, "paramKind", why)
}

func (p *policies) binding(ctx context.Context, info *request.Info, obj, old api.Object, found field.ErrorList) field.ErrorList {
	if unasked(info, obj, old, found) {
		return found
	}
	s := subjectOf(obj)
	verb := "get"
	if s.Ref.Name == "" {
		verb = "list"
	}
	a := authorizer.AttributesRecord{ResourceRequest: true, APIGroup: "*", APIVersion: "*", Resource: "*"}
	everything := fmt.Sprintf(`to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`, info.User, verb)
	why := fmt.Sprintf(`user %v does not have "%v" permission on the object referenced by paramRef`, info.User, verb)
	plural := "validatingadmissionpolicies"
	if _, ok := obj.(*admissionregistrationv1.MutatingAdmissionPolicyBinding); ok {
		plural = "mutatingadmissionpolicies"
	}
	policy := p.view.Get(p.registry.Must(admissionregistrationv1.GroupName, plural), api.Key{Name: s.Policy})
	if policy == nil {
		why = fmt.Sprintf("unable to get policy %s %s", s.Policy, everything)
	} else if kind := subjectOf(policy).Kind; kind != nil {
		var unknown error
		if a, unknown = p.resource(kind); unknown != nil {
			why = fmt.Sprintf("%v %s", unknown, everything)
		}
	}
	a.User, a.Verb, a.Name, a.Namespace = info.User, verb, s.Ref.Name, s.Ref.Namespace
	return p.ask(ctx, a, "paramRef", why)
}

// ask refuses what the authorizer does not allow.
func (p *policies) ask(ctx context.Context, a authorizer.AttributesRecord, name, why string) field.ErrorList {
	decision, _, err := p.authorizer.Authorize(ctx, &a)
	switch {
	case err != nil:
		why = err.Error()
	case decision == authorizer.DecisionAllow:
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec", name), why)}
}

// typeChecking demands that warnings say where in the policy they belong.
func typeChecking(_ context.Context, _ *request.Info, obj, _ api.Object, found field.ErrorList) field.ErrorList {
	checked := obj.(*admissionregistrationv1.ValidatingAdmissionPolicy).Status.TypeChecking
	if checked == nil {
		return found
	}
	for i, w := range checked.ExpressionWarnings {
		ref := strings.TrimSpace(w.FieldRef)
		if ref == "" {
			continue // the row has said so
		}
		if err := jsonpath.New("spec").Parse(fmt.Sprintf("{%s}", ref)); err != nil {
			at := field.NewPath("status", "typeChecking", "expressionWarnings").Index(i).Child("fieldRef")
			found = append(found, field.Invalid(at, ref, fmt.Sprintf("invalid JSONPath: %v", err)))
		}
	}
	return found
}
