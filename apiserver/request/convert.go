package request

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
)

// convertor is apimachinery's view of the conversions in the rows, for managed
// fields. What it returns may share memory with its argument, as upstream's
// unsafe convertor does: field managers only read.
type convertor struct{ registry *api.Registry }

// hubVersion stands for the hub type of a kind, whatever its group-version.
func hubVersion(group string) schema.GroupVersion {
	return schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal}
}

// ConvertToVersion gives a versioned object with its kind set, or, for a hub
// version, the hub object without.
func (c convertor) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("convert %T: target %v is not a group-version", in, target)
	}
	hub, row, err := c.hub(in)
	if err != nil {
		return nil, err
	}
	if gv.Version == runtime.APIVersionInternal {
		return hub, nil
	}
	served := c.registry.ByGVK(gv.WithKind(row.Kind))
	if served == nil {
		return nil, runtime.NewNotRegisteredErrForKind(c.registry.Scheme().Name(), gv.WithKind(row.Kind))
	}
	return versioned(hub, served)
}

// hub finds the row of an object by its kind, or when it has none by its type,
// and gives its hub form.
func (c convertor) hub(in runtime.Object) (api.Object, *api.Resource, error) {
	gvk := in.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		row := c.registry.Of(in)
		if row == nil {
			return nil, nil, fmt.Errorf("convert %T: not a served kind", in)
		}
		return in.(api.Object), row, nil
	}
	served := c.registry.ByGVK(gvk)
	if served == nil {
		return nil, nil, runtime.NewNotRegisteredErrForKind(c.registry.Scheme().Name(), gvk)
	}
	obj, ok := in.(api.Object)
	if u, isMap := in.(*unstructured.Unstructured); isMap {
		obj = served.Version.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, obj); err != nil {
			return nil, nil, fmt.Errorf("unable to convert unstructured object to %v: %w", gvk, err)
		}
	} else if !ok {
		return nil, nil, fmt.Errorf("convert %T: not an object", in)
	}
	if served.Version.ToHub != nil {
		var err error
		if obj, err = served.Version.ToHub(obj); err != nil {
			return nil, nil, err
		}
	}
	return withKind(obj, schema.GroupVersionKind{}), served.Resource, nil
}

// versioned gives a hub object the shape of one version, with its kind set. The
// result shares memory with obj.
func versioned(obj api.Object, served *api.Served) (api.Object, error) {
	if served.Version.FromHub != nil {
		var err error
		if obj, err = served.Version.FromHub(obj); err != nil {
			return nil, fmt.Errorf("convert %s to %s: %w", served.Kind, served.Version, err)
		}
	}
	return withKind(obj, served.Version.WithKind(served.Kind)), nil
}

// withKind is a shallow copy of an object with another kind, or the object
// itself if that is its kind already.
func withKind(obj api.Object, gvk schema.GroupVersionKind) api.Object {
	if obj.GetObjectKind().GroupVersionKind() == gvk {
		return obj
	}
	from := reflect.ValueOf(obj).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	out := to.Interface().(api.Object)
	out.GetObjectKind().SetGroupVersionKind(gvk)
	return out
}

// Convert is part of runtime.ObjectConvertor; field managers do not use it.
func (c convertor) Convert(in, out, _ any) error {
	return fmt.Errorf("convert %T to %T: not supported", in, out)
}

// ConvertFieldLabel is part of runtime.ObjectConvertor; field managers do not
// use it.
func (c convertor) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", fmt.Errorf("field labels are not converted here")
}

// New makes an empty object of a kind, with its kind set, for field managers.
func (c convertor) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	served := c.registry.ByGVK(gvk)
	if served == nil {
		return nil, runtime.NewNotRegisteredErrForKind(c.registry.Scheme().Name(), gvk)
	}
	obj := served.Version.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}

// Default is part of runtime.ObjectDefaulter. The request defaults what a
// field manager made, on the hub type.
func (c convertor) Default(runtime.Object) {}
