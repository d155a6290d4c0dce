package custom

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// schemaCase is a schema of spec.f, and values of it: new ones, and such that
// take the place of others.
type schemaCase struct {
	Schema  json.RawMessage
	Values  []any
	Updates []struct{ Old, New any }
}

// versionOf makes a version whose spec.f has a schema.
func versionOf(t testing.TB, schema []byte) *version {
	t.Helper()
	d := &apiextensionsv1.CustomResourceDefinition{}
	d.Spec.Group, d.Status.AcceptedNames.Kind = "example.com", "Widget"
	whole := fmt.Sprintf(`{"type":"object","properties":{"spec":{"type":"object","properties":{"f":%s}},"status":{"type":"object","properties":{"phase":{"type":"string"}}}}}`, schema)
	props := &apiextensionsv1.JSONSchemaProps{}
	if err := json.Unmarshal([]byte(whole), props); err != nil {
		t.Fatal(err)
	}
	d.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{
		Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: props},
	}}
	return define(d, func(*definition) converter { return sameTree{} }).versions[0]
}

// objectOf decodes a widget as a client sends it, with defaults.
func (v *version) objectOf(t testing.TB, value any) (*Object, []error, error) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": "a", "namespace": "default"}, "spec": map[string]any{"f": value}})
	if err != nil {
		t.Fatal(err)
	}
	obj, problems, err := v.decode(decodeTree(data), true)
	if err != nil {
		return nil, nil, err
	}
	v.fill(obj)
	return obj.(*Object), problems, nil
}

// TestSchemas holds what becomes of objects to golden files: each pair of a schema
// and a value is a line.
func TestSchemas(t *testing.T) {
	files, err := filepath.Glob("testdata/schemas/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no schemas", err)
	}
	pairs := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var cases []schemaCase
			if err := yaml.UnmarshalStrict(data, &cases); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, c := range cases {
				v := versionOf(t, c.Schema)
				fmt.Fprintf(&out, "%s\n", c.Schema)
				for _, value := range c.Values {
					pairs++
					fmt.Fprintf(&out, "  %s\n%s", inJSON(t, value), v.become(t, value))
				}
				for _, u := range c.Updates {
					pairs++
					fmt.Fprintf(&out, "  %s → %s\n%s", inJSON(t, u.Old), inJSON(t, u.New), v.change(t, u.Old, u.New))
				}
			}
			compare(t, strings.TrimSuffix(file, ".yaml")+".golden", out.String())
		})
	}
	if pairs < 300 {
		t.Errorf("only %d pairs", pairs)
	}
}

// become says what is stored of a new object, or why it is refused.
func (v *version) become(t *testing.T, value any) string {
	obj, problems, err := v.objectOf(t, value)
	if err != nil {
		return fmt.Sprintf("    cannot be decoded: %v\n", err)
	}
	var out strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&out, "    warning: %v\n", p)
	}
	if errs := v.validate(obj); len(errs) > 0 {
		return out.String() + lines(errs)
	}
	return out.String() + "    " + inJSON(t, obj.Tree()["spec"]) + "\n"
}

// change says what becomes of an object that was stored before its schema was.
func (v *version) change(t *testing.T, was, is any) string {
	old, _, err := v.objectOf(t, was)
	if err != nil {
		t.Fatal(err)
	}
	obj, _, err := v.objectOf(t, is)
	if err != nil {
		t.Fatal(err)
	}
	if errs := v.validateUpdate(obj, old); len(errs) > 0 {
		return lines(errs)
	}
	return "    taken\n"
}

func lines(errs field.ErrorList) string {
	texts := make([]string, len(errs))
	for i, e := range errs {
		texts[i] = fmt.Sprintf("    %v\n", e)
	}
	slices.Sort(texts) // fields come in no order
	return strings.Join(texts, "")
}

func inJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", path, diff)
	}
}
