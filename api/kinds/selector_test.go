package kinds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"hansa.dev/hansa/api/kinds"
)

// TestFieldLabels holds the labels by which each kind can be selected, and what is
// said of others, to a table of what Kubernetes' conversions of field labels say.
func TestFieldLabels(t *testing.T) {
	candidates := map[string]bool{"metadata.name": true, "metadata.namespace": true, "metadata.uid": true, "name": true}
	for _, served := range kinds.Registry().Served() {
		for _, label := range served.FieldLabels {
			candidates[label] = true
		}
		for label := range served.Version.FieldLabels {
			candidates[label] = true
		}
	}
	var text strings.Builder
	for _, served := range kinds.Registry().Served() {
		if !served.Offers("list") {
			continue
		}
		var labels []string
		for _, label := range slices.Sorted(maps.Keys(candidates)) {
			if _, err := served.FieldLabel(label); err == nil {
				labels = append(labels, label)
			}
		}
		_, err := served.FieldLabel("none")
		fmt.Fprintf(&text, "%s %s: %s\n\t%v\n\n", served.Version.GroupVersion, served.Plural, strings.Join(labels, " "), err)
	}
	golden(t, "fieldlabels.golden", strings.TrimSuffix(text.String(), "\n"))
}
