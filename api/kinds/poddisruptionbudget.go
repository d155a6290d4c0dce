package kinds

import (
	"slices"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// emptySelectorLabel is how v1beta1 told apart selectors of all pods and of
// none. It is for these two alone.
const emptySelectorLabel = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

func podDisruptionBudget() *api.Resource {
	gv := policyv1.SchemeGroupVersion
	return stored[policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](gv, &api.Resource{
		Plural:     "poddisruptionbudgets",
		Singular:   "poddisruptionbudget",
		Kind:       "PodDisruptionBudget",
		ShortNames: []string{"pdb"},
		Namespaced: true,
		Prefix:     "poddisruptionbudgets",
		// Kubernetes has no rule of its own for these names.
		LateMeta:     true,
		AnyFinalizer: true,
		PrepareCreate: on(func(b *policyv1.PodDisruptionBudget) {
			stripEmptySelectorLabel(b.Spec.Selector)
			b.Status = policyv1.PodDisruptionBudgetStatus{}
			b.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(b, old *policyv1.PodDisruptionBudget) {
			b.Status = *old.Status.DeepCopy()
			countChange(b, old, b.Spec, old.Spec)
			if !equality.Semantic.DeepEqual(b.Spec.Selector, old.Spec.Selector) {
				stripEmptySelectorLabel(b.Spec.Selector)
			}
		}),
		Validate: validates(func(b *policyv1.PodDisruptionBudget) field.ErrorList { return validateBudget(&b.Spec, nil) }),
		ValidateUpdate: validatesUpdate(func(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
			return validateBudget(&b.Spec, old.Spec.Selector)
		}),
		ResetFields: resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Min Available", "string", "The minimum number of pods that must be available."),
				column("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
				column("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time."),
				ageColumn(),
			},
			Row: cells(func(b *policyv1.PodDisruptionBudget, now time.Time) []any {
				return []any{b.Name, budgetCell(b.Spec.MinAvailable), budgetCell(b.Spec.MaxUnavailable), int64(b.Status.DisruptionsAllowed),
					age(b.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(b, old *policyv1.PodDisruptionBudget) { b.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
					s, path := &b.Status, field.NewPath("status")
					return append(metav1validation.ValidateConditions(s.Conditions, path.Child("conditions")), nonNegative(path,
						counter{"disruptionsAllowed", int64(s.DisruptionsAllowed)},
						counter{"currentHealthy", int64(s.CurrentHealthy)},
						counter{"desiredHealthy", int64(s.DesiredHealthy)},
						counter{"expectedPods", int64(s.ExpectedPods)})...)
				}),
				ResetFields: resets(gv, "spec"),
			},
		},
	})
}

// stripEmptySelectorLabel takes the label of v1beta1 out of a selector that is
// about more.
func stripEmptySelectorLabel(s *metav1.LabelSelector) {
	none := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: emptySelectorLabel, Operator: metav1.LabelSelectorOpExists}}}
	if s == nil || equality.Semantic.DeepEqual(s, none) {
		return
	}
	s.MatchExpressions = slices.DeleteFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == emptySelectorLabel })
}

// validateBudget checks a spec; old is the selector that its own replaces, if
// any. Label values that were let in stay.
func validateBudget(spec *policyv1.PodDisruptionBudgetSpec, old *metav1.LabelSelector) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, *spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	if n := spec.MinAvailable; n != nil {
		errs = append(errs, validateShare(*n, path.Child("minAvailable"))...)
		errs = append(errs, notAboveAll(*n, path.Child("minAvailable"))...)
	}
	if n := spec.MaxUnavailable; n != nil {
		errs = append(errs, validateShare(*n, path.Child("maxUnavailable"))...)
		errs = append(errs, notAboveAll(*n, path.Child("maxUnavailable"))...)
	}
	options := metav1validation.LabelSelectorValidationOptions{}
	options.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(old, options, nil)) > 0
	errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, options, path.Child("selector"))...)
	if policy := spec.UnhealthyPodEvictionPolicy; policy != nil {
		errs = append(errs, supported(*policy, path.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

func budgetCell(n *intstr.IntOrString) string {
	if n == nil {
		return "N/A"
	}
	return n.String()
}
