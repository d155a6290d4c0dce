package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

// OpenAPI follows definitions: versions that are served no more, are renamed, or
// come, beside those that stay as they were; kinds of one group and of another.
func TestDescriptionsFollowDefinitions(t *testing.T) {
	gvr := define(t, `
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, description: A gadget., properties: {one: {type: string, description: The first.}}}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, description: A gadget., properties: {two: {type: string, description: The second.}}}}}
`)
	change := func(patch string) {
		t.Helper()
		admin.want(t, http.StatusOK, call{method: "PATCH", path: definitions + "/gadgets." + gvr.Group, contentType: jsonPatch, body: patch}, nil)
	}
	described(t, gvr.Group, map[string]string{"v1 Gadget": "one", "v2 Gadget": "two"}, "v3")
	first := v1Of(t, gvr.Group)
	change(`[{"op":"replace","path":"/spec/versions/1/name","value":"v3"}]`)
	described(t, gvr.Group, map[string]string{"v1 Gadget": "one", "v3 Gadget": "two"}, "v2")
	change(`[{"op":"replace","path":"/spec/versions/1/served","value":false}]`)
	described(t, gvr.Group, map[string]string{"v1 Gadget": "one"}, "v3")
	if now := v1Of(t, gvr.Group); now != first {
		t.Errorf("v1 was described as\n%s\nand now as\n%s", first, now)
	}

	another := "gizmos." + gvr.Group
	t.Cleanup(func() { undefined(t, another) })
	admin.want(t, http.StatusCreated, call{method: "POST", path: definitions, body: `
metadata: {name: ` + another + `}
spec:
  group: ` + gvr.Group + `
  scope: Namespaced
  names: {plural: gizmos, kind: Gizmo}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, description: A gizmo., properties: {three: {type: integer, description: The third.}}}}}
  - {name: v4, served: true, storage: false, schema: {openAPIV3Schema: {type: object, description: A gizmo., properties: {four: {type: integer, description: The fourth.}}}}}`}, nil)
	described(t, gvr.Group, map[string]string{"v1 Gadget": "one", "v1 Gizmo": "three", "v4 Gizmo": "four"}, "v2", "v3")
	t.Run("another group", func(t *testing.T) {
		other := define(t, gadget)
		described(t, other.Group, map[string]string{"v1 Gadget": "spec"})
		described(t, gvr.Group, map[string]string{"v1 Gadget": "one"})
	})
	undefined(t, another)
	described(t, gvr.Group, map[string]string{"v1 Gadget": "one"}, "v4")
}

// described waits until both versions of OpenAPI have kinds ("VERSION KIND") of a
// group with a field, and know nothing of some versions.
func described(t *testing.T, group string, kinds map[string]string, not ...string) {
	t.Helper()
	has := func(schemas map[string]schemaOf, kind, field string) bool {
		for _, s := range schemas {
			for _, gvk := range s.GVK {
				if _, ok := s.Properties[field]; gvk.Group == group && gvk.Version+" "+gvk.Kind == kind && ok {
					return true
				}
			}
		}
		return false
	}
	eventually(t, fmt.Sprint("both documents have ", kinds, " of ", group, " and nothing of ", not), func() bool {
		var v2 document
		admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: "application/json"}, &v2)
		for kind, field := range kinds {
			var v3 document
			version, _, _ := strings.Cut(kind, " ")
			a := admin.do(t, call{path: "/openapi/v3/apis/" + group + "/" + version})
			if a.code != http.StatusOK {
				return false
			}
			if a.into(t, &v3); !has(v3.Components.Schemas, kind, field) || !has(v2.Definitions, kind, field) {
				return false
			}
		}
		for _, version := range not {
			if admin.do(t, call{path: "/openapi/v3/apis/" + group + "/" + version}).code != http.StatusNotFound {
				return false
			}
			for path := range v2.Paths {
				if strings.HasPrefix(path, "/apis/"+group+"/"+version+"/") {
					return false
				}
			}
		}
		return true
	})
}

// v1Of is how gadgets of v1 are described, as it is sent.
func v1Of(t *testing.T, group string) string {
	t.Helper()
	var d struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	admin.want(t, http.StatusOK, call{path: "/openapi/v3/apis/" + group + "/v1"}, &d)
	for name, text := range d.Components.Schemas {
		if strings.HasSuffix(name, ".v1.Gadget") {
			return string(text)
		}
	}
	t.Fatalf("no gadgets of %s", group)
	return ""
}

// kubectl explains what is defined, and checks by it what it sends: as documents
// say, where the schema lets anything in as well.
func TestKubectlExplainsDefinitions(t *testing.T) {
	for name, c := range map[string]struct {
		schema, path string
		want         []string
		object       string // beside its metadata
	}{
		"a schema":             {gadget, ".spec", []string{"KIND:       Gadget\nVERSION:    v1\n", "FIELD: spec <Object>", "color\t<string>", "parts\t<[]Object>", "size\t<integer>"}, "spec: {color: red}"},
		"no schema":            {schemaless, "", []string{"KIND:       Gadget\nVERSION:    v1\n"}, "any: {thing: [1]}"},
		"within what is known": {preserving, ".spec", []string{"FIELD: spec <Object>", "color\t<string>", "inner\t<Object>"}, "spec: {any: 1}"},
		"embedded":             {embedding, ".spec.template", []string{"FIELD: template <Object>"}, "spec: {template: {apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {any: 1}}}"},
	} {
		t.Run(name, func(t *testing.T) {
			ns, gvr := namespace(t), define(t, c.schema)
			cache := t.TempDir() // what it knows of discovery is not looked at again at once
			kubectl := func(args ...string) result {
				t.Helper()
				return shared.run(t, append([]string{"kubectl", "--data-dir", shared.dir, "--cache-dir", cache, "-n", ns}, args...)...)
			}
			explained := kubectl("explain", "gadgets."+gvr.Group+c.path)
			for _, text := range append(c.want, "GROUP:      "+gvr.Group) {
				if explained.code != 0 || !strings.Contains(explained.out, text) {
					t.Errorf("explained without %q: %+v", text, explained)
				}
			}
			if r := kubectl("explain", "gadgets."+gvr.Group+".none"); r.code == 0 || !strings.Contains(r.err, `field "none" does not exist`) {
				t.Errorf("a field that is not there: %+v", r)
			}
			file := filepath.Join(t.TempDir(), "gadget.yaml")
			for text, refusal := range map[string]string{c.object: "", c.object + "\nmetadata: {nonsense: 1, name: b}": `unknown field "metadata.nonsense"`} {
				if refusal == "" {
					text += "\nmetadata: {name: a}"
				}
				if err := os.WriteFile(file, []byte("apiVersion: "+gvr.GroupVersion().String()+"\nkind: Gadget\n"+text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if r := kubectl("apply", "--validate=strict", "-f", file); (r.code == 0) != (refusal == "") || !strings.Contains(r.err, refusal) {
					t.Errorf("applied %s: %+v", text, r)
				}
			}
		})
	}
}
