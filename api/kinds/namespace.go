package kinds

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func namespace() *api.Resource {
	gv := corev1.SchemeGroupVersion
	return stored[corev1.Namespace, *corev1.Namespace, corev1.NamespaceList](gv, &api.Resource{
		Plural:     "namespaces",
		Singular:   "namespace",
		Kind:       "Namespace",
		ShortNames: []string{"ns"},
		// Namespaces are deleted one by one, each with all it holds.
		Verbs:          []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Prefix:         "namespaces",
		ChecksBase:     true,
		Default:        on(defaultNamespace),
		PrepareCreate:  on(prepareNamespace),
		PrepareUpdate:  onUpdate(keepNamespaceLifecycle),
		Canonicalize:   on(labelNamespace),
		Validate:       validates(validateNamespace),
		ValidateUpdate: validatesUpdate(func(ns, _ *corev1.Namespace) field.ErrorList { return validateNamespace(ns) }),
		NameRule:       apivalidation.ValidateNamespaceName,
		ResetFields:    resets(gv, "status"),

		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Status", "string", "The status of the namespace"),
				ageColumn(),
			},
			Row: cells(func(ns *corev1.Namespace, now time.Time) []any {
				return []any{ns.Name, string(ns.Status.Phase), age(ns.CreationTimestamp, now)}
			}),
		},
		FieldLabels: []string{"status.phase"},
		Fields: selects(func(ns *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(ns.Status.Phase)}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(func(ns, old *corev1.Namespace) { ns.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(validateNamespaceStatus),
				ResetFields:    resets(gv, "spec"),
			},
			"finalize": {
				Verbs:         []string{"update"},
				PrepareUpdate: onUpdate(func(ns, old *corev1.Namespace) { ns.Status = *old.Status.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(ns, _ *corev1.Namespace) field.ErrorList {
					return validateFinalizers(ns, field.NewPath("spec", "finalizers").Index)
				}),
				ResetFields: resets(gv, "status"),
			},
		},
	})
}

func defaultNamespace(ns *corev1.Namespace) {
	labelNamespace(ns)
	if ns.Status.Phase == "" {
		ns.Status.Phase = corev1.NamespaceActive
	}
}

// labelNamespace keeps the label by which selectors name a namespace. The name
// may still be missing (generateName) when defaults are applied.
func labelNamespace(ns *corev1.Namespace) {
	if ns.Name == "" {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

// prepareNamespace makes every new namespace active and held by the namespace
// loop, which empties it before it goes.
func prepareNamespace(ns *corev1.Namespace) {
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
}

// keepNamespaceLifecycle leaves status and spec.finalizers to their subresources.
func keepNamespaceLifecycle(ns, old *corev1.Namespace) {
	ns.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
	ns.Status = *old.Status.DeepCopy()
}

func validateNamespace(ns *corev1.Namespace) field.ErrorList {
	return validateFinalizers(ns, func(int) *field.Path { return field.NewPath("spec", "finalizers") })
}

// validateFinalizers checks spec.finalizers; at is where Kubernetes reports the
// one of an index, which differs between the namespace and its finalize.
func validateFinalizers(ns *corev1.Namespace, at func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := make([]string, 0, len(ns.Spec.Finalizers))
	for i, name := range ns.Spec.Finalizers {
		errs = append(errs, apivalidation.ValidateFinalizerName(string(name), at(i))...)
		names = append(names, string(name))
	}
	return append(errs, api.ValidateFinalizerDomains(names, at)...)
}

// validateNamespaceStatus ties the phase to deletion: only a namespace that is
// being deleted is terminating, and every other one is active.
func validateNamespaceStatus(ns, _ *corev1.Namespace) field.ErrorList {
	phase := field.NewPath("status", "Phase") // as Kubernetes spells it
	switch {
	case ns.DeletionTimestamp.IsZero() && ns.Status.Phase != corev1.NamespaceActive:
		return field.ErrorList{field.Invalid(phase, ns.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
	case !ns.DeletionTimestamp.IsZero() && ns.Status.Phase != corev1.NamespaceTerminating:
		return field.ErrorList{field.Invalid(phase, ns.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}
