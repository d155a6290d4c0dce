package policy

import (
	"fmt"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
)

// parameters finds a kind of parameters. The error is what is wrong with a policy
// that refers to it.
func (c *Config) parameters(kind *admissionregistrationv1.ParamKind) (informers.GenericInformer, meta.RESTScope, error) {
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to parse paramKind APIVersion: %w", err)
	}
	gvk := gv.WithKind(kind.Kind)
	served := c.Registry.ByGVK(gvk)
	if served == nil || served.Prefix == "" {
		return nil, nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gvk)
	}
	scope := meta.RESTScopeRoot
	if served.Namespaced {
		scope = meta.RESTScopeNamespace
	}
	return &params{served: served, view: c.View, seen: map[api.Key]shown{}}, scope, nil
}

// params are the objects of one kind of parameters, as client-go's informer of
// them and its lister.
type params struct {
	cache.SharedIndexInformer // nil: of an informer, the library asks one thing
	served                    *api.Served
	view                      View

	mu   sync.Mutex
	seen map[api.Key]shown // what was made of objects, for as long as they stay
}

// shown is an object and what expressions see of it.
type shown struct{ stored, object api.Object }

// maxSeen bounds what is remembered of parameters; each may be one of thousands.
const maxSeen = 1000

var (
	_ informers.GenericInformer = (*params)(nil)
	_ cache.GenericLister       = (*params)(nil)
)

// Informer implements informers.GenericInformer.
func (p *params) Informer() cache.SharedIndexInformer { return p }

// HasSynced is true: the view is complete.
func (p *params) HasSynced() bool { return true }

// Lister implements informers.GenericInformer.
func (p *params) Lister() cache.GenericLister { return p }

// ByNamespace implements cache.GenericLister.
func (p *params) ByNamespace(namespace string) cache.GenericNamespaceLister {
	return inNamespace{p, namespace}
}

// Get gives a parameter of a kind without namespaces.
func (p *params) Get(name string) (runtime.Object, error) { return p.get(api.Key{Name: name}) }

// List gives those of all namespaces.
func (p *params) List(selector labels.Selector) ([]runtime.Object, error) {
	return p.list("", selector)
}

type inNamespace struct {
	*params
	namespace string
}

// Get implements cache.GenericNamespaceLister.
func (n inNamespace) Get(name string) (runtime.Object, error) {
	return n.get(api.Key{Namespace: n.namespace, Name: name})
}

// List implements cache.GenericNamespaceLister.
func (n inNamespace) List(selector labels.Selector) ([]runtime.Object, error) {
	return n.list(n.namespace, selector)
}

func (p *params) get(key api.Key) (runtime.Object, error) {
	obj := p.view.Get(p.served.Resource, key)
	if obj == nil {
		return nil, apierrors.NewNotFound(p.served.GroupResource(), key.Name)
	}
	return p.show(obj)
}

func (p *params) list(namespace string, selector labels.Selector) ([]runtime.Object, error) {
	var all []runtime.Object
	for obj := range p.view.List(p.served.Resource, namespace) {
		if !selector.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		shown, err := p.show(obj)
		if err != nil {
			return nil, err
		}
		all = append(all, shown)
	}
	return all, nil
}

// show is a stored object in the version of the kind, with its kind. Shared by all
// who ask, so only to be read.
func (p *params) show(obj api.Object) (runtime.Object, error) {
	key := api.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.seen[key]; ok && s.stored == obj {
		return s.object, nil
	}
	made, err := p.versioned(obj)
	if err != nil {
		return nil, fmt.Errorf("convert parameter %s %s to %s: %w", p.served.Plural, key, p.served.Version.GroupVersion, err)
	}
	if len(p.seen) >= maxSeen {
		clear(p.seen)
	}
	p.seen[key] = shown{obj, made}
	return made, nil
}

func (p *params) versioned(obj api.Object) (api.Object, error) {
	gvk := p.served.Version.WithKind(p.served.Kind)
	made := obj.DeepCopyObject().(api.Object)
	var err error
	switch {
	case p.served.View != nil:
		made, err = p.served.View(obj)
	case p.served.Version.FromHub != nil:
		made, err = p.served.Version.FromHub(made)
	}
	if err != nil {
		return nil, err
	}
	if t, ok := made.(interface{ UnstructuredContent() map[string]any }); ok {
		made = &unstructured.Unstructured{Object: t.UnstructuredContent()}
	}
	made.GetObjectKind().SetGroupVersionKind(gvk)
	return made, nil
}
