package custom_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const widgets = "/apis/example.com/v1/namespaces/default/widgets"

const plain = `
type: object
properties:
  spec:
    type: object
    properties:
      size: {type: integer, default: 3, minimum: 1}
      color: {type: string, enum: [red, green]}
      parts:
        type: array
        x-kubernetes-list-type: map
        x-kubernetes-list-map-keys: [name]
        items:
          type: object
          required: [name]
          properties: {name: {type: string}, count: {type: integer}}
      replicas: {type: integer}
  status:
    type: object
    properties: {replicas: {type: integer}, phase: {type: string}}
`

const subresources = `
subresources:
  status: {}
  scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
additionalPrinterColumns:
- {name: Color, type: string, jsonPath: .spec.color}
- {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
selectableFields:
- jsonPath: .spec.color
`

func widgetWorld(t testing.TB) *world {
	return newWorld(t, definitionOf(plain, subresources))
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEstablished(t *testing.T) {
	w := widgetWorld(t)
	d := w.want(200, "GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com", "").object()
	status := d["status"].(map[string]any)
	var got []string
	for _, c := range status["conditions"].([]any) {
		c := c.(map[string]any)
		got = append(got, c["type"].(string)+"="+c["status"].(string)+" "+c["reason"].(string))
	}
	if want := "NamesAccepted=True NoConflicts,Established=True InitialNamesAccepted"; strings.Join(got, ",") != want {
		t.Errorf("conditions are %s, want %s", got, want)
	}
	if s := text(t, status["storedVersions"]); s != `["v1"]` {
		t.Errorf("storedVersions are %s", s)
	}
}

func TestLife(t *testing.T) {
	w := widgetWorld(t)
	a := w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"color":"red","unknown":1},"status":{"phase":"x"}}`)
	o := a.object()
	if s := text(t, o["spec"]); s != `{"color":"red","size":3}` {
		t.Errorf("created with spec %s", s)
	}
	if o["status"] != nil {
		t.Errorf("created with status %v", o["status"])
	}
	if h := a.header.Values("Warning"); len(h) != 1 || !strings.Contains(h[0], `unknown field \"spec.unknown\"`) {
		t.Errorf("warnings %q", h)
	}
	o = w.want(200, "GET", widgets+"/a", "").object()
	meta := o["metadata"].(map[string]any)
	if meta["generation"] != 1.0 || meta["uid"] == nil || o["kind"] != "Widget" || o["apiVersion"] != "example.com/v1" {
		t.Errorf("read back %s", text(t, o))
	}
	o = w.want(200, "PATCH", widgets+"/a", `{"spec":{"size":5}}`, "application/merge-patch+json").object()
	if s := text(t, o["spec"]); s != `{"color":"red","size":5}` || o["metadata"].(map[string]any)["generation"] != 2.0 {
		t.Errorf("patched to %s", text(t, o))
	}
	o = w.want(200, "PATCH", widgets+"/a/status", `{"spec":{"size":7},"status":{"phase":"Ready"}}`, "application/merge-patch+json").object()
	if s := text(t, o["spec"]) + text(t, o["status"]); s != `{"color":"red","size":5}{"phase":"Ready"}` || o["metadata"].(map[string]any)["generation"] != 2.0 {
		t.Errorf("status patched to %s", text(t, o))
	}
	before := w.store.Revision()
	w.want(200, "PATCH", widgets+"/a", `{"spec":{"size":5}}`, "application/merge-patch+json")
	if w.store.Revision() != before {
		t.Error("a patch that changes nothing was written")
	}
	list := w.want(200, "GET", "/apis/example.com/v1/widgets", "").object()
	if list["kind"] != "WidgetList" || len(list["items"].([]any)) != 1 {
		t.Errorf("list is %s", text(t, list))
	}
	w.want(200, "DELETE", widgets+"/a", "")
	w.want(404, "GET", widgets+"/a", "")
}

