package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
)

func TestWarnings(t *testing.T) {
	for _, doc := range documents(t, "warnings.yaml")["warnings"] {
		var c struct {
			Object runtime.RawExtension `json:"object"`
			Old    runtime.RawExtension `json:"old"`
			Want   []string             `json:"want"`

			InProcess bool `json:"inProcess"` // for tests through a server
		}
		if err := yaml.UnmarshalStrict(doc, &c); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		decode := (&invalidCase{}).decode
		w := &write{t: t, obj: decode(t, c.Object.Raw)}
		var old api.Object
		if len(c.Old.Raw) > 0 {
			w.old = decode(t, c.Old.Raw)
			old = w.old.(api.Object)
		}
		if errs := w.causes(""); len(errs) > 0 {
			t.Errorf("refused: %v\n%s", errs, doc)
		}
		if diff := cmp.Diff(c.Want, w.row.Warnings(w.obj.(api.Object), old)); diff != "" {
			t.Errorf("warnings (-want +got):\n%s\nfor\n%s", diff, doc)
		}
	}
}
