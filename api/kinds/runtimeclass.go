package kinds

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func runtimeClass() *api.Resource {
	return stored[nodev1.RuntimeClass, *nodev1.RuntimeClass, nodev1.RuntimeClassList](nodev1.SchemeGroupVersion, &api.Resource{
		Plural:       "runtimeclasses",
		Singular:     "runtimeclass",
		Kind:         "RuntimeClass",
		Prefix:       "runtimeclasses",
		ChecksBase:   true,
		AnyFinalizer: true,
		Validate: validates(func(c *nodev1.RuntimeClass) field.ErrorList {
			at, errs := field.NewPath("handler"), validateRuntimeClass(c)
			if c.Handler == "" {
				return append(errs, field.Required(at, "").MarkBeta())
			}
			return append(errs, invalidEach(at, c.Handler, content.IsDNS1123Label(c.Handler)).MarkBeta()...)
		}),
		ValidateUpdate:      validatesUpdate(validateRuntimeClassUpdate),
		Warnings:            warns(warnRuntimeClass),
		AllowCreateOnUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Handler", "string", ""), // Kubernetes looks for it among metadata
				ageColumn(),
			},
			Row: cells(func(c *nodev1.RuntimeClass, now time.Time) []any {
				return []any{c.Name, c.Handler, age(c.CreationTimestamp, now)}
			}),
		},
	})
}

// validateRuntimeClassUpdate: of a changed handler only the change is declared, so
// its form is told of first, and in other words than that of a new one.
func validateRuntimeClassUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	at := field.NewPath("handler")
	var errs field.ErrorList
	if c.Handler != "" {
		errs = isDNSLabel(c.Handler, at)
	}
	errs = append(errs, validateRuntimeClass(c)...)
	errs = append(errs, immutable(c.Handler, old.Handler, at).MarkBeta()...)
	if c.Handler == "" {
		errs = append(errs, field.Required(at, "").MarkBeta())
	}
	return errs
}

func validateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if c.Overhead != nil {
		errs = append(errs, pod.ValidateLimits(c.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if c.Scheduling == nil {
		return errs
	}
	path := field.NewPath("scheduling")
	errs = append(errs, metav1validation.ValidateLabels(c.Scheduling.NodeSelector, path.Child("nodeSelector"))...)
	at, list := path.Child("tolerations"), c.Scheduling.Tolerations
	errs = append(errs, pod.ValidateTolerations(list, at)...)
	for i, t := range list {
		same := func(o corev1.Toleration) bool {
			return o.Key == t.Key && o.Operator == t.Operator && o.Value == t.Value && o.Effect == t.Effect
		}
		if slices.ContainsFunc(list[:i], same) {
			errs = append(errs, field.Duplicate(at.Index(i), t))
		}
	}
	return errs
}

func warnRuntimeClass(c, _ *nodev1.RuntimeClass) []string {
	if c.Scheduling == nil {
		return nil
	}
	var warnings []string
	for _, key := range slices.Sorted(maps.Keys(c.Scheduling.NodeSelector)) {
		if text, ok := pod.OldNodeLabel(key); ok {
			warnings = append(warnings, "scheduling.nodeSelector: "+text)
		}
	}
	return warnings
}
