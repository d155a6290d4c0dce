package custom

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"pgregory.net/rapid"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/fields"
)

// ownedSchema draws a schema with every way to own what is in it.
func ownedSchema(t *rapid.T, levels int) map[string]any {
	kinds := []string{"string", "integer", "number", "boolean", "either"}
	if levels > 0 {
		kinds = append(kinds, "object", "object", "object", "map", "set", "list", "atomic", "items", "items")
	}
	if rapid.IntRange(0, 19).Draw(t, "unknown") == 0 {
		return map[string]any{"x-kubernetes-preserve-unknown-fields": true}
	}
	s := map[string]any{}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "either":
		s["x-kubernetes-int-or-string"] = true
	case "object":
		s["type"] = "object"
		properties := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d-1"}), 1, 4, rapid.ID).Draw(t, "names") {
			properties[name] = ownedSchema(t, levels-1)
		}
		s["properties"] = properties
		if rapid.IntRange(0, 5).Draw(t, "whole") == 0 {
			s["x-kubernetes-map-type"] = "atomic"
		}
	case "map":
		s["type"], s["additionalProperties"] = "object", ownedSchema(t, levels-1)
	case "set":
		s["type"], s["x-kubernetes-list-type"] = "array", "set"
		s["items"] = map[string]any{"type": rapid.SampledFrom([]string{"string", "integer"}).Draw(t, "of")}
	case "list":
		s["type"], s["items"] = "array", ownedSchema(t, levels-1)
	case "atomic":
		s["type"], s["items"], s["x-kubernetes-list-type"] = "array", ownedSchema(t, levels-1), "atomic"
	case "items":
		port := map[string]any{"type": "integer"}
		protocol := map[string]any{"type": "string", "default": "a"}
		s["type"], s["x-kubernetes-list-type"], s["x-kubernetes-list-map-keys"] = "array", "map", []any{"port", "protocol"}
		s["items"] = map[string]any{"type": "object", "required": []any{"port"}, "properties": map[string]any{"port": port, "protocol": protocol, "a": ownedSchema(t, levels-1)}}
	default:
		s["type"] = kind
	}
	if rapid.IntRange(0, 5).Draw(t, "nullable") == 0 && s["type"] != nil {
		s["nullable"] = true
	}
	return s
}

// valueOf draws a value that a schema allows, mostly.
func valueOf(t *rapid.T, s map[string]any) any {
	if rapid.IntRange(0, 59).Draw(t, "wrong") == 0 {
		return anyValue(t, 2)
	}
	if s["nullable"] == true && rapid.IntRange(0, 3).Draw(t, "null") == 0 {
		return nil
	}
	words := rapid.SampledFrom([]string{"", "a", "b", "c", "é\"\\\n<"})
	if rapid.IntRange(0, 9).Draw(t, "plain") > 0 {
		words = rapid.SampledFrom([]string{"a", "b", "c"})
	}
	switch s["type"] {
	case nil:
		return rapid.OneOf(rapid.Map(rapid.Int64Range(0, 3), func(n int64) any { return n }), rapid.Map(words, func(s string) any { return s })).Draw(t, "any")
	case "string":
		return words.Draw(t, "text")
	case "integer":
		return rapid.Int64Range(-2, 2).Draw(t, "number")
	case "number":
		return rapid.SampledFrom([]any{int64(1), 1.0, 1.5}).Draw(t, "number")
	case "boolean":
		return rapid.Bool().Draw(t, "bool")
	case "array":
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			list = append(list, valueOf(t, s["items"].(map[string]any)))
		}
		return list
	}
	o := map[string]any{}
	if inner, ok := s["additionalProperties"].(map[string]any); ok {
		for _, name := range rapid.SliceOfNDistinct(words, 0, 2, rapid.ID).Draw(t, "names") {
			o[name] = valueOf(t, inner)
		}
		return o
	}
	properties := s["properties"].(map[string]any)
	for _, name := range []string{"a", "b", "c", "d-1", "port", "protocol"} {
		if inner, ok := properties[name].(map[string]any); ok && (name == "port" || rapid.IntRange(0, 3).Draw(t, "there") > 0) {
			o[name] = valueOf(t, inner)
		}
	}
	return o
}

