package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
)

// document is the part of an OpenAPI document that the tests look at.
type document struct {
	Swagger, OpenAPI string
	Paths            map[string]map[string]json.RawMessage
	Definitions      map[string]schemaOf
	Components       struct{ Schemas map[string]schemaOf }
}

// schemaOf is one schema.
type schemaOf struct {
	Description string
	Properties  map[string]struct{ Description string }
	GVK         []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
}

var methods = map[string]string{
	"create": "post", "delete": "delete", "deletecollection": "delete", "get": "get", "list": "get", "patch": "patch", "update": "put",
}

// promised are the operations that discovery promises: "METHOD PATH".
func promised(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, r := range resources(t) {
		name, sub, _ := strings.Cut(r.Name, "/")
		root := under(r.groupVersion, name, "")
		if r.Namespaced {
			root = under(r.groupVersion, name, "{namespace}")
		}
		for _, verb := range r.Verbs {
			method := methods[verb]
			path := root
			switch {
			case sub != "":
				path += "/{name}/" + sub
			case slices.Contains([]string{"get", "patch", "update", "delete"}, verb):
				path += "/{name}"
			}
			if verb == "watch" {
				continue // asked for by a query
			}
			all = append(all, method+" "+path)
			if verb == "list" && r.Namespaced {
				all = append(all, "get "+under(r.groupVersion, name, ""))
			}
			if sub == "proxy" {
				all = append(all, method+" "+path+"/{path}")
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A path may offer more methods for proxies than discovery has verbs for
// (HEAD, OPTIONS), and watches have paths of their own for old clients.
var notPromised = regexp.MustCompile(`^(head|options) .*/proxy(/\{path\})?$|^get /apis?/[^{]*/?watch/`)

// offered are the operations of a document on resources.
func (d *document) offered() []string {
	var all []string
	for path, item := range d.Paths {
		if !regexp.MustCompile(`^/(api|apis/[^/]+)/v[^/]+/.`).MatchString(path) {
			continue
		}
		for method := range item {
			if method != "parameters" && !notPromised.MatchString(method+" "+path) {
				all = append(all, method+" "+path)
			}
		}
	}
	slices.Sort(all)
	return all
}

func difference(t *testing.T, what string, want, got []string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s lacks %s", what, w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s has %s, which discovery does not promise", what, g)
		}
	}
}

// "OpenAPI V3": an index with a hash for each group-version, documents that are
// immutable below their hash, and exactly the paths of discovery.
func TestOpenAPIv3(t *testing.T) {
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	admin.want(t, http.StatusOK, call{path: "/openapi/v3"}, &index)
	var got []string
	groupVersions := map[string]bool{}
	for _, r := range resources(t) {
		groupVersions[strings.TrimSuffix(strings.TrimPrefix(under(r.groupVersion, "", ""), "/"), "/")] = true
	}
	for gv := range groupVersions {
		if index.Paths[gv].ServerRelativeURL == "" {
			t.Errorf("the index has no %s", gv)
		}
	}
	for name, entry := range index.Paths {
		if !regexp.MustCompile(`^/openapi/v3/` + regexp.QuoteMeta(name) + `\?hash=[0-9A-F]+$`).MatchString(entry.ServerRelativeURL) {
			t.Errorf("%s is at %s", name, entry.ServerRelativeURL)
		}
		var d document
		a := admin.want(t, http.StatusOK, call{path: entry.ServerRelativeURL, accept: "application/json"}, &d)
		if !strings.HasPrefix(d.OpenAPI, "3.0") {
			t.Errorf("%s is of version %q", name, d.OpenAPI)
		}
		if cache := a.header.Get("Cache-Control"); !strings.Contains(cache, "immutable") || a.header.Get("Etag") == "" {
			t.Errorf("%s: Cache-Control %q, Etag %q", name, cache, a.header.Get("Etag"))
		}
		if again := admin.do(t, call{path: entry.ServerRelativeURL, header: map[string]string{"If-None-Match": a.header.Get("Etag")}}); again.code != http.StatusNotModified {
			t.Errorf("%s with its Etag: %d", name, again.code)
		}
		got = append(got, d.offered()...)
		for schema, s := range d.Components.Schemas {
			s.described(t, name+" "+schema)
		}
	}
	slices.Sort(got)
	difference(t, "OpenAPI v3", promised(t), slices.Compact(got))
	stale, err := admin.open(t.Context(), call{path: "/openapi/v3/api/v1?hash=00"})
	if err != nil {
		t.Fatal(err)
	}
	stale.Body.Close()
	if at := stale.Request.URL.String(); stale.StatusCode != http.StatusOK || !strings.HasSuffix(at, index.Paths["api/v1"].ServerRelativeURL) {
		t.Errorf("a hash of the past leads to %s (%s)", at, stale.Status)
	}
	if a := admin.do(t, call{path: "/openapi/v3/apis/none/v1"}); a.code != http.StatusNotFound {
		t.Errorf("a group that is not served: %d", a.code)
	}
}

// described demands a description of a schema and of all of its fields.
func (s schemaOf) described(t *testing.T, name string) {
	t.Helper()
	if s.Description == "" && len(s.Properties) > 0 {
		t.Errorf("%s has no description", name)
	}
	for field, p := range s.Properties {
		if p.Description == "" {
			t.Errorf("%s.%s has no description", name, field)
		}
	}
}

// OpenAPI v2, in JSON and in protobuf, has the paths of discovery and a
// definition of every kind.
func TestOpenAPIv2(t *testing.T) {
	var d document
	a := admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: "application/json"}, &d)
	if d.Swagger != "2.0" || a.header.Get("Etag") == "" {
		t.Errorf("version %q, Etag %q", d.Swagger, a.header.Get("Etag"))
	}
	difference(t, "OpenAPI v2", promised(t), d.offered())
	kinds := map[string]bool{}
	for name, s := range d.Definitions {
		s.described(t, name)
		for _, gvk := range s.GVK {
			kinds[fmt.Sprintf("%s/%s %s", gvk.Group, gvk.Version, gvk.Kind)] = true
		}
	}
	for _, r := range resources(t) {
		if gv := r.groupVersion; !strings.Contains(r.Name, "/") && !kinds[gv+" "+r.Kind] && !kinds["/"+gv+" "+r.Kind] {
			t.Errorf("no definition of %s %s", gv, r.Kind)
		}
	}
	for _, accept := range []string{"application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"} {
		pb := admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: accept}, nil)
		var parsed openapi_v2.Document
		if err := proto.Unmarshal(pb.body, &parsed); err != nil {
			t.Fatalf("%s: %v", accept, err)
		}
		if parsed.GetSwagger() != "2.0" || len(parsed.GetPaths().GetPath()) != len(d.Paths) || len(parsed.GetDefinitions().GetAdditionalProperties()) != len(d.Definitions) {
			t.Errorf("%s has %d paths and %d definitions, JSON has %d and %d", accept, len(parsed.GetPaths().GetPath()), len(parsed.GetDefinitions().GetAdditionalProperties()), len(d.Paths), len(d.Definitions))
		}
	}
	if again := admin.do(t, call{path: "/openapi/v2", header: map[string]string{"If-None-Match": a.header.Get("Etag")}}); again.code != http.StatusNotModified {
		t.Errorf("with its Etag: %d", again.code)
	}
	if document, err := kube.Discovery().OpenAPISchema(); err != nil || document.GetSwagger() != "2.0" {
		t.Errorf("client-go: %v", err)
	}
	if paths, err := kube.Discovery().OpenAPIV3().Paths(); err != nil || len(paths) == 0 {
		t.Errorf("client-go v3: %v", err)
	}
}
