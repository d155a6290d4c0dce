package custom

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
)

// Rules hold definitions to what Kubernetes demands of them, by the names of
// request.HookName.
func Rules() map[string]request.Rule {
	return map[string]request.Rule{
		"customresourcedefinitions.apiextensions.k8s.io":        {Validate: validateDefinition, Warnings: definitionWarnings},
		"customresourcedefinitions.apiextensions.k8s.io/status": {Validate: validateDefinitionStatus},
	}
}

// internalDefinition is a definition in the form that the library checks. It
// shares memory with d.
func internalDefinition(obj api.Object) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(obj.(*apiextensionsv1.CustomResourceDefinition), out, nil)
	return out, err
}

// validateDefinition checks metadata as well, so what was found in it already
// is not told twice.
func validateDefinition(ctx context.Context, _ *request.Info, obj, old api.Object, _ field.ErrorList) field.ErrorList {
	d, err := internalDefinition(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if old == nil {
		return validation.ValidateCustomResourceDefinition(ctx, d)
	}
	was, err := internalDefinition(old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validation.ValidateCustomResourceDefinitionUpdate(ctx, d, was)
}

func validateDefinitionStatus(ctx context.Context, _ *request.Info, obj, old api.Object, _ field.ErrorList) field.ErrorList {
	d, err := internalDefinition(obj)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	was, err := internalDefinition(old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validation.ValidateUpdateCustomResourceDefinitionStatus(ctx, d, was)
}

// definitionWarnings are about what is taken and has no effect: new formats that
// nobody knows, sets of what cannot be compared.
func definitionWarnings(obj, old api.Object) []string {
	formats, sets := doubtful(obj)
	if old != nil {
		hadFormats, hadSets := doubtful(old)
		formats = slices.DeleteFunc(formats, func(s string) bool { return slices.Contains(hadFormats, s) })
		sets = slices.DeleteFunc(sets, func(s string) bool { return slices.Contains(hadSets, s) })
	}
	return append(formats, sets...)
}

func doubtful(obj api.Object) (formats, sets []string) {
	d, err := internalDefinition(obj)
	if err != nil {
		return nil, nil
	}
	version := environment.DefaultCompatibilityVersion()
	look := func(s *apiextensions.JSONSchemaProps) bool {
		if s.Format != "" {
			one := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
			for _, f := range schemavalidation.GetUnrecognizedFormats(one, version) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false
	}
	if v := d.Spec.Validation; v != nil && v.OpenAPIV3Schema != nil {
		validation.SchemaHas(v.OpenAPIV3Schema, look)
	}
	for _, v := range d.Spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			validation.SchemaHas(v.Schema.OpenAPIV3Schema, look)
		}
	}
	slices.Sort(sets)
	return formats, slices.Compact(sets)
}
