package custom_test

import (
	"encoding/json"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
)

// Documents describe what is defined, from the moment that it is served until it
// is gone.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	const doc = "/openapi/v3/apis/example.com/v1"
	index := func() string {
		paths, _ := w.want(200, "GET", "/openapi/v3", "").object()["paths"].(map[string]any)
		entry, _ := paths["apis/example.com/v1"].(map[string]any)
		url, _ := entry["serverRelativeURL"].(string)
		return url
	}
	if url := index(); url != "" {
		t.Errorf("described before it is defined: %s", url)
	}
	w.define(definitionOf(plain, subresources))
	first := index()
	if !strings.HasPrefix(first, doc+"?hash=") {
		t.Fatalf("described at %q", first)
	}
	var v3 struct {
		Paths      map[string]json.RawMessage
		Components struct {
			Schemas map[string]struct{ Properties map[string]json.RawMessage }
		}
	}
	body := w.want(200, "GET", first, "").body
	if err := json.Unmarshal(body, &v3); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/{name}", "/{name}/status", "/{name}/scale"} {
		if v3.Paths["/apis/example.com/v1/namespaces/{namespace}/widgets"+path] == nil {
			t.Errorf("no path %s", path)
		}
	}
	for _, name := range []string{"com.example.v1.Widget", "com.example.v1.WidgetList", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference", "io.k8s.api.autoscaling.v1.Scale"} {
		if v3.Components.Schemas[name].Properties == nil {
			t.Errorf("no schema of %s", name)
		}
	}
	for _, ref := range strings.Split(string(body), `"#/components/schemas/`)[1:] {
		if name, _, _ := strings.Cut(ref, `"`); !strings.Contains(string(body), `"`+name+`":`) {
			t.Errorf("a reference to %s leads nowhere", name)
		}
	}
	var v2 struct{ Paths, Definitions map[string]json.RawMessage }
	if err := json.Unmarshal(w.want(200, "GET", "/openapi/v2", "").body, &v2); err != nil {
		t.Fatal(err)
	}
	if v2.Definitions["com.example.v1.Widget"] == nil || v2.Definitions["io.k8s.api.core.v1.Pod"] == nil || v2.Paths["/apis/example.com/v1/widgets"] == nil {
		t.Error("v2 lacks the widget, or pods")
	}
	const binary = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	var pb openapi_v2.Document
	if err := proto.Unmarshal(w.want(200, "GET", "/openapi/v2", "", "", binary).body, &pb); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, s := range pb.Definitions.AdditionalProperties {
		if s.Name == "com.example.v1.Widget" || s.Name == "io.k8s.api.core.v1.Pod" {
			found++
		}
	}
	if found != 2 || pb.Swagger != "2.0" {
		t.Errorf("v2 in protobuf has %d of two definitions, swagger %q", found, pb.Swagger)
	}
	w.want(200, "PATCH", definitionPath, `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape","value":{"type":"string"}}]`, "application/json-patch+json")
	w.settle()
	second := index()
	if second == first || !strings.Contains(string(w.want(200, "GET", second, "").body), `"shape"`) {
		t.Errorf("another schema is described at %s", second)
	}
	w.want(200, "DELETE", definitionPath, "")
	w.settle()
	if url := index(); url != "" {
		t.Errorf("described after it is gone: %s", url)
	}
	w.want(404, "GET", doc, "")
}
