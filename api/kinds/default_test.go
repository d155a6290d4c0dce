package kinds_test

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestCreated shows objects as sent and as stored: with what was left out, and
// without what a writer may not set.
func TestCreated(t *testing.T) {
	for file, docs := range documents(t, "default/*[a-z].yaml") {
		if strings.HasSuffix(file, ".golden") {
			continue
		}
		t.Run(file, func(t *testing.T) {
			var stored []string
			for _, doc := range docs {
				raw, err := yaml.YAMLToJSON(doc)
				if err != nil {
					t.Fatal(err)
				}
				obj, _, err := encodings()["json"].Decode(raw, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				w := &write{t: t, obj: obj}
				if errs := w.causes(""); len(errs) > 0 {
					t.Errorf("refused: %v\n%s", errs, doc)
				}
				text, err := yaml.Marshal(obj)
				if err != nil {
					t.Fatal(err)
				}
				stored = append(stored, string(text))
			}
			golden(t, fmt.Sprintf("default/%s.golden.yaml", file), strings.Join(stored, "---\n"))
		})
	}
}
