package kinds_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/gonames"
)

// TestInvalidMessages holds every word of every refusal to a golden file for each
// table, the pods' too. The words are Kubernetes'.
func TestInvalidMessages(t *testing.T) {
	for _, pattern := range []string{"invalid/*.yaml", "../../pod/testdata/invalid/*.yaml", "../../pod/testdata/invalid-updates/*.yaml"} {
		docs := documents(t, pattern)
		for _, file := range slices.Sorted(maps.Keys(docs)) {
			t.Run(file, func(t *testing.T) {
				var text strings.Builder
				for _, doc := range docs[file] {
					var c invalidCase
					if err := yaml.UnmarshalStrict(doc, &c); err != nil {
						t.Fatalf("%v\n%s", err, doc)
					}
					if strings.Contains(pattern, "pod/") {
						c.asPod(t)
					}
					fmt.Fprintf(&text, "# %s\n", c.Name)
					var words []string
					for _, e := range gonames.Show(c.causes(t)) {
						words = append(words, strings.ReplaceAll(e.Error(), "\n", `\n`))
					}
					slices.Sort(words) // of maps they come in any order
					fmt.Fprintln(&text, strings.Join(words, "\n"))
				}
				golden(t, "messages/"+file+".golden", text.String())
			})
		}
	}
}

// asPod completes a case of a table of pods: they do not say what they are, and
// an update is a patch to the pod as it is read.
func (c *invalidCase) asPod(t *testing.T) {
	t.Helper()
	for _, raw := range []*runtime.RawExtension{&c.Object, &c.Old} {
		if len(raw.Raw) == 0 {
			continue
		}
		var o map[string]any
		if err := json.Unmarshal(raw.Raw, &o); err != nil {
			t.Fatal(err)
		}
		o["apiVersion"], o["kind"] = "v1", "Pod"
		raw.Raw = marshal(t, o)
	}
	if len(c.Patch.Raw) == 0 {
		return
	}
	old := c.decode(t, c.Old.Raw)
	w := &write{t: t, row: kindOf(t, old)}
	w.defaults(w.hub(old))
	if p := old.(*corev1.Pod); p.Status.QOSClass == "" {
		p.Status.QOSClass = pod.QOS(p)
	}
	c.Old.Raw = marshal(t, old)
	patched, err := jsonpatch.MergePatch(c.Old.Raw, c.Patch.Raw)
	if err != nil {
		t.Fatal(err)
	}
	c.Object.Raw = patched
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
