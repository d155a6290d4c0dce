package custom

import (
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// compiled is the schema of a version, in the forms in which objects meet it.
type compiled struct {
	structural *schema.Structural
	preserve   bool // unknown fields, by the old switch for the whole kind
	// Whether the schema has any of these: who has none need not be walked.
	defaults, embedded, lists bool

	validator, status validation.SchemaValidator
	rules             *cel.Validator
}

// compile makes the schema of a version. It fails for what no server of today
// accepts, and an older one may have left in the database.
func compile(v *version) (*compiled, error) {
	c := &compiled{preserve: v.of.Spec.PreserveUnknownFields}
	internal, err := internalSchema(v.CustomResourceDefinitionVersion)
	if err != nil {
		return nil, unservable(v, err)
	}
	if internal != nil {
		if c.structural, err = schema.NewStructural(internal); err != nil {
			return nil, unservable(v, err)
		}
		if c.validator, _, err = validation.NewSchemaValidator(internal); err != nil {
			return nil, unservable(v, err)
		}
		if status, ok := internal.Properties["status"]; ok && v.hasStatus() {
			if c.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, unservable(v, err)
			}
		}
		c.rules = cel.NewValidator(c.structural, true, celconfig.PerCallLimit)
	}
	look := &schema.Visitor{Structural: func(s *schema.Structural) bool {
		c.defaults = c.defaults || s.Default.Object != nil
		c.embedded = c.embedded || s.XEmbeddedResource
		c.lists = c.lists || s.XListType != nil
		return false
	}}
	if c.structural != nil {
		look.Visit(c.structural.DeepCopy()) // a visitor may write, and this one does not
	}
	return c, nil
}

func internalSchema(v *apiextensionsv1.CustomResourceDefinitionVersion) (*apiextensions.JSONSchemaProps, error) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil, nil
	}
	out := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, out, nil); err != nil {
		return nil, fmt.Errorf("failed to convert CRD validation to internal version: %w", err)
	}
	return out.OpenAPIV3Schema, nil
}

func unservable(v *version, err error) error {
	return apierrors.NewInternalError(fmt.Errorf("the server could not properly serve the CR schema of %s %s: %w", v.gv, v.of.kind.Kind, err))
}

func (v *version) hasStatus() bool { return v.Subresources != nil && v.Subresources.Status != nil }

// coerce brings a tree into the form of the schema: fields that it does not know
// and null where it allows none are taken away. It answers with the paths of
// unknown fields if they are wanted. With repair, embedded metadata that cannot
// be read is taken away as well, and is an error otherwise.
func (c *compiled) coerce(tree map[string]any, strict, repair bool) (unknown []string, err error) {
	if !c.preserve {
		unknown = pruning.PruneWithOptions(tree, c.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: strict})
		defaulting.PruneNonNullableNullsWithoutDefaults(tree, c.structural)
	}
	if !c.embedded {
		return unknown, nil
	}
	failed, more := objectmeta.CoerceWithOptions(nil, tree, c.structural, false, objectmeta.CoerceOptions{DropInvalidFields: repair, ReturnUnknownFieldPaths: strict})
	if failed != nil {
		return nil, failed
	}
	return append(unknown, more...), nil
}

// fill puts in the defaults.
func (c *compiled) fill(tree map[string]any) {
	if c.defaults {
		defaulting.Default(tree, c.structural)
	}
}
