// Package admission decides what may be written, beyond authorization and
// validation. A plugin is a value with one or both of the two methods below;
// the request layer calls them in chain order.
package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
)

// Operation is what is being done.
type Operation string

// The operations that admission sees. Reads are never admitted.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes describe one write. Object belongs to the request and may be
// changed by a Mutator; Old is frozen.
type Attributes struct {
	Operation   Operation
	Resource    *api.Resource
	Subresource string
	Namespace   string
	Name        string // empty on create with generateName
	// Object is nil on delete; for a subresource with a body of its own
	// (binding, eviction, token, exec) it is that body.
	Object runtime.Object
	// Old is nil on create and connect.
	Old    api.Object
	User   user.Info
	DryRun bool
	// Warn adds a Warning header to the answer.
	Warn func(string)
}

// Mutator may change Attributes.Object. An error is the API status error that
// answers the request.
type Mutator interface {
	Admit(ctx context.Context, a *Attributes) error
}

// Validator may refuse; it changes nothing.
type Validator interface {
	Validate(ctx context.Context, a *Attributes) error
}

// Chain is the ordered list of plugins; each is a Mutator, a Validator or both.
type Chain []any

// Admit calls every Mutator in order; the first refusal ends it.
func (c Chain) Admit(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if m, ok := p.(Mutator); ok {
			if err := m.Admit(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate calls every Validator in order; the first refusal ends it.
func (c Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if v, ok := p.(Validator); ok {
			if err := v.Validate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// OnlyCollectorFields is true for an update that changes nothing but what the
// garbage collector does in letting an object go: it gives nobody anything.
func OnlyCollectorFields(a *Attributes) bool {
	obj, ok := a.Object.(api.Object)
	if !ok {
		return false
	}
	obj = obj.DeepCopyObject().(api.Object)
	obj.SetOwnerReferences(a.Old.GetOwnerReferences())
	obj.SetFinalizers(a.Old.GetFinalizers())
	obj.SetManagedFields(a.Old.GetManagedFields())
	obj.SetResourceVersion(a.Old.GetResourceVersion())
	return equality.Semantic.DeepEqual(obj, a.Old)
}
