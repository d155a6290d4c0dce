package custom

import (
	"encoding/json"
	"reflect"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"
)

// anySchema draws a structural schema of at most some levels.
func anySchema(t *rapid.T, levels int) map[string]any {
	kinds := []string{"string", "integer", "boolean"}
	if levels > 0 {
		kinds = append(kinds, "object", "object", "map", "array", "any")
	}
	s := map[string]any{}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "string":
		s["type"] = kind
		if rapid.Bool().Draw(t, "default") {
			s["default"] = "d"
		}
	case "integer", "boolean":
		s["type"] = kind
	case "object":
		s["type"] = kind
		properties := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, "names") {
			properties[name] = anySchema(t, levels-1)
		}
		s["properties"] = properties
		if rapid.Bool().Draw(t, "preserve") {
			s["x-kubernetes-preserve-unknown-fields"] = true
		}
	case "map":
		s["type"] = "object"
		s["additionalProperties"] = anySchema(t, levels-1)
	case "array":
		s["type"] = kind
		s["items"] = anySchema(t, levels-1)
	case "any":
		s["x-kubernetes-preserve-unknown-fields"] = true
	}
	if rapid.IntRange(0, 3).Draw(t, "nullable") == 0 && s["type"] != nil {
		s["nullable"] = true
	}
	return s
}

// anyValue draws a value of at most some levels.
func anyValue(t *rapid.T, levels int) any {
	kinds := []string{"string", "integer", "boolean", "null"}
	if levels > 0 {
		kinds = append(kinds, "object", "object", "array")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "string":
		return rapid.SampledFrom([]string{"", "x", "é\"\\\n<"}).Draw(t, "text")
	case "integer":
		return rapid.Int64Range(-2, 2).Draw(t, "number")
	case "boolean":
		return rapid.Bool().Draw(t, "bool")
	case "object":
		o := map[string]any{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "x"}), 0, 4, rapid.ID).Draw(t, "names") {
			o[name] = anyValue(t, levels-1)
		}
		return o
	case "array":
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			list = append(list, anyValue(t, levels-1))
		}
		return list
	}
	return nil
}

// drawn is a version with a schema, and an object as a client sends it.
func drawn(t *rapid.T, tb testing.TB) (*version, map[string]any) {
	schema, err := json.Marshal(anySchema(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	v := versionOf(tb, schema)
	if _, err := v.compiled(); err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	return v, map[string]any{"metadata": map[string]any{"name": "a"}, "spec": map[string]any{"f": anyValue(t, 4)}}
}

// What was pruned and has its defaults stays as it is: its view is itself, through
// any number of writes.
func TestSettled(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		v, tree := drawn(r, t)
		obj, _, err := v.decode(tree, false)
		if err != nil {
			r.Skip("it is no object")
		}
		v.fill(obj)
		obj.SetGeneration(1)
		if err := v.seal(obj); err != nil {
			r.Fatal(err)
		}
		sealed := obj.(*Object)
		stored, err := sealed.AppendStored(nil)
		if err != nil {
			r.Fatal(err)
		}
		back := newObject(v.of.kind, v.Name)
		if err := json.Unmarshal(stored, back); err != nil {
			r.Fatalf("%s: %v", stored, err)
		}
		if string(back.raw) != string(sealed.raw) {
			r.Fatalf("stored %s, read %s", sealed.raw, back.raw)
		}
		seen, err := v.view(back)
		if err != nil {
			r.Fatal(err)
		}
		if seen != back || back.clean.Load() != v {
			r.Fatalf("%s is seen as %s", back.raw, seen.raw)
		}
	})
}

// Decoding takes away and adds nothing but what the schema says: what it knows of
// a value is there afterwards, and decoding again changes nothing.
func TestPruneTwice(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		v, tree := drawn(r, t)
		obj, _, err := v.decode(runtime.DeepCopyJSON(tree), false)
		if err != nil {
			r.Skip("it is no object")
		}
		v.fill(obj)
		first := obj.(*Object).whole()
		again, problems, err := v.decode(runtime.DeepCopyJSON(first), true)
		if err != nil || len(problems) > 0 {
			r.Fatalf("what was decoded cannot be decoded: %v %v", err, problems)
		}
		v.fill(again)
		if !reflect.DeepEqual(again.(*Object).Tree(), obj.(*Object).Tree()) {
			r.Fatalf("%v became %v", first, again.(*Object).Tree())
		}
	})
}

