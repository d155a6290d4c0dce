package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateFinalizerDomains demands that finalizers name the domain of whoever
// answers for them, but for the few of Kubernetes itself. at gives the path of
// the one of an index. It is a check of metadata that the library lacks.
func ValidateFinalizerDomains(names []string, at func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		switch {
		case strings.Contains(name, "/"):
		case name == string(corev1.FinalizerKubernetes), name == metav1.FinalizerOrphanDependents, name == metav1.FinalizerDeleteDependents:
		default:
			errs = append(errs, field.Invalid(at(i), name, "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}
