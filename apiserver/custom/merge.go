package custom

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gvschema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/openapi"
)

// merger knows how objects of one definition are merged, in each of its versions.
type merger struct {
	own    *version
	parser typed.ParseableType
	err    error
}

var _ api.Merger = (*merger)(nil)

func newMerger(v *version) *merger {
	m := &merger{own: v, parser: typed.DeducedParseableType}
	c, err := v.compiled()
	if err != nil || c.structural == nil {
		m.err = err
		return m
	}
	const name = "object"
	types, err := schemaconv.ToSchemaFromOpenAPI(map[string]*spec.Schema{name: c.openAPI(refsV3)}, c.preserve)
	if err != nil {
		m.err = fmt.Errorf("merge schema of %s %s: %w", v.gv, v.of.kind.Kind, err)
		return m
	}
	meta, err := openapi.MetaTypes()
	if err != nil {
		m.err = err
		return m
	}
	parser := typed.Parser{Schema: schema.Schema{Types: append(types.Types, meta...)}}
	m.parser = parser.Type(name)
	return m
}

// Type implements api.Merger.
func (m *merger) Type() (typed.ParseableType, error) { return m.parser, m.err }

// ObjectToTyped implements managedfields.TypeConverter.
func (m *merger) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	var tree map[string]any
	at := m
	switch o := obj.(type) {
	case *Object:
		if v := m.own.of.version(o.version); v != m.own && v != nil {
			at = v.merge()
		}
		tree = o.whole()
	case *unstructured.Unstructured:
		tree = o.Object
	default:
		return nil, fmt.Errorf("%T is no custom resource", obj)
	}
	if at.err != nil {
		return nil, at.err
	}
	if o, ok := obj.(*Object); ok && o.raw != nil {
		// It was checked when it was written, and whoever compares it looks again.
		//nolint:staticcheck // deprecated because everybody should check
		return typed.AsTypedUnvalidated(value.NewValueInterface(tree), at.parser.Schema, at.parser.TypeRef), nil
	}
	return at.parser.FromUnstructured(tree, opts...)
}

// TypedToObject implements managedfields.TypeConverter.
func (m *merger) TypedToObject(merged *typed.TypedValue) (runtime.Object, error) {
	tree, ok := merged.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a merge made %T of an object", merged.AsValue().Unstructured())
	}
	u := &unstructured.Unstructured{Object: tree}
	v := m.own.of.version(u.GroupVersionKind().Version)
	if v == nil {
		v = m.own
	}
	obj, _, err := v.decode(maps.Clone(tree), false)
	return obj, err
}

// ConvertToVersion gives an object in another version, with nothing of it shared
// that is written to.
func (m *merger) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(gvschema.GroupVersion)
	o, isObject := in.(*Object)
	if !ok || !isObject {
		return nil, fmt.Errorf("convert %T to %v: not a custom resource and its version", in, target)
	}
	v := m.own.of.version(gv.Version)
	switch {
	case v == nil || gv.Group != v.gv.Group:
		return nil, runtime.NewNotRegisteredErrForKind("custom resources", gv.WithKind(m.own.of.kind.Kind))
	case o.version == v.Name:
		return o, nil
	}
	all, err := m.own.of.convert.to(v, o.DeepCopyObject().(*Object))
	if err != nil {
		return nil, err
	}
	out := all[0]
	c, err := v.compiled()
	if err != nil {
		return nil, err
	}
	_, err = c.coerce(out.tree, false, true)
	return out, err
}

// New makes an empty object.
func (m *merger) New(kind gvschema.GroupVersionKind) (runtime.Object, error) {
	return newObject(m.own.of.kind, kind.Version), nil
}

// Default is part of runtime.ObjectDefaulter; requests put defaults in themselves.
func (m *merger) Default(runtime.Object) {}

// Convert is part of runtime.ObjectConvertor; field managers do not use it.
func (m *merger) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: not supported", in, out)
}

// ConvertFieldLabel is part of runtime.ObjectConvertor; field managers do not use it.
func (m *merger) ConvertFieldLabel(gvschema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", fmt.Errorf("field labels are not converted here")
}