// From one version to another and back nothing is lost that both know.
func TestConvertThereAndBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		v, tree := drawn(r, t)
		d := v.of.CustomResourceDefinition.DeepCopy()
		other := *d.Spec.Versions[0].DeepCopy()
		other.Name, other.Storage = "v2", false
		d.Spec.Versions = append(d.Spec.Versions, other)
		def := define(d, func(*definition) converter { return sameTree{} })
		one, two := def.version("v1"), def.version("v2")
		obj, _, err := two.decode(tree, false)
		if err != nil {
			r.Skip("it is no object")
		}
		two.fill(obj)
		want := runtime.DeepCopyJSON(obj.(*Object).Tree())
		if err := two.seal(obj); err != nil {
			r.Fatal(err)
		}
		if obj.(*Object).version != "v1" {
			r.Fatalf("it is stored in %s", obj.(*Object).version)
		}
		for _, v := range []*version{one, two} {
			seen, err := v.view(obj)
			if err != nil {
				r.Fatal(err)
			}
			if !reflect.DeepEqual(seen.Tree(), want) {
				r.Fatalf("in %s it is %v, want %v", v.Name, seen.Tree(), want)
			}
		}
	})
}

// members finds what encoding/json finds.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1,"}"]},"c":"\""}`, ` { "a" : null , "\u0062":[] } `, `{"a"`, `[]`, `{"a":1,}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		found := map[string]json.RawMessage{}
		err := members(data, func(name string, _, value []byte) error {
			found[name] = value
			return nil
		})
		if !json.Valid(data) {
			return // only that it comes back
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(data, &want) != nil || want == nil {
			if err == nil {
				t.Fatalf("%s is an object", data)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for name, value := range want {
			if string(found[name]) != string(value) {
				t.Errorf("%s: %q is %s, want %s", data, name, found[name], value)
			}
		}
	})
}

// FuzzSchema takes schemas as clients may write them: those that validation lets
// pass can be served.
func FuzzSchema(f *testing.F) {
	for _, seed := range []string{
		`{"type":"string"}`, `{"type":"object","properties":{"a":{"type":"integer","default":1}}}`,
		`{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}}`,
		`{"type":"integer","x-kubernetes-validations":[{"rule":"self > 1"}]}`,
		`{"x-kubernetes-int-or-string":true}`, `{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}`,
	} {
		f.Add([]byte(seed), []byte(`{"a":[1,null,"x"]}`))
	}
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		var props apiextensionsv1.JSONSchemaProps
		var v any
		if json.Unmarshal(schema, &props) != nil || json.Unmarshal(value, &v) != nil {
			return
		}
		schema, err := json.Marshal(&props)
		if err != nil {
			return
		}
		d := versionOf(t, schema)
		def := d.of.DeepCopy()
		def.Name, def.Spec.Scope = "widgets.example.com", apiextensionsv1.NamespaceScoped
		def.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList"}
		def.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
		def.Status = apiextensionsv1.CustomResourceDefinitionStatus{StoredVersions: []string{"v1"}}
		if errs := validateDefinition(t.Context(), nil, def, nil, nil); len(errs) > 0 {
			return
		}
		if _, err := d.compiled(); err != nil {
			t.Fatalf("schema %s is valid and cannot be served: %v", schema, err)
		}
		obj, _, err := d.objectOf(t, v)
		if err != nil {
			return
		}
		d.validate(obj)
		if err := d.merge().err; err != nil {
			t.Fatalf("schema %s is valid and cannot be merged: %v", schema, err)
		}
		if err := d.seal(obj); err != nil {
			t.Fatal(err)
		}
	})
}
