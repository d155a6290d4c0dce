package openapi_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
)

type swagger struct {
	Paths       map[string]json.RawMessage
	Definitions map[string]model
	Components  struct{ Schemas map[string]model }
}

type model struct {
	Properties map[string]struct{ Description string }
	GVKs       []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
}

func read(t *testing.T, d openapi.Document) swagger {
	t.Helper()
	r, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	var s swagger
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// wantPaths is what discovery shows: each resource, its objects, its subresources.
func wantPaths() map[string]bool {
	want := map[string]bool{"/version/": true, "/api/": true, "/apis/": true, "/openid/v1/jwks/": true, "/.well-known/openid-configuration/": true}
	for _, r := range kinds.Registry().Resources() {
		for _, v := range r.Versions {
			root := "/api/v1/"
			if v.Group != "" {
				want["/apis/"+v.Group+"/"] = true
				root = "/apis/" + v.String() + "/"
			}
			want[root] = true
			base := root + r.Plural
			if r.Namespaced {
				if r.Offers("list") {
					want[base] = true
				}
				base = root + "namespaces/{namespace}/" + r.Plural
			}
			want[base] = true
			for _, verb := range []string{"get", "update", "patch", "delete"} {
				if r.Offers(verb) {
					want[base+"/{name}"] = true
				}
			}
			if r.Offers("watch") {
				watch := strings.Replace(base, root, root+"watch/", 1)
				want[root+"watch/"+r.Plural], want[watch], want[watch+"/{name}"] = true, true, true
			}
			for sub := range r.Subresources {
				want[base+"/{name}/"+sub] = true
				if sub == "proxy" {
					want[base+"/{name}/proxy/{path}"] = true
				}
			}
		}
	}
	return want
}

func TestPathSetEqualsDiscovery(t *testing.T) {
	want := slices.Sorted(maps.Keys(wantPaths()))
	v2 := slices.Sorted(maps.Keys(read(t, openapi.V2JSON()).Paths))
	if !slices.Equal(v2, want) {
		t.Errorf("v2 paths = %v,\nwant %v\n(run make generate?)", v2, want)
	}
	var v3 []string
	for _, d := range openapi.V3() {
		v3 = append(v3, slices.Collect(maps.Keys(read(t, d).Paths))...)
	}
	slices.Sort(v3)
	if !slices.Equal(v3, want) {
		t.Errorf("v3 paths = %v,\nwant %v\n(run make generate?)", v3, want)
	}
}

func TestEveryFieldIsDescribed(t *testing.T) {
	docs := map[string]map[string]model{"v2": read(t, openapi.V2JSON()).Definitions}
	for name, d := range openapi.V3() {
		docs[name] = read(t, d).Components.Schemas
	}
	for doc, models := range docs {
		for name, m := range models {
			for field, p := range m.Properties {
				if strings.TrimSpace(p.Description) == "" {
					t.Errorf("%s: %s.%s has no description", doc, name, field)
				}
			}
		}
	}
}

func TestEveryKindHasASchema(t *testing.T) {
	found := map[string]bool{}
	for _, m := range read(t, openapi.V2JSON()).Definitions {
		for _, gvk := range m.GVKs {
			found[gvk.Group+"/"+gvk.Version+"/"+gvk.Kind] = true
		}
	}
	for _, r := range kinds.Registry().Resources() {
		for _, v := range r.Versions {
			if key := v.Group + "/" + v.Version + "/" + r.Kind; !found[key] {
				t.Errorf("no schema for %s", key)
			}
		}
	}
}

func TestTypeConverterKnowsListMaps(t *testing.T) {
	conv, err := openapi.TypeConverter(kinds.Scheme())
	if err != nil {
		t.Fatal(err)
	}
	cm := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{"a": "1"}}
	v, err := conv.ObjectToTyped(cm)
	if err != nil {
		t.Fatal(err)
	}
	set, err := v.ToFieldSet()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(set.String(), ".data.a") {
		t.Errorf("fields = %s", set)
	}
}