// A merge patch that leaves metadata alone takes a shorter way, to the same end.
func TestMergePatchEitherWay(t *testing.T) {
	w := newWorld(t, definitionOf("type: object\nx-kubernetes-preserve-unknown-fields: true\nproperties: {a: {type: object, properties: {b: {type: string, default: x}}}, l: {type: array, items: {type: integer}}}", ""))
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"o"},"a":{"b":"c"},"l":[1,2],"x":{"y":{"z":1}},"n":null}`)
	for _, patch := range []string{
		`{"a":null}`, `{"a":{"b":null}}`, `{"a":{"c":1}}`, `{"l":[3]}`, `{"l":null}`, `{"l":{"k":1}}`, `{"x":{"y":{"z":null,"q":[{"r":null,"s":2}]}}}`,
		`{"x":1.5}`, `{"x":{"y":2}}`, `{"x":{"y":{"z":{"deep":null}}}}`, `{"new":{"a":null,"b":{"c":null}}}`, `{"n":{"m":1}}`, `{}`,
		`{"x":1,"x":2}`, `{"l":["s"]}`, `{"a":"s"}`, `{"big":9007199254740993,"small":-0.5,"text":"é\u2028<"}`,
	} {
		for _, mode := range []string{"Ignore", "Warn", "Strict"} {
			path := widgets + "/o?dryRun=All&fieldValidation=" + mode
			short := w.do("PATCH", path, patch, "application/merge-patch+json")
			long := w.do("PATCH", path, strings.Replace(strings.Replace(patch, "{", `{"metadata":{},`, 1), ",}", "}", 1), "application/merge-patch+json")
			if short.code != long.code {
				t.Errorf("%s (%s): %d, the long way %d: %s", patch, mode, short.code, long.code, long.body)
			}
			if a, b := short.object(), long.object(); short.code == 200 {
				delete(a, "metadata")
				delete(b, "metadata")
				if text(t, a) != text(t, b) {
					t.Errorf("%s (%s): %s, the long way %s", patch, mode, text(t, a), text(t, b))
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	w := widgetWorld(t)
	a := w.want(422, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"color":"blue","size":0}}`)
	want := `Widget.example.com "a" is invalid: [spec.color: Unsupported value: "blue": supported values: "red", "green", spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]`
	got := a.status().Message
	if got != want && got != strings.Replace(want, "[spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\", spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]", "[spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1, spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"]", 1) {
		t.Errorf("refused with %s\nwant %s", got, want)
	}
	w.want(400, "POST", widgets+"?fieldValidation=Strict", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"unknown":1}}`)
	w.want(400, "POST", widgets, `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"a"}}`)
	w.want(422, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"a"}}`)
	w.want(415, "PATCH", widgets+"/a", `{}`, "application/strategic-merge-patch+json")
}

func TestApply(t *testing.T) {
	w := widgetWorld(t)
	apply := func(code int, manager, body string) answer {
		t.Helper()
		return w.want(code, "PATCH", widgets+"/a?fieldManager="+manager, body, "application/apply-patch+yaml")
	}
	const head = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\n"
	apply(201, "one", head+"spec: {color: red, parts: [{name: x, count: 1}]}")
	o := apply(200, "two", head+"spec: {parts: [{name: z, count: 2}]}").object()
	if s := text(t, o["spec"]); s != `{"color":"red","parts":[{"count":1,"name":"x"},{"count":2,"name":"z"}],"size":3}` {
		t.Errorf("merged to %s", s)
	}
	apply(409, "two", head+"spec: {color: green}")
	o = apply(200, "one", head+"spec: {color: red}").object()
	if s := text(t, o["spec"]); s != `{"color":"red","parts":[{"count":2,"name":"z"}],"size":3}` {
		t.Errorf("taken back to %s", s)
	}
}

