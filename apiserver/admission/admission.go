// Package admission decides what may be written, beyond authorization and
// validation. A plugin is a value with one or both of the two methods below;
// the request layer calls them in chain order.
package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	Operation Operation
	Resource  *api.Resource
	// Served is the version of Resource that the request speaks, and Kind that of
	// its body: the subresource's own (Scale, Eviction, PodExecOptions), or
	// Served's.
	Served      *api.Served
	Kind        schema.GroupVersionKind
	Subresource string
	Namespace   string
	Name        string // empty on create with generateName
	// Collection says that the object is deleted as one of many, of which the
	// request names none.
	Collection bool
	// Object is nil on delete; for a subresource with a body of its own
	// (binding, eviction, token, exec) it is that body.
	Object runtime.Object
	// Old is nil on create and connect.
	Old api.Object
	// Options are those of the request (metav1.CreateOptions, UpdateOptions,
	// PatchOptions, DeleteOptions), whose they stay; nil on connect. A patch, or
	// an update that creates, has its own still.
	Options runtime.Object
	User    user.Info
	DryRun  bool
	// Warn adds a Warning header to the answer.
	Warn func(string)

	// Reinvoke is set by a Mutator that wants all of them to be called once more,
	// as it changed what earlier ones have seen; Reinvoked says that they are.
	Reinvoke, Reinvoked bool
	// Library is what package upstream keeps from one plugin to the next.
	Library any

	ends []func(error)
}

// OnEnd has f called when it is known what became of the create or update of an
// object that a Validator has admitted: stored, and seen by every reader, or else
// the error why not. Other operations have no end.
func (a *Attributes) OnEnd(f func(err error)) { a.ends = append(a.ends, f) }

// End calls what OnEnd gave, once. Whoever has such a write validated calls it,
// also after a refusal.
func (a *Attributes) End(err error) {
	ends := a.ends
	a.ends = nil
	for _, f := range ends {
		f(err)
	}
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

// Waiter is a plugin that may have to wait for others before it decides.
type Waiter interface {
	// Waits says whether it may have to at this write.
	Waits(a *Attributes) bool
}

// Named is a plugin, which is a Mutator, a Validator or both, under the name that
// Kubernetes has for it.
type Named struct {
	Name   string
	Plugin any
}

// Chain is the ordered list of plugins.
type Chain []Named

// External is a plugin that asks servers of others, which may take long.
type External interface {
	// Asks says whether it may ask about writes to a resource: no lock may be held
	// then while it is called.
	Asks(r *api.Resource) bool
}

// Asks says whether a plugin may ask others about writes to a resource.
func (c Chain) Asks(r *api.Resource) bool {
	for _, p := range c {
		if e, ok := p.Plugin.(External); ok && e.Asks(r) {
			return true
		}
	}
	return false
}

// Admit calls every Mutator in order, and all of them once more if one of them
// wants that; the first refusal ends it.
func (c Chain) Admit(ctx context.Context, a *Attributes) error {
	if err := c.admit(ctx, a); err != nil || !a.Reinvoke {
		return err
	}
	a.Reinvoked = true
	return c.admit(ctx, a)
}

func (c Chain) admit(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if m, ok := p.Plugin.(Mutator); ok {
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
		if v, ok := p.Plugin.(Validator); ok {
			if err := v.Validate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Waits says whether some plugin may have to wait at this write: who has several
// lets them wait together.
func (c Chain) Waits(a *Attributes) bool {
	for _, p := range c {
		if w, ok := p.Plugin.(Waiter); ok && w.Waits(a) {
			return true
		}
	}
	return false
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
