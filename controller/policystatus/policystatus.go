// Package policystatus checks the types of the expressions of
// ValidatingAdmissionPolicies, and writes what it finds into their status. What it
// finds stops no policy.
package policystatus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/api/openapi/paths"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Manager is the field manager of the status.
const Manager = "validatingadmissionpolicy-status"

// Loop is the controller of the status of policies.
type Loop struct {
	client   client.Interface
	policies *api.Resource
	check    func(*admissionregistrationv1.ValidatingAdmissionPolicy) []admissionregistrationv1.ExpressionWarning
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	types := known{registry: c.Registry(), documents: openapi.NewDefined(c.Registry(), nil)}
	return &Loop{
		client:   c,
		policies: c.Registry().Must(admissionregistrationv1.GroupName, "validatingadmissionpolicies"),
		check:    (&validating.TypeChecker{SchemaResolver: types, RestMapper: types}).Check,
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "validatingadmissionpolicy-status-controller" }

// Sources are the policies whose status is of another generation.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{{Resource: l.policies, Keys: func(_, new api.Object) []api.Key {
		if p, ok := new.(*admissionregistrationv1.ValidatingAdmissionPolicy); ok && due(p) {
			return []api.Key{{Name: p.Name}}
		}
		return nil
	}}}
}

func due(p *admissionregistrationv1.ValidatingAdmissionPolicy) bool {
	return p.Generation > p.Status.ObservedGeneration
}

// Step checks one policy.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	p, ok := l.client.View().Get(l.policies, key).(*admissionregistrationv1.ValidatingAdmissionPolicy)
	if !ok || !due(p) {
		return 0, nil
	}
	status := &admissionregistrationv1.ValidatingAdmissionPolicyStatus{
		ObservedGeneration: p.Generation,
		TypeChecking:       &admissionregistrationv1.TypeChecking{ExpressionWarnings: l.check(p.DeepCopy())},
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": admissionregistrationv1.SchemeGroupVersion.String(), "kind": "ValidatingAdmissionPolicy",
		"metadata": map[string]any{"name": p.Name}, "status": status,
	})
	if err != nil {
		return 0, err
	}
	force := true
	_, err = l.client.Patch(ctx, api.RefTo(l.policies, p), types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: Manager, Force: &force}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("apply status of validating admission policy %s: %w", p.Name, err)
	}
	return 0, nil
}

// known are the kinds that are served, as the library asks for them.
type known struct {
	meta.RESTMapper // nil: the checker asks for kinds only
	registry        *api.Registry
	documents       *openapi.Defined
}

var _ resolver.SchemaResolver = known{}

// KindsFor implements meta.RESTMapper, for resources without a wildcard.
func (k known) KindsFor(gvr schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	served := k.registry.ByGVR(gvr)
	if served == nil {
		return nil, &meta.NoResourceMatchError{PartialResource: gvr}
	}
	return []schema.GroupVersionKind{served.Version.WithKind(served.Kind)}, nil
}

// ResolveSchema gives the schema of a kind without references, from the OpenAPI
// document of its group and version, which it decodes each time: policies are
// rarely written.
func (k known) ResolveSchema(gvk schema.GroupVersionKind) (*spec.Schema, error) {
	document, ok := k.documents.V3()[paths.Root(gvk.GroupVersion())]
	if !ok {
		return nil, resolver.ErrSchemaNotFound
	}
	r, err := document.Open()
	if err != nil {
		return nil, fmt.Errorf("open the schemas of %s: %w", gvk.GroupVersion(), err)
	}
	defer r.Close()
	var doc struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("decode the schemas of %s: %w", gvk.GroupVersion(), err)
	}
	const prefix = "#/components/schemas/"
	for name, s := range doc.Components.Schemas {
		if describes(s, gvk) {
			return resolver.PopulateRefs(func(ref string) (*spec.Schema, bool) {
				s, ok := doc.Components.Schemas[ref[min(len(prefix), len(ref)):]]
				return s, ok
			}, prefix+name)
		}
	}
	return nil, resolver.ErrSchemaNotFound
}

// describes says whether a schema is that of a kind, and not of one that only
// speaks for it (DeleteOptions are of every group).
func describes(s *spec.Schema, gvk schema.GroupVersionKind) bool {
	list, _ := s.Extensions["x-kubernetes-group-version-kind"].([]any)
	if len(list) != 1 {
		return false
	}
	m, _ := list[0].(map[string]any)
	return m["group"] == gvk.Group && m["version"] == gvk.Version && m["kind"] == gvk.Kind
}
