package policy

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// converters give the merge schemas that apply configurations are merged by.
type converters struct{ Config }

var _ patch.TypeConverterManager = converters{}

// GetTypeConverter is nil for kinds that there are not.
func (c converters) GetTypeConverter(gvk schema.GroupVersionKind) managedfields.TypeConverter {
	if served := c.Registry.ByGVK(gvk); served != nil && served.Merge != nil {
		return trees{served.Merge()}
	}
	if !c.Registry.Scheme().Recognizes(gvk) {
		return nil
	}
	return c.Merge()
}

// Run has nothing to do: the schemas are those of now.
func (c converters) Run(context.Context) {}

// trees merges custom resources that are shown as trees.
type trees struct{ managedfields.TypeConverter }

// TypedToObject implements managedfields.TypeConverter.
func (t trees) TypedToObject(merged *typed.TypedValue) (runtime.Object, error) {
	tree, ok := merged.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("a merge made %T of an object", merged.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: tree}, nil
}