func TestScale(t *testing.T) {
	w := widgetWorld(t)
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"replicas":2}}`)
	s := w.want(200, "GET", widgets+"/a/scale", "").object()
	if text(t, s["spec"]) != `{"replicas":2}` || s["kind"] != "Scale" {
		t.Errorf("scale is %s", text(t, s))
	}
	w.want(200, "PATCH", widgets+"/a/scale", `{"spec":{"replicas":4}}`, "application/merge-patch+json")
	o := w.want(200, "GET", widgets+"/a", "").object()
	if text(t, o["spec"]) != `{"replicas":4,"size":3}` {
		t.Errorf("scaled to %s", text(t, o["spec"]))
	}
	// A patch may set replicas that are not there yet, and must.
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"}}`)
	w.want(500, "GET", widgets+"/b/scale", "")
	w.want(400, "PATCH", widgets+"/b/scale", `{}`, "application/merge-patch+json")
	w.want(200, "PATCH", widgets+"/b/scale", `{"spec":{"replicas":4}}`, "application/merge-patch+json")
	if s := w.want(200, "GET", widgets+"/b/scale", "").object(); text(t, s["spec"]) != `{"replicas":4}` {
		t.Errorf("scaled to %s", text(t, s["spec"]))
	}
}

func TestShown(t *testing.T) {
	w := widgetWorld(t)
	for name, color := range map[string]string{"a": "red", "b": "green"} {
		w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"`+name+`"},"spec":{"color":"`+color+`"}}`)
	}
	table := w.want(200, "GET", widgets, "", "", "application/json;as=Table;g=meta.k8s.io;v=v1").object()
	if got := text(t, table["rows"].([]any)[1].(map[string]any)["cells"].([]any)[:2]); got != `["b","green"]` {
		t.Errorf("row is %s", got)
	}
	list := w.want(200, "GET", widgets+"?fieldSelector=spec.color%3Dred", "").object()
	if len(list["items"].([]any)) != 1 {
		t.Errorf("selected %s", text(t, list["items"]))
	}
	w.want(400, "GET", widgets+"?fieldSelector=spec.size%3D3", "")
	partial := w.want(200, "GET", widgets+"/a", "", "", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").object()
	if partial["kind"] != "PartialObjectMetadata" || partial["spec"] != nil {
		t.Errorf("metadata only is %s", text(t, partial))
	}
	w.want(406, "GET", widgets+"/a", "", "", "application/vnd.kubernetes.protobuf")
	if y := w.want(200, "GET", widgets+"/a", "", "", "application/yaml"); !strings.Contains(string(y.body), "\nspec:\n  color: red\n") {
		t.Errorf("yaml is %s", y.body)
	}
}

func TestDiscovered(t *testing.T) {
	w := newWorld(t)
	w.want(404, "GET", "/apis/example.com/v1", "")
	before := w.want(200, "GET", "/apis", "").header.Get("Etag")
	w.define(definitionOf(plain, subresources))
	if after := w.want(200, "GET", "/apis", "").header.Get("Etag"); after == before {
		t.Error("the ETag stays the same")
	}
	list := w.want(200, "GET", "/apis/example.com/v1", "").object()
	var names []string
	for _, r := range list["resources"].([]any) {
		names = append(names, r.(map[string]any)["name"].(string))
	}
	if got := strings.Join(names, ","); got != "widgets,widgets/scale,widgets/status" {
		t.Errorf("resources are %s", got)
	}
	if s := text(t, list["resources"].([]any)[0]); !strings.Contains(s, `"shortNames":["wd"]`) || !strings.Contains(s, `"categories":["all"]`) {
		t.Errorf("resource is %s", s)
	}
}

func TestRemoved(t *testing.T) {
	w := widgetWorld(t)
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","finalizers":["example.com/f"]}}`)
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
	w.want(200, "DELETE", path, "")
	w.settle()
	w.want(200, "GET", path, "")
	refused := w.want(http.StatusForbidden, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"}}`)
	if want := `widgets.example.com "b" is forbidden: create not allowed while custom resource definition is terminating`; refused.status().Message != want {
		t.Errorf("refused with %s", refused.status().Message)
	}
	w.want(200, "PATCH", widgets+"/a", `{"metadata":{"finalizers":null}}`, "application/merge-patch+json")
	w.settle()
	w.want(404, "GET", path, "")
	w.want(404, "GET", widgets, "")
	w.define(definitionOf(plain, ""))
	if n := len(w.want(200, "GET", widgets, "").object()["items"].([]any)); n != 0 {
		t.Errorf("%d objects are there again", n)
	}
}
