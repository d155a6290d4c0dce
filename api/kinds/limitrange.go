package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func limitRange() *api.Resource {
	return stored[corev1.LimitRange, *corev1.LimitRange, corev1.LimitRangeList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "limitranges",
		Singular:   "limitrange",
		Kind:       "LimitRange",
		ShortNames: []string{"limits"},
		Namespaced: true,
		Prefix:     "limitranges",
		ChecksBase: true,
		Default:    on(defaultLimitRange),
		PrepareCreate: on(func(l *corev1.LimitRange) {
			if l.Name == "" {
				l.Name = string(l.UID)
			}
		}),
		Validate:                 validates(validateLimitRange),
		ValidateUpdate:           validatesUpdate(func(l, _ *corev1.LimitRange) field.ErrorList { return validateLimitRange(l) }),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table:                    plainTable(),
	})
}

// defaultLimitRange lets limits and requests of containers follow from each
// other: no default limit means the maximum, no default request the limit, and
// without either the minimum.
func defaultLimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		limit := &l.Spec.Limits[i]
		if limit.Type == corev1.LimitTypeContainer {
			limit.Default = withMissing(limit.Default, limit.Max)
			limit.DefaultRequest = withMissing(limit.DefaultRequest, limit.Default)
			limit.DefaultRequest = withMissing(limit.DefaultRequest, limit.Min)
		}
		for _, list := range []corev1.ResourceList{limit.Max, limit.Min, limit.Default, limit.DefaultRequest, limit.MaxLimitRequestRatio} {
			roundToMilli(list)
		}
	}
}

// withMissing adds to a list, which it makes if need be, what only the other has.
func withMissing(list, other corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		list = corev1.ResourceList{}
	}
	for name, value := range other {
		if _, set := list[name]; !set {
			list[name] = value.DeepCopy()
		}
	}
	return list
}

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.LimitType]()
	for i := range l.Spec.Limits {
		item, at := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(item.Type, at.Child("type"))...)
		if seen.Has(item.Type) {
			errs = append(errs, field.Duplicate(at.Child("type"), item.Type))
		}
		seen.Insert(item.Type)
		errs = append(errs, validateLimitItem(item, at)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, at *field.Path) field.ErrorList {
	if errs := isQualifiedName(string(t), at); len(errs) > 0 {
		return errs
	}
	standard := []corev1.LimitType{corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim}
	if !strings.Contains(string(t), "/") && !slices.Contains(standard, t) {
		return field.ErrorList{field.Invalid(at, t, "must be a standard limit type or fully qualified")}
	}
	return nil
}

// limitedResource are the numbers that one item has about one resource.
type limitedResource struct {
	name                                    corev1.ResourceName
	minimum, maximum, limit, request, ratio *resource.Quantity
}

func validateLimitItem(item *corev1.LimitRangeItem, at *field.Path) field.ErrorList {
	errs := limitNames(item.Type, item.Max, at.Child("max"))
	errs = append(errs, limitNames(item.Type, item.Min, at.Child("min"))...)
	defaults, requests := item.Default, item.DefaultRequest
	if item.Type == corev1.LimitTypePod {
		const notHere = "may not be specified when `type` is 'Pod'"
		if len(defaults) > 0 {
			errs = append(errs, field.Forbidden(at.Child("default"), notHere))
		}
		if len(requests) > 0 {
			errs = append(errs, field.Forbidden(at.Child("defaultRequest"), notHere))
		}
		defaults, requests = nil, nil
	}
	errs = append(errs, limitNames(item.Type, defaults, at.Child("default"))...)
	errs = append(errs, limitNames(item.Type, requests, at.Child("defaultRequest"))...)
	if item.Type == corev1.LimitTypePersistentVolumeClaim && amountOf(item.Min, corev1.ResourceStorage) == nil && amountOf(item.Max, corev1.ResourceStorage) == nil {
		errs = append(errs, field.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
	}
	errs = append(errs, limitNames(item.Type, item.MaxLimitRequestRatio, at.Child("maxLimitRequestRatio"))...)

	names := sets.New[corev1.ResourceName]()
	for _, list := range []corev1.ResourceList{item.Max, item.Min, defaults, requests, item.MaxLimitRequestRatio} {
		names.Insert(slices.Collect(maps.Keys(list))...)
	}
	for _, name := range sets.List(names) {
		r := limitedResource{name, amountOf(item.Min, name), amountOf(item.Max, name), amountOf(defaults, name),
			amountOf(requests, name), amountOf(item.MaxLimitRequestRatio, name)}
		errs = append(errs, r.validate(at)...)
	}
	return errs
}

// limitNames checks which resources may be limited: of pods and containers
// those that they can ask for.
func limitNames(t corev1.LimitType, list corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if t == corev1.LimitTypePod || t == corev1.LimitTypeContainer {
			errs = append(errs, pod.ValidateContainerResourceName(name, at.Key(string(name)))...)
		} else {
			errs = append(errs, pod.ValidateResourceName(name, at.Key(string(name)))...)
		}
	}
	return errs
}

