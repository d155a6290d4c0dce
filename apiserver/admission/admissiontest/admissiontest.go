// Package admissiontest runs admission plugins on single writes in tests.
package admissiontest

import (
	"context"
	"maps"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// Node is the user of a node's agent.
func Node(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}

// Create is the attributes of a create by a user.
func Create(reg *api.Registry, u user.Info, obj api.Object) *admission.Attributes {
	return &admission.Attributes{Operation: admission.Create, Resource: reg.Of(obj), Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj, User: u}
}

// Update is the attributes of an update by a user.
func Update(reg *api.Registry, u user.Info, obj, old api.Object) *admission.Attributes {
	a := Create(reg, u, obj)
	a.Operation, a.Old = admission.Update, old
	return a
}

// Delete is the attributes of a delete by a user.
func Delete(reg *api.Registry, u user.Info, old api.Object) *admission.Attributes {
	a := Create(reg, u, old)
	a.Operation, a.Old, a.Object = admission.Delete, old, nil
	return a
}

// Post is the attributes of a body posted to a subresource of an object.
func Post(reg *api.Registry, u user.Info, parent api.Object, subresource string, body runtime.Object) *admission.Attributes {
	a := Create(reg, u, parent)
	a.Subresource, a.Object = subresource, body
	return a
}

// Run runs a plugin, or a chain of them, as the request layer does: first Admit,
// then Validate.
func Run(ctx context.Context, plugin any, a *admission.Attributes) error {
	chain, ok := plugin.(admission.Chain)
	if !ok {
		chain = admission.Chain{{Plugin: plugin}}
	}
	if err := chain.Admit(ctx, a); err != nil {
		return err
	}
	return chain.Validate(ctx, a)
}

// Expect fails the test unless the plugin admits the write, for an empty want,
// or else refuses it with that text and status code.
func Expect(t *testing.T, name string, plugin any, a *admission.Attributes, code int32, want string) {
	t.Helper()
	err := Run(t.Context(), plugin, a)
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != code || err.Error() != want {
		t.Errorf("%s: %v\nwant %d %s", name, err, code, want)
	}
}

// Chain is plugins that are kept by name, in no order: for those that look at
// different writes.
func Chain(plugins map[string]any) admission.Chain {
	return admission.Pick(slices.Sorted(maps.Keys(plugins)), plugins)
}
