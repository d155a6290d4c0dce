package kinds_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

type updateCase struct {
	Name        string               `json:"name"`
	InProcess   bool                 `json:"inProcess,omitempty"`
	Subresource string               `json:"subresource,omitempty"`
	Old         runtime.RawExtension `json:"old"`
	Object      runtime.RawExtension `json:"object"`
	// Want is the part of the result that the case is about; null where a
	// field must be absent.
	Want any `json:"want"`
}

// TestUpdate says what an update may change, and what it is taken to mean.
func TestUpdate(t *testing.T) {
	for file, docs := range documents(t, "update/*.yaml") {
		for _, doc := range docs {
			var c updateCase
			if err := yaml.UnmarshalStrict(doc, &c); err != nil {
				t.Fatalf("%s: %v\n%s", file, err, doc)
			}
			t.Run(file+"/"+c.Name, func(t *testing.T) {
				decode := (&invalidCase{}).decode
				w := &write{t: t, obj: decode(t, c.Object.Raw), old: decode(t, c.Old.Raw)}
				if errs := w.causes(c.Subresource); len(errs) > 0 {
					t.Errorf("refused: %v", errs)
				}
				text, err := json.Marshal(w.obj)
				if err != nil {
					t.Fatal(err)
				}
				var got any
				if err := json.Unmarshal(text, &got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.Want, only(c.Want, got)); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// only is the part of got that want speaks about.
func only(want, got any) any {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return got
		}
		part := map[string]any{}
		for key, value := range w {
			part[key] = only(value, g[key])
		}
		return part
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return got
		}
		part := []any{}
		for i, value := range w {
			part = append(part, only(value, g[i]))
		}
		return part
	}
	return got
}
