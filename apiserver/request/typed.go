package request

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// typeConverter is a TypeConverter that does not check Go objects against their
// schema: both are made from the same types, so the check, a walk through the
// whole object twice for each write, can never fail. Objects from a client's
// bytes (apply) are checked.
type typeConverter struct {
	managedfields.TypeConverter
	types sync.Map // schema.GroupVersionKind → typed.ParseableType
}

// ObjectToTyped implements managedfields.TypeConverter.
func (c *typeConverter) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(*unstructured.Unstructured); ok {
		return c.TypeConverter.ObjectToTyped(obj, opts...)
	}
	t, err := c.typeOf(obj, opts)
	if err != nil {
		return nil, err
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, fmt.Errorf("look into %T: %w", obj, err)
	}
	//nolint:staticcheck // deprecated because everybody should check; see above
	return typed.AsTypedUnvalidated(v, t.Schema, t.TypeRef), nil
}

// typeOf finds the schema of an object's kind, the first time by a conversion.
func (c *typeConverter) typeOf(obj runtime.Object, opts []typed.ValidationOptions) (typed.ParseableType, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if t, ok := c.types.Load(gvk); ok {
		return t.(typed.ParseableType), nil
	}
	tv, err := c.TypeConverter.ObjectToTyped(obj, opts...)
	if err != nil {
		return typed.ParseableType{}, err
	}
	t := typed.ParseableType{Schema: tv.Schema(), TypeRef: tv.TypeRef()}
	c.types.Store(gvk, t)
	return t, nil
}
