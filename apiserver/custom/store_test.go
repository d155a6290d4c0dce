package custom_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/watch"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// Another server over the same database has the same objects, those too that were
// there before it knew of their kind, and watches go on from any version.
func TestAnotherServer(t *testing.T) {
	engine := memory.New(memory.Options{})
	first := worldOver(t, engine, store.Options{DetectMutations: true}, definitionOf(plain, subresources))
	versions := []string{}
	for i := range 3 {
		o := first.want(201, "POST", widgets, fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w%d","labels":{"n":"%d"}}}`, i, i)).object()
		versions = append(versions, o["metadata"].(map[string]any)["resourceVersion"].(string))
	}
	second := worldOver(t, engine, store.Options{DetectMutations: true})
	list := second.want(200, "GET", widgets+"?labelSelector=n%3D1", "").object()
	if items := list["items"].([]any); len(items) != 1 || items[0].(map[string]any)["metadata"].(map[string]any)["name"] != "w1" {
		t.Errorf("selected %s", text(t, items))
	}
	row := second.registry.ByPrefix("example.com/widgets")
	w, err := second.store.Watch(t.Context(), store.Query{Resource: row}, store.WatchOptions{ResourceVersion: versions[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var seen []string
	for len(seen) < 2 {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			seen = append(seen, string(e.Type)+" "+e.Object.GetName())
		}
	}
	if got := strings.Join(seen, ","); got != "ADDED w1,ADDED w2" {
		t.Errorf("saw %s", got)
	}
}

// A watch of a kind goes on when its definition is changed, though the row is
// another one; whoever is told of the end begins again where it was.
func TestWatchAcrossChange(t *testing.T) {
	w := widgetWorld(t)
	before := w.registry.ByPrefix("example.com/widgets")
	watcher, err := w.store.Watch(t.Context(), store.Query{Resource: before}, store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	w.want(200, "PATCH", definitionPath, `{"spec":{"names":{"categories":["toys"]}}}`, "application/merge-patch+json")
	w.settle()
	after := w.registry.ByPrefix("example.com/widgets")
	if before == after {
		t.Error("the row is the same")
	}
	select {
	case <-before.Ended:
	default:
		t.Error("the old row goes on")
	}
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"}}`)
	events, err := watcher.Next(t.Context())
	if err != nil || len(events) != 1 || events[0].Type != watch.Added {
		t.Errorf("saw %v: %v", events, err)
	}
	if obj := w.store.View().Get(before, api.Key{Namespace: "default", Name: "a"}); obj == nil {
		t.Error("not seen by way of the old row")
	}
}

// A definition that comes again may have another scope and kind.
func TestDefinedAnew(t *testing.T) {
	w := widgetWorld(t)
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"}}`)
	w.want(200, "DELETE", definitionPath, "")
	w.settle()
	again := strings.NewReplacer("Namespaced", "Cluster", "kind: Widget", "kind: Wonder").Replace(definitionOf(plain, ""))
	w.define(again)
	w.want(404, "GET", widgets, "")
	w.want(201, "POST", "/apis/example.com/v1/widgets", `{"apiVersion":"example.com/v1","kind":"Wonder","metadata":{"name":"a"}}`)
	o := w.want(200, "GET", "/apis/example.com/v1/widgets/a", "").object()
	if o["kind"] != "Wonder" {
		t.Errorf("it is %s", text(t, o))
	}
}

// A definition with a name that another has waits until that is free.
func TestNamesAreTakenOnce(t *testing.T) {
	w := widgetWorld(t)
	other := strings.NewReplacer("widgets", "gizmos", "singular: widget", "singular: gizmo", "kind: Widget", "kind: Widget").Replace(definitionOf(plain, ""))
	w.define(other)
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gizmos.example.com"
	if s := text(t, w.want(200, "GET", path, "").object()["status"]); !strings.Contains(s, `"message":"\"WidgetList\" is already in use"`) || !strings.Contains(s, `"NotAccepted"`) {
		t.Errorf("status is %s", s)
	}
	w.want(404, "GET", "/apis/example.com/v1/namespaces/default/gizmos", "")
	w.want(200, "DELETE", definitionPath, "")
	w.settle()
	w.want(200, "GET", "/apis/example.com/v1/namespaces/default/gizmos", "")
}

// What is invalid is refused in Kubernetes' words.
func TestInvalidDefinitions(t *testing.T) {
	good := definitionOf(plain, "")
	for name, c := range map[string]struct{ old, new, want string }{
		"name":          {"name: widgets.example.com", "name: other.example.com", `metadata.name: Invalid value: "other.example.com": must be spec.names.plural+"."+spec.group`},
		"scope":         {"scope: Namespaced", "scope: Galaxy", `spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"`},
		"root":          {"type: object\n        properties:\n          spec:", "type: array\n        properties:\n          spec:", `spec.validation.openAPIV3Schema.type: Invalid value: "array": must be object at the root`},
		"no storage":    {"storage: true", "storage: false", `spec.versions: Invalid value: `},
		"structural":    {"size: {type: integer, default: 3, minimum: 1}", "size: {minimum: 1}", `properties[spec].properties[size].type: Required value: must not be empty for specified object fields`},
		"default":       {"size: {type: integer, default: 3, minimum: 1}", "size: {type: integer, default: x}", `properties[size].default: Invalid value: "string"`},
		"keys":          {"x-kubernetes-list-map-keys: [name]", "x-kubernetes-list-map-keys: [other]", `x-kubernetes-list-map-keys: Invalid value: ["other"]: entries must all be names of item properties`},
		"rule":          {"size: {type: integer, default: 3, minimum: 1}", `size: {type: integer, x-kubernetes-validations: [{rule: "self >"}]}`, `x-kubernetes-validations[0].rule: Invalid value: `},
		"costly rule":   {"size: {type: integer, default: 3, minimum: 1}", `size: {type: array, items: {type: string}, x-kubernetes-validations: [{rule: "self.all(x, self.all(y, self.all(z, x + y == z)))"}]}`, `estimated rule cost exceeds budget`},
		"group":         {"group: example.com", "group: example", `spec.group: Invalid value: "example": should be a domain with at least one dot`},
		"kind is lower": {"kind: Widget,", "kind: wid get,", `spec.names.kind: Invalid value: "wid get"`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("nothing replaced in\n%s", good)
			}
			a := newWorld(t).want(422, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", bad)
			if got := a.status().Message; !strings.Contains(got, c.want) {
				t.Errorf("refused with %s\nwant %s", got, c.want)
			}
		})
	}
}
