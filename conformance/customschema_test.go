package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What schemas say of fields that they do not have.
const (
	schemaless = `
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`
	preserving = `
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {color: {type: string}, inner: {type: object, properties: {a: {type: string}}}}}
`
	embedding = `
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}}}
`
)

// API concepts, "Field validation", of custom resources: what is unknown goes by
// their schemas, at the root and in embedded objects; what is there twice is told
// of anyway.
func TestFieldValidationOfCustomResources(t *testing.T) {
	const twice = `line 5: key "any" already set in map`
	for name, c := range map[string]struct {
		schema       string
		spec         string   // JSON, with a problem or without
		metadata     string   // beside the name, in JSON
		problems     []string // of JSON
		yamlProblems []string
		applied      string // what strictly applying it is told: types are looked at first
		kept         string // what is stored of spec
	}{
		"a schema": {
			gadget, `{"size":4,"other":1,"color":"red","color":"blue","parts":[{"name":"p","weight":1}]}`, "",
			[]string{`duplicate field "spec.color"`, `unknown field "spec.other"`, `unknown field "spec.parts[0].weight"`},
			[]string{`line 5: key "color" already set in map`, `unknown field "spec.other"`, `unknown field "spec.parts[0].weight"`},
			".spec.other: field not declared in schema",
			`{"color":"blue","parts":[{"name":"p"}],"size":4}`,
		},
		"a valid object":   {gadget, `{"size":4,"color":"red"}`, "", nil, nil, "", `{"color":"red","size":4}`},
		"no schema":        {schemaless, `{"any":{"thing":[1]}}`, "", nil, nil, "", `{"any":{"thing":[1]}}`},
		"twice, no schema": {schemaless, `{"any":1,"any":2}`, "", []string{`duplicate field "spec.any"`}, []string{twice}, twice, `{"any":2}`},
		"twice, preserved": {
			preserving, `{"any":1,"color":"red","any":2,"inner":{"a":"x","b":"y"}}`, "",
			[]string{`duplicate field "spec.any"`, `unknown field "spec.inner.b"`}, []string{twice, `unknown field "spec.inner.b"`},
			twice, `{"any":2,"color":"red","inner":{"a":"x"}}`,
		},
		"metadata": {
			embedding, `{"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","inner":1},"spec":{"any":1}}}`, `,"outer":1`,
			[]string{`unknown field "metadata.outer"`, `unknown field "spec.template.metadata.inner"`},
			[]string{`unknown field "metadata.outer"`, `unknown field "spec.template.metadata.inner"`},
			".spec.template.metadata.inner: field not declared in schema",
			`{"template":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"any":1}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns, gvr := namespace(t), define(t, c.schema)
			path := under(gvr.GroupVersion().String(), "gadgets", ns)
			send := func(method, contentType, object, directive string) answer {
				query := "?fieldManager=m&fieldValidation=" + directive
				body := fmt.Sprintf(`{"apiVersion":%q,"kind":"Gadget","metadata":{"name":%q%s},"spec":%s}`, gvr.GroupVersion().String(), object, c.metadata, c.spec)
				if strings.Contains(contentType, "yaml") {
					body = fmt.Sprintf("apiVersion: %s\nkind: Gadget\nmetadata: {\"name\":%q%s}\nspec:\n  %s\n", gvr.GroupVersion(), object, c.metadata, c.spec)
				}
				if method == "POST" {
					return admin.do(t, call{method: method, path: path + query, contentType: contentType, body: body})
				}
				if contentType == mergePatch {
					admin.do(t, call{method: "POST", path: path, body: fmt.Sprintf(`{"apiVersion":%q,"kind":"Gadget","metadata":{"name":%q}}`, gvr.GroupVersion().String(), object)}).status2xx(t)
				}
				return admin.do(t, call{method: method, path: path + "/" + object + query, contentType: contentType, body: body})
			}
			for i, w := range []struct {
				method, contentType string
				strictCode          int
			}{{"POST", "application/json", 400}, {"POST", "application/yaml", 400}, {"PATCH", mergePatch, 422}} {
				problems := c.problems
				if strings.Contains(w.contentType, "yaml") {
					problems = c.yamlProblems
				}
				what := fmt.Sprint(w.method, " ", w.contentType)
				a := send(w.method, w.contentType, fmt.Sprint("strict-", i), "Strict")
				for _, p := range problems {
					if a.code != w.strictCode || !strings.Contains(a.status(t).Message, p) {
						t.Errorf("%s strictly: %d %s, want %d and %s", what, a.code, a.status(t).Message, w.strictCode, p)
					}
				}
				if len(problems) == 0 {
					a.status2xx(t)
				}
				warned := send(w.method, w.contentType, fmt.Sprint("warn-", i), "Warn")
				warned.status2xx(t)
				var got []string
				for _, text := range warned.header.Values("Warning") {
					got = append(got, strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(text, `299 - "`), `"`), `\"`, `"`))
				}
				if slices.Sort(got); !slices.Equal(got, problems) {
					t.Errorf("%s warns %q, want %q", what, got, problems)
				}
				ignored := send(w.method, w.contentType, fmt.Sprint("ignore-", i), "Ignore")
				ignored.status2xx(t)
				if spec := field(ignored.object(t), "spec"); spec != c.kept || len(ignored.header.Values("Warning")) > 0 {
					t.Errorf("%s keeps %s with warnings %q, want %s", what, spec, ignored.header.Values("Warning"), c.kept)
				}
			}
			a := send("PATCH", applyPatch, "applied", "Strict")
			if c.applied == "" {
				a.status2xx(t)
			} else if a.code/100 == 2 || !strings.Contains(a.status(t).Message, c.applied) {
				t.Errorf("applied strictly: %d %s, want %s", a.code, a.status(t).Message, c.applied)
			}
		})
	}
}