func amountOf(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

// validate checks the numbers against each other.
func (r limitedResource) validate(at *field.Path) field.ErrorList {
	var errs field.ErrorList
	wrong := func(list string, value *resource.Quantity, format string, args ...any) {
		errs = append(errs, field.Invalid(at.Child(list).Key(string(r.name)), *value, fmt.Sprintf(format, args...)))
	}
	above := func(a, b *resource.Quantity) bool { return a != nil && b != nil && a.Cmp(*b) > 0 }
	if above(r.minimum, r.maximum) {
		wrong("min", r.minimum, "min value %s is greater than max value %s", r.minimum, r.maximum)
	}
	if above(r.minimum, r.request) {
		wrong("defaultRequest", r.request, "min value %s is greater than default request value %s", r.minimum, r.request)
	}
	if above(r.request, r.maximum) {
		wrong("defaultRequest", r.request, "default request value %s is greater than max value %s", r.request, r.maximum)
	}
	if above(r.request, r.limit) {
		wrong("defaultRequest", r.request, "default request value %s is greater than default limit value %s", r.request, r.limit)
	}
	if above(r.minimum, r.limit) {
		wrong("default", r.minimum, "min value %s is greater than default value %s", r.minimum, r.limit)
	}
	if above(r.limit, r.maximum) {
		wrong("default", r.maximum, "default value %s is greater than max value %s", r.limit, r.maximum)
	}
	if r.ratio != nil && r.ratio.Cmp(resource.MustParse("1")) < 0 {
		wrong("maxLimitRequestRatio", r.ratio, "ratio %s is less than 1", r.ratio)
	}
	if r.ratio != nil && r.minimum != nil && r.maximum != nil {
		if ratio, largest := r.ratios(); ratio > largest {
			wrong("maxLimitRequestRatio", r.ratio, "ratio %s is greater than max/min = %f", r.ratio, largest)
		}
	}
	if !pod.OvercommitAllowed(r.name) && r.limit != nil && r.request != nil && r.limit.Cmp(*r.request) != 0 {
		wrong("defaultRequest", r.request, "default value %s must equal to defaultRequest value %s in %s", r.limit, r.request, r.name)
	}
	return errs
}

// ratios are the wanted and the largest possible ratio of limit and request, of
// thousandths where none of the numbers is too large for that.
func (r limitedResource) ratios() (ratio, largest float64) {
	ratio, least, most := float64(r.ratio.Value()), r.minimum.Value(), r.maximum.Value()
	if r.ratio.Value() < resource.MaxMilliValue && least < resource.MaxMilliValue && most < resource.MaxMilliValue {
		ratio, least, most = float64(r.ratio.MilliValue())/1000, r.minimum.MilliValue(), r.maximum.MilliValue()
	}
	return ratio, float64(most) / float64(least)
}
