package upstream

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
)

// GetObjectCreater implements library.ObjectInterfaces.
func (r *review) GetObjectCreater() runtime.ObjectCreater { return r }

// GetObjectTyper implements library.ObjectInterfaces.
func (r *review) GetObjectTyper() runtime.ObjectTyper { return r.x.registry.Scheme() }

// GetObjectDefaulter implements library.ObjectInterfaces.
func (r *review) GetObjectDefaulter() runtime.ObjectDefaulter { return r }

// GetObjectConvertor implements library.ObjectInterfaces.
func (r *review) GetObjectConvertor() runtime.ObjectConvertor { return r }

// GetEquivalentResourceMapper implements library.ObjectInterfaces.
func (r *review) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper { return r.x.mapper }

// New makes an empty object of a kind, with its kind set.
func (r *review) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	var obj runtime.Object
	served := r.x.registry.ByGVK(gvk)
	switch {
	case served != nil && served.View != nil:
		obj = &unstructured.Unstructured{}
	case served != nil:
		obj = served.Version.New()
	default:
		var err error
		if obj, err = r.x.registry.Scheme().New(gvk); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Convert gives the object of the request, or the old one, in the version that out
// has; or, if out is the object of the request, puts what a plugin made of it in
// its place. What is given shares memory with the object and is not to be written
// to.
func (r *review) Convert(in, out, _ any) error {
	if to, ok := out.(*unstructured.Unstructured); ok {
		from, ok := in.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("convert %T to a custom resource: it is none", in)
		}
		if to == r.tree {
			return r.putTree(from)
		}
		return r.convertTree(from, to)
	}
	from, ok := in.(runtime.Object)
	to, isObject := out.(runtime.Object)
	if !ok || !isObject {
		return fmt.Errorf("convert %T to %T: not objects", in, out)
	}
	if t, ok := from.(*unstructured.Unstructured); ok {
		var err error
		if from, err = r.typed(t); err != nil {
			return err
		}
	}
	if to == r.a.Object {
		return r.put(from)
	}
	return r.convert(from, to)
}

// typed is a tree that a plugin made of an object with a Go type, as that type.
func (r *review) typed(t *unstructured.Unstructured) (runtime.Object, error) {
	kind := t.GroupVersionKind()
	obj, err := r.New(kind)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(t.Object, obj); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(kind)
	return obj, nil
}

// convert gives an object, or a body that has but one version, in the version of
// out.
func (r *review) convert(in, out runtime.Object) error {
	kind := out.GetObjectKind().GroupVersionKind()
	if is := in.GetObjectKind().GroupVersionKind(); !is.Empty() && is != kind {
		if served := r.x.registry.ByGVK(is); served != nil && served.Version.ToHub != nil {
			hub, err := served.Version.ToHub(in.(api.Object))
			if err != nil {
				return fmt.Errorf("convert %s %s: %w", served.Version, served.Kind, err)
			}
			in = hub
		}
	}
	if hub, ok := in.(api.Object); ok {
		if served := r.x.registry.ByGVK(kind); served != nil && served.Version.FromHub != nil && r.isHub(hub, served) {
			versioned, err := served.Version.FromHub(hub)
			if err != nil {
				return fmt.Errorf("convert %s to %s: %w", served.Kind, served.Version, err)
			}
			in = versioned
		}
	}
	if err := assign(out, in); err != nil {
		return err
	}
	out.GetObjectKind().SetGroupVersionKind(kind)
	return nil
}

func (r *review) isHub(obj api.Object, served *api.Served) bool {
	return reflect.TypeOf(obj) == reflect.TypeOf(served.Resource.New())
}

// put makes a changed object that of the request.
func (r *review) put(changed runtime.Object) error {
	served := r.x.registry.ByGVK(changed.GetObjectKind().GroupVersionKind())
	if served != nil && served.Version.ToHub != nil {
		hub, err := served.Version.ToHub(changed.(api.Object))
		if err != nil {
			return fmt.Errorf("convert %s %s: %w", served.Version, served.Kind, err)
		}
		changed = hub
	}
	if served != nil && served.Parse != nil {
		if err := served.Parse(changed.(api.Object)); err != nil {
			return err
		}
	}
	kind := r.a.Object.GetObjectKind().GroupVersionKind()
	if err := assign(r.a.Object, changed); err != nil {
		return err
	}
	r.a.Object.GetObjectKind().SetGroupVersionKind(kind)
	return nil
}

// assign makes an object another, of the same type.
func assign(to, from runtime.Object) error {
	src, dst := reflect.ValueOf(from), reflect.ValueOf(to)
	if src.Type() != dst.Type() {
		return fmt.Errorf("%T was made of an object that is %T", from, to)
	}
	dst.Elem().Set(src.Elem())
	return nil
}

