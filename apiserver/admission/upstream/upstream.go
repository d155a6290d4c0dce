// Package upstream runs the admission plugins of Kubernetes' library (webhooks,
// policies) in a chain of ours. Objects of a request are hubs: Go types without
// their kind, or custom resources. The library gets the former as they are and
// converts copies of them, and the latter as trees; what it changes comes back
// into the object of the request, with defaults, and pruned if there is a schema.
//
//	admission.Attributes ─ review ─▶ library Attributes + ObjectInterfaces
//	  Object (hub) ──Convert: shallow copy with a kind──▶ versioned object ─▶ plugin
//	  Object (hub) ◀──Convert: decode, prune, default──── changed object  ◀─┘
//
// Nothing is converted before a plugin asks for it. Old objects are frozen: they
// are shown, in a shallow copy that has their kind.
package upstream

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	library "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// Adapter shows writes to plugins of the library. It may be used from any
// goroutine.
type Adapter struct {
	registry *api.Registry
	mapper   mapper
}

// New makes an adapter for the kinds of a registry, which it follows as they come
// and go.
func New(reg *api.Registry) *Adapter { return &Adapter{registry: reg, mapper: mapper{reg}} }

// Admit has a mutating plugin look at a write. Its annotations go into the audit
// event of the context, its warnings to the client.
func (x *Adapter) Admit(ctx context.Context, p library.MutationInterface, a *admission.Attributes) error {
	r, err := x.review(a)
	if err != nil {
		return err
	}
	again := r.attributes.GetReinvocationContext()
	if a.Reinvoked {
		again.SetIsReinvoke()
	}
	ctx, warn := warnings(ctx)
	err = library.WithAudit(p).(library.MutationInterface).Admit(ctx, r.attributes, r)
	warn.tell(a)
	if again.ShouldReinvoke() {
		a.Reinvoke = true
	}
	return err
}

// Validate has a validating plugin look at a write.
func (x *Adapter) Validate(ctx context.Context, p library.ValidationInterface, a *admission.Attributes) error {
	r, err := x.review(a)
	if err != nil {
		return err
	}
	ctx, warn := warnings(ctx)
	err = library.WithAudit(p).(library.ValidationInterface).Validate(ctx, r.attributes, r)
	warn.tell(a)
	return err
}

// review is one write as the library's plugins see it: their ObjectInterfaces for
// it and, kept from one plugin to the next, their Attributes.
type review struct {
	x          *Adapter
	a          *admission.Attributes
	attributes library.Attributes
	// Of a custom resource: the trees that stand for the object, and for the old
	// one, which is old.
	tree, oldTree *unstructured.Unstructured
	old           tree
}

var _ library.ObjectInterfaces = (*review)(nil)

// tree is an object that is shown as a tree: a custom resource.
type tree interface {
	api.Object
	// UnstructuredContent is a map of the caller's own, without the kind, whose
	// values are to be read only.
	UnstructuredContent() map[string]any
}

// review gives what a write was shown as before, brought up to date.
func (x *Adapter) review(a *admission.Attributes) (*review, error) {
	r, _ := a.Library.(*review)
	if r != nil {
		r.refresh()
		return r, nil
	}
	r = &review{x: x, a: a}
	object, old := a.Object, runtime.Object(nil)
	if _, ok := object.(tree); ok {
		r.tree = &unstructured.Unstructured{}
		object = r.tree
		r.refresh()
	}
	if a.Old != nil {
		old = a.Old
	}
	if _, ok := old.(tree); ok {
		seen := a.Old
		if a.Served.Version.FromHub != nil {
			var err error
			if seen, err = a.Served.Version.FromHub(seen); err != nil {
				return nil, err
			}
		}
		r.old = seen.(tree)
		r.oldTree = &unstructured.Unstructured{Object: shown(r.old, a.Served)}
		old = r.oldTree
	}
	name := a.Name
	if a.Collection {
		name = ""
	}
	gvr := a.Served.Version.WithResource(a.Served.Plural)
	r.attributes = library.NewAttributesRecord(object, old, a.Kind, a.Namespace, name, gvr, a.Subresource,
		library.Operation(a.Operation), options(a), a.DryRun, a.User)
	a.Library = r
	return r, nil
}

// refresh takes over what the plugins of our own have changed in the meantime.
func (r *review) refresh() {
	if r.tree != nil {
		r.tree.Object = shown(r.a.Object.(tree), r.a.Served)
	}
}

// shown is the content of a custom resource with the kind of a version.
func shown(obj tree, served *api.Served) map[string]any {
	content := obj.UnstructuredContent()
	content["apiVersion"], content["kind"] = served.Version.String(), served.Kind
	return content
}

// options are those of the request as the library has them for the operation, with
// their kind: of a patch those of the update or create that it turned out to be.
func options(a *admission.Attributes) runtime.Object {
	create := func(dryRun []string, manager, validation string) runtime.Object {
		return withKind(&metav1.CreateOptions{DryRun: dryRun, FieldManager: manager, FieldValidation: validation}, "CreateOptions")
	}
	switch o := a.Options.(type) {
	case *metav1.CreateOptions:
		return create(o.DryRun, o.FieldManager, o.FieldValidation)
	case *metav1.UpdateOptions:
		if a.Operation == admission.Create {
			return create(o.DryRun, o.FieldManager, o.FieldValidation)
		}
		return withKind(&metav1.UpdateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}, "UpdateOptions")
	case *metav1.PatchOptions:
		if a.Operation == admission.Create {
			return create(o.DryRun, o.FieldManager, o.FieldValidation)
		}
		return withKind(&metav1.UpdateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}, "UpdateOptions")
	case *metav1.DeleteOptions:
		own := *o
		return withKind(&own, "DeleteOptions")
	}
	return nil
}

func withKind(o runtime.Object, kind string) runtime.Object {
	o.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(kind))
	return o
}

// recorder collects warnings, which come from several goroutines.
type recorder struct {
	mu    sync.Mutex
	texts []string
}

func warnings(ctx context.Context) (context.Context, *recorder) {
	r := &recorder{}
	return warning.WithWarningRecorder(ctx, r), r
}

// AddWarning implements warning.Recorder.
func (r *recorder) AddWarning(_, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts = append(r.texts, text)
}

func (r *recorder) tell(a *admission.Attributes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range r.texts {
		if a.Warn != nil {
			a.Warn(text)
		}
	}
}
