package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func resourceQuota() *api.Resource {
	gv := corev1.SchemeGroupVersion
	return stored[corev1.ResourceQuota, *corev1.ResourceQuota, corev1.ResourceQuotaList](gv, &api.Resource{
		Plural:     "resourcequotas",
		Singular:   "resourcequota",
		Kind:       "ResourceQuota",
		ShortNames: []string{"quota"},
		Namespaced: true,
		Prefix:     "resourcequotas",
		Default: on(func(q *corev1.ResourceQuota) {
			roundToMilli(q.Spec.Hard)
			roundToMilli(q.Status.Hard)
			roundToMilli(q.Status.Used)
		}),
		PrepareCreate: on(func(q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} }),
		PrepareUpdate: onUpdate(func(q, old *corev1.ResourceQuota) { q.Status = *old.Status.DeepCopy() }),
		Validate:      validates(func(q *corev1.ResourceQuota) field.ErrorList { return validateQuota(&q.Spec) }),
		ValidateUpdate: validatesUpdate(func(q, old *corev1.ResourceQuota) field.ErrorList {
			errs := validateQuota(&q.Spec)
			if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, "field is immutable"))
			}
			return errs
		}),
		Warnings:                 warns(warnQuota),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Request", "string", "Request represents a minimum amount of cpu/memory that a container may consume."),
				column("Limit", "string", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
				ageColumn(),
			},
			Row: cells(func(q *corev1.ResourceQuota, now time.Time) []any {
				requests, limits := quotaCells(&q.Status)
				return []any{q.Name, requests, limits, age(q.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(q, old *corev1.ResourceQuota) { q.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(q, _ *corev1.ResourceQuota) field.ErrorList {
					path := field.NewPath("status")
					return append(quotaAmounts(q.Status.Hard, path.Child("hard")), quotaAmounts(q.Status.Used, path.Child("used"))...)
				}),
				ResetFields: resets(gv, "spec"),
			},
		},
	})
}

func validateQuota(spec *corev1.ResourceQuotaSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := quotaAmounts(spec.Hard, path.Child("hard"))
	errs = append(errs, validateScopes(spec, path.Child("scopes"))...)
	if spec.ScopeSelector != nil {
		errs = append(errs, validateScopeSelector(spec, path.Child("scopeSelector", "matchExpressions"))...)
	}
	return errs
}

func quotaAmounts(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		at := path.Key(string(name))
		errs = append(errs, pod.ValidateResourceName(name, at)...)
		if !strings.Contains(string(name), "/") && !isQuotaResource(name) {
			errs = append(errs, field.Invalid(at, name, "must be a standard resource for quota"))
		}
		errs = append(errs, pod.ValidateResourceQuantity(name, list[name], at)...)
	}
	return errs
}

// isQuotaResource says whether a name without a domain is one that a quota can
// limit: every standard resource, but for the storage of a volume, whose name
// here is requests.storage.
func isQuotaResource(name corev1.ResourceName) bool {
	return name != corev1.ResourceStorage && pod.IsStandardResource(name)
}

// Scopes, as far as rules are about several of them.
var (
	opposedScopes = [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	}
	// existingScopes hold or do not; they have no values.
	existingScopes = []corev1.ResourceQuotaScope{
		corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	}
	podCounts  = []corev1.ResourceName{corev1.ResourcePods}
	podAmounts = []corev1.ResourceName{
		corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceLimitsCPU,
		corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
	}
	claimAmounts = []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}

	// scopedResources are, by scope, the standard resources that it can be about.
	scopedResources = map[corev1.ResourceQuotaScope][]corev1.ResourceName{
		corev1.ResourceQuotaScopeTerminating:               podAmounts,
		corev1.ResourceQuotaScopeNotTerminating:            podAmounts,
		corev1.ResourceQuotaScopeNotBestEffort:             podAmounts,
		corev1.ResourceQuotaScopePriorityClass:             podAmounts,
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity: podAmounts,
		corev1.ResourceQuotaScopeBestEffort:                podCounts,
		corev1.ResourceQuotaScopeVolumeAttributesClass:     claimAmounts,
	}
)

// outOfScope says whether a limited resource is none that a scope is about.
// Of scopes and resources that are not known, others say so.
func outOfScope(scope corev1.ResourceQuotaScope, hard corev1.ResourceList) bool {
	allowed, known := scopedResources[scope]
	for name := range hard {
		if known && isQuotaResource(name) && !slices.Contains(allowed, name) {
			return true
		}
	}
	return false
}

func validateScopes(spec *corev1.ResourceQuotaSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, scope := range spec.Scopes {
		if _, known := scopedResources[scope]; !known {
			errs = append(errs, field.Invalid(at, spec.Scopes, "unsupported scope"))
		}
		if outOfScope(scope, spec.Hard) {
			errs = append(errs, field.Invalid(at, spec.Scopes, "unsupported scope applied to resource"))
		}
	}
	return append(errs, conflictingScopes(spec.Scopes, spec, at)...)
}

func conflictingScopes(scopes []corev1.ResourceQuotaScope, spec *corev1.ResourceQuotaSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, pair := range opposedScopes {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			errs = append(errs, field.Invalid(at, spec.Scopes, "conflicting scopes"))
		}
	}
	return errs
}

// validateScopeSelector reports at the list and not at its items, as Kubernetes
// does.
func validateScopeSelector(spec *corev1.ResourceQuotaSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	var scopes []corev1.ResourceQuotaScope
	for _, r := range spec.ScopeSelector.MatchExpressions {
		scopes = append(scopes, r.ScopeName)
		if _, known := scopedResources[r.ScopeName]; !known {
			errs = append(errs, field.Invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		if outOfScope(r.ScopeName, spec.Hard) {
			errs = append(errs, field.Invalid(at, spec.ScopeSelector, "unsupported scope applied to resource"))
		}
		if slices.Contains(existingScopes, r.ScopeName) && r.Operator != corev1.ScopeSelectorOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator,
				"must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Invalid(at.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
	}
	return append(errs, conflictingScopes(scopes, spec, at)...)
}

// warnQuota tells of limits that can never be reached, because more may be
// requested. Of cpu and memory the bare name means the request.
func warnQuota(q, old *corev1.ResourceQuota) []string {
	if old != nil {
		return nil
	}
	var warnings []string
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceStorage, corev1.ResourceEphemeralStorage} {
		requests, limits := "requests."+name, "limits."+name
		request, limit := amountOf(q.Spec.Hard, requests), amountOf(q.Spec.Hard, limits)
		if request == nil && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			requests, request = name, amountOf(q.Spec.Hard, name)
		}
		if request != nil && limit != nil && request.Cmp(*limit) > 0 {
			warnings = append(warnings, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", requests, request, limits, limit))
		}
	}
	return warnings
}

// quotaCells show what is used of what there is; limits apart from the rest.
func quotaCells(s *corev1.ResourceQuotaStatus) (requests, limits string) {
	var lists [2][]string
	for _, name := range slices.Sorted(maps.Keys(s.Hard)) {
		i := 0
		if strings.HasPrefix(string(name), "limits.") {
			i = 1
		}
		used, hard := s.Used[name], s.Hard[name]
		lists[i] = append(lists[i], fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
	}
	return strings.Join(lists[0], ", "), strings.Join(lists[1], ", ")
}