// source is the custom resource that a tree stands for, and the version it is in.
// It may be shared.
func (r *review) source(t *unstructured.Unstructured) (api.Object, *api.Served, error) {
	switch t {
	case r.tree:
		return r.a.Object.(api.Object), r.a.Served, nil
	case r.oldTree:
		return r.old, r.a.Served, nil
	}
	kind := t.GroupVersionKind()
	served := r.x.registry.ByGVK(kind)
	if served == nil || served.Version.Decode == nil || served.Prefix != r.a.Resource.Prefix {
		return nil, nil, fmt.Errorf("%s was made of a %s", kind, r.a.Kind)
	}
	obj, _, err := served.Version.Decode(t.DeepCopy().Object, false)
	if err != nil {
		return nil, nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	return obj, served, nil
}

// in is a custom resource in another version of its definition.
func in(obj api.Object, is, want *api.Served) (api.Object, error) {
	if is.Version.GroupVersion == want.Version.GroupVersion {
		return obj, nil
	}
	converted, err := want.Merge().ConvertToVersion(obj, want.Version.GroupVersion)
	if err != nil {
		return nil, err
	}
	return converted.(api.Object), nil
}

func (r *review) convertTree(from, to *unstructured.Unstructured) error {
	kind := to.GroupVersionKind()
	want := r.x.registry.ByGVK(kind)
	if want == nil || want.Merge == nil {
		return runtime.NewNotRegisteredErrForKind("custom resources", kind)
	}
	obj, is, err := r.source(from)
	if err != nil {
		return err
	}
	if obj, err = in(obj, is, want); err != nil {
		return err
	}
	to.Object = shown(obj.(tree), want)
	return nil
}

// putTree makes a changed tree the object of the request, pruned and with defaults.
func (r *review) putTree(changed *unstructured.Unstructured) error {
	if changed == r.tree {
		return nil
	}
	obj, is, err := r.source(changed)
	if err != nil {
		return err
	}
	if obj, err = in(obj, is, r.a.Served); err != nil {
		return err
	}
	if r.a.Resource.Default != nil {
		r.a.Resource.Default(obj)
	}
	if err := assign(r.a.Object, obj); err != nil {
		return err
	}
	r.refresh()
	return nil
}

// Default fills in defaults of an object that a plugin made, in its own version;
// custom resources are pruned as well. What cannot be decoded stays as it is, to
// be refused when it is put.
func (r *review) Default(obj runtime.Object) {
	served := r.x.registry.ByGVK(obj.GetObjectKind().GroupVersionKind())
	if served == nil || served.Default == nil {
		return
	}
	if t, ok := obj.(*unstructured.Unstructured); ok {
		if made, is, err := r.source(t); err == nil && is == served {
			served.Default(made)
			t.Object = shown(made.(tree), served)
		}
		return
	}
	versioned, ok := obj.(api.Object)
	if !ok {
		return
	}
	if served.Version.ToHub == nil {
		served.Default(versioned)
		return
	}
	hub, err := served.Version.ToHub(versioned)
	if err != nil {
		return
	}
	served.Default(hub)
	// A hub that was made of this version can be shown in it.
	_ = r.convert(hub, versioned)
}

// ConvertToVersion is part of runtime.ObjectConvertor.
func (r *review) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	kind, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{r.a.Kind})
	if !ok {
		return nil, fmt.Errorf("convert %T to %v: not a version of %s", in, target, r.a.Kind)
	}
	out, err := r.New(kind)
	if err != nil {
		return nil, err
	}
	return out, r.Convert(in, out, nil)
}

// ConvertFieldLabel is part of runtime.ObjectConvertor; no plugin uses it.
func (r *review) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", fmt.Errorf("field labels are not converted here")
}

// mapper says which resources show the same objects.
type mapper struct{ registry *api.Registry }

// EquivalentResourcesFor are all versions, in all groups, of what is stored in one
// place, with the subresource if it is not empty.
func (m mapper) EquivalentResourcesFor(gvr schema.GroupVersionResource, subresource string) []schema.GroupVersionResource {
	served := m.registry.ByGVR(gvr)
	if served == nil {
		return nil
	}
	rows := []*api.Resource{served.Resource}
	if main := m.registry.ByPrefix(served.Prefix); main != nil && served.Prefix != "" {
		rows = append([]*api.Resource{main}, main.Views...)
	}
	var all []schema.GroupVersionResource
	for _, row := range rows {
		if subresource != "" && row.Subresources[subresource] == nil {
			continue
		}
		for i := range row.Versions {
			all = append(all, row.Versions[i].WithResource(row.Plural))
		}
	}
	return all
}

// KindFor is the kind of the bodies of a resource or subresource.
func (m mapper) KindFor(gvr schema.GroupVersionResource, subresource string) schema.GroupVersionKind {
	served := m.registry.ByGVR(gvr)
	if served == nil {
		return schema.GroupVersionKind{}
	}
	if sub := served.Subresources[subresource]; sub != nil && sub.New != nil && !sub.Kind.Empty() {
		return sub.Kind
	}
	return served.Version.WithKind(served.Kind)
}
