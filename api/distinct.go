package api

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Distinct keeps the first of errors that read the same: clients of Kubernetes are
// not told twice. It takes the list over.
func Distinct(errs field.ErrorList) field.ErrorList {
	if len(errs) < 2 {
		return errs
	}
	seen := sets.New[string]()
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		text := e.Error()
		told := seen.Has(text)
		seen.Insert(text)
		return told
	})
}
