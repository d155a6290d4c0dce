package api

import (
	"fmt"
	"slices"
)

// LabelNotSupported is how most kinds with field labels of their own refuse
// others.
const LabelNotSupported = "field label not supported: %s"

// FieldLabel is the row's name of a label that clients of this version may
// select by. The error says in Kubernetes' words that they may not.
func (s *Served) FieldLabel(label string) (string, error) {
	// Kinds without labels and words of their own take both of the metadata,
	// whatever their scope.
	plain := len(s.FieldLabels) == 0 && s.FieldRefusal == ""
	own, ok := s.Version.FieldLabels[label]
	switch {
	case label == "metadata.name", label == "metadata.namespace" && (plain || s.Namespaced && !s.NoNamespaceLabel):
		return label, nil
	case ok:
		return own, nil
	case s.Version.FieldLabels == nil && slices.Contains(s.FieldLabels, label):
		return label, nil
	case plain:
		return "", fmt.Errorf("%q is not a known field selector: only %q, %q", label, "metadata.name", "metadata.namespace")
	case s.FieldRefusal == "":
		return "", fmt.Errorf(LabelNotSupported, label)
	}
	return "", fmt.Errorf(s.FieldRefusal, label)
}
