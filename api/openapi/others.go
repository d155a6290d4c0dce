package openapi

import (
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// addOther adds another server's document to what is put into the embedded one.
// Its schemas that have a name of the embedded ones, or of those added before, and
// are not the same, get another name, as in Kubernetes.
func addOther(more, other *spec.Swagger) error {
	embedded, err := definitionsV2()
	if err != nil {
		return err
	}
	lent := map[string]bool{}
	for name := range other.Definitions {
		text, ok := embedded[name]
		if _, had := more.Definitions[name]; !ok || had {
			continue
		}
		var s spec.Schema
		if err := json.Unmarshal(text, &s); err != nil {
			return fmt.Errorf("read schema %s: %w", name, err)
		}
		more.Definitions[name], lent[name] = s, true
	}
	err = aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(more, other)
	for name := range lent {
		delete(more.Definitions, name) // the embedded document has it
	}
	if err != nil {
		return fmt.Errorf("merge OpenAPI documents: %w", err)
	}
	return nil
}

// definitionsV2 are the schemas of the embedded document, as text.
var definitionsV2 = sync.OnceValues(func() (map[string]json.RawMessage, error) {
	r, err := V2JSON().Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var doc struct {
		Definitions map[string]json.RawMessage `json:"definitions"`
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("read the embedded OpenAPI: %w", err)
	}
	return doc.Definitions, nil
})
