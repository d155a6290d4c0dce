//go:build generate

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	endpoints "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api/openapi/paths"
	"hansa.dev/hansa/hack/openapi/definitions"
)

const title = "Hansa"
const version = "v1.37.2"

// definitionSet gives the schema of any Go type of the API.
type definitionSet struct {
	namer *endpoints.DefinitionNamer
}

func newDefinitions(scheme *runtime.Scheme) *definitionSet {
	return &definitionSet{namer: endpoints.NewDefinitionNamer(scheme)}
}

func (d *definitionSet) buildV2(names []string) (spec.Definitions, error) {
	s, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{
		Info:              &spec.Info{InfoProps: spec.InfoProps{Title: title, Version: version}},
		GetDefinitions:    definitions.GetOpenAPIDefinitions,
		GetDefinitionName: d.namer.GetDefinitionName,
	}, names...)
	if err != nil {
		return nil, err
	}
	for name, s := range s.Definitions {
		describe(name, &s)
	}
	return s.Definitions, nil
}

func (d *definitionSet) buildV3(names []string) (map[string]*spec.Schema, error) {
	s, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{
		Info:              &spec.Info{InfoProps: spec.InfoProps{Title: title, Version: version}},
		GetDefinitions:    definitions.GetOpenAPIDefinitions,
		GetDefinitionName: d.namer.GetDefinitionName,
	}, names...)
	if err != nil {
		return nil, err
	}
	for name, s := range s {
		describe(name, s)
	}
	return s, nil
}

// describe fills in the few descriptions that the Go types lack, from the name
// of the field: `kubectl explain` should never be silent.
func describe(model string, s *spec.Schema) {
	short := model[strings.LastIndexByte(model, '.')+1:]
	for name, p := range s.Properties {
		if p.Description == "" {
			p.Description = fmt.Sprintf("%s of the %s.", name, short)
			s.Properties[name] = p
		}
	}
}

func buildV2(d *definitionSet, all []paths.Path) (*spec.Swagger, error) {
	defs, err := d.buildV2(models(all))
	if err != nil {
		return nil, err
	}
	s := &spec.Swagger{SwaggerProps: spec.SwaggerProps{
		Swagger:     "2.0",
		Info:        &spec.Info{InfoProps: spec.InfoProps{Title: title, Version: version}},
		Definitions: defs,
		Paths:       &spec.Paths{Paths: map[string]spec.PathItem{}},
		Consumes:    []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"},
	}}
	for _, p := range all {
		s.Paths.Paths[p.URL] = p.V2()
	}
	return s, nil
}

func buildV3(d *definitionSet, g paths.Group) (*spec3.OpenAPI, error) {
	schemas, err := d.buildV3(models(g.Paths))
	if err != nil {
		return nil, err
	}
	doc := &spec3.OpenAPI{
		Version:    "3.0.0",
		Info:       &spec.Info{InfoProps: spec.InfoProps{Title: title, Version: version}},
		Components: &spec3.Components{Schemas: schemas},
		Paths:      &spec3.Paths{Paths: map[string]*spec3.Path{}},
	}
	for _, p := range g.Paths {
		doc.Paths.Paths[p.URL] = p.V3()
	}
	return doc, nil
}

// models are the names of all schemas that paths mention, in order.
func models(all []paths.Path) []string { return slices.Sorted(maps.Keys(paths.Models(all))) }