// Tracking the fields of a tree alone comes to what the library comes to, whoever
// writes what, and mostly it is sure of it.
func TestTreesAreTracked(t *testing.T) {
	writes, alone := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		schema := ownedSchema(r, 3)
		data, err := json.Marshal(schema)
		if err != nil {
			r.Fatal(err)
		}
		v := versionOf(t, data)
		if _, err := v.compiled(); err != nil {
			r.Fatalf("schema %s: %v", data, err)
		}
		subresource := rapid.SampledFrom([]string{"", "status"}).Draw(r, "subresource")
		reset := v.resets("status")
		if subresource != "" {
			reset = v.resets("metadata", "spec")
		}
		filters := map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(v.gv.String()): reset[v.gv]}
		m := v.merge()
		library, err := managedfields.NewDefaultCRDFieldManager(m, m, m, m, v.gv.WithKind("Widget"), v.gv, subresource, filters)
		if err != nil {
			r.Fatal(err)
		}
		kind, err := m.Type()
		if err != nil {
			r.Fatal(err)
		}
		common := &fields.Common{}
		tracker := fields.NewTreeTracker(kind, v.gv.String(), subresource, reset[v.gv].(api.AllBut).Set, common)
		draw := func() *Object {
			tree := map[string]any{"metadata": map[string]any{"name": "a"}, "spec": map[string]any{"f": valueOf(r, schema)}}
			if rapid.Bool().Draw(r, "status") {
				tree["status"] = map[string]any{"phase": rapid.SampledFrom([]string{"a", "b"}).Draw(r, "phase")}
			}
			obj, _, err := v.decode(tree, false)
			if err != nil {
				r.Skip("it is no object")
			}
			v.fill(obj)
			if rapid.Bool().Draw(r, "labels") {
				obj.SetLabels(map[string]string{rapid.SampledFrom([]string{"a", "b"}).Draw(r, "label"): "v"})
			}
			return obj.(*Object)
		}
		live := newObject(v.of.kind, v.Name)
		for range rapid.IntRange(1, 5).Draw(r, "steps") {
			obj := draw()
			if uid := live.UID; uid != "" {
				obj.UID = uid
				obj.ManagedFields = live.ManagedFields
			}
			manager := rapid.SampledFrom([]string{"a", "b", ""}).Draw(r, "manager")
			ours, theirs := obj.DeepCopyObject().(*Object), obj.DeepCopyObject().(*Object)
			before := asText(r, live)
			library.UpdateNoErrors(live, theirs, manager)
			writes++
			if tracker.Update(live, ours, manager, metav1.NewTime(time.Now())) {
				alone++
				if got, want := managers(r, ours), managers(r, theirs); got != want {
					r.Fatalf("schema %s\nlive %s\nobj  %s\ngot  %s\nwant %s", data, before, asText(r, obj), got, want)
				}
			}
			if after := asText(r, live); after != before {
				r.Fatalf("the present object became\n%s\nfrom\n%s", after, before)
			}
			live = theirs
			live.UID = "u"
			if rapid.Bool().Draw(r, "seal") {
				if err := live.seal(v); err != nil {
					r.Fatal(err)
				}
			}
		}
	})
	t.Logf("%d of %d writes without the library", alone, writes)
	if alone < writes/2 {
		t.Errorf("the library did %d of %d", writes-alone, writes)
	}
}

func asText(t *rapid.T, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// managers are an object's managers without their times.
func managers(t *rapid.T, o *Object) string {
	out := o.DeepCopyObject().(*Object).ManagedFields
	for i := range out {
		out[i].Time = nil
	}
	return fmt.Sprint(out == nil, asText(t, out))
}
