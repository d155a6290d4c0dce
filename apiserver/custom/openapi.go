package custom

import (
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// objectMetaModel is the name of the schema of metadata.
const objectMetaModel = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// refsV2 and refsV3 begin the references of documents.
const (
	refsV2 = "#/definitions/"
	refsV3 = "#/components/schemas/"
)

// openAPI is the schema of the version as documents have it.
func (v *version) openAPI(prefix string) (*spec.Schema, error) {
	c, err := v.compiled()
	if err != nil {
		return nil, err
	}
	return c.openAPI(prefix), nil
}

// openAPI is the schema with what is common to all objects. It belongs to the
// caller.
func (c *compiled) openAPI(prefix string) *spec.Schema {
	schema := c.structural
	if schema == nil || prefix == refsV2 && schema.XPreserveUnknownFields {
		out := new(spec.Schema).Typed("object", "") // version 2 cannot say more
		if prefix != refsV2 {
			out.AddExtension("x-kubernetes-preserve-unknown-fields", true)
		}
		return out
	}
	if prefix == refsV2 {
		schema = openapiv2.ToStructuralOpenAPIV2(schema) // what its readers understand
	}
	out := schema.ToKubeOpenAPI()
	object(out, prefix)
	if c.embedded {
		embed(out, prefix)
	}
	return out
}

// object gives a schema the fields of all objects.
func object(s *spec.Schema, prefix string) {
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription("The version of the object, GROUP/VERSION."))
	s.SetProperty("kind", *spec.StringProperty().WithDescription("The kind of the object."))
	s.SetProperty("metadata", *spec.RefSchema(prefix + objectMetaModel).WithDescription("Metadata of the object."))
}

// embed gives embedded objects what all objects have.
func embed(s *spec.Schema, prefix string) {
	for name, p := range s.Properties {
		embed(&p, prefix)
		s.SetProperty(name, p)
	}
	if s.Items != nil && s.Items.Schema != nil {
		embed(s.Items.Schema, prefix)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		embed(s.AdditionalProperties.Schema, prefix)
	}
	if on, _ := s.Extensions["x-kubernetes-embedded-resource"].(bool); on {
		object(s, prefix)
	}
}
