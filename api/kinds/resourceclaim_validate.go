package kinds

import (
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func same[T comparable](a, b *T) bool { return *a == *b }

func validateDeviceClaim(c *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	errs := declaredDeviceClaim(c, path).MarkBeta()
	names := requestNamesOf(c)
	if len(c.Requests) <= resourcev1.DeviceRequestsMaxSize {
		for i := range c.Requests {
			errs = append(errs, validateDeviceRequest(&c.Requests[i], path.Child("requests").Index(i))...)
		}
	}
	if len(c.Constraints) <= resourcev1.DeviceConstraintsMaxSize {
		for i := range c.Constraints {
			errs = append(errs, validateDeviceConstraint(&c.Constraints[i], names, path.Child("constraints").Index(i))...)
		}
	}
	if len(c.Config) <= resourcev1.DeviceConfigMaxSize {
		for i := range c.Config {
			at := path.Child("config").Index(i)
			errs = append(errs, names.validateAll(c.Config[i].Requests, at.Child("requests"))...)
			errs = append(errs, validateConfiguration(&c.Config[i].DeviceConfiguration, false, at)...)
		}
	}
	return errs
}

func declaredDeviceClaim(c *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	requests, constraints, configs := path.Child("requests"), path.Child("constraints"), path.Child("config")
	errs := declaredSet(c.Requests, resourcev1.DeviceRequestsMaxSize, requests, func(a, b *resourcev1.DeviceRequest) bool { return a.Name == b.Name })
	if len(c.Requests) <= resourcev1.DeviceRequestsMaxSize {
		for i := range c.Requests {
			errs = append(errs, declaredDeviceRequest(&c.Requests[i], requests.Index(i))...)
		}
	}
	if tooMany := atMost(c.Constraints, resourcev1.DeviceConstraintsMaxSize, constraints); len(tooMany) > 0 {
		errs = append(errs, tooMany...)
	} else {
		for i, k := range c.Constraints {
			at := constraints.Index(i)
			errs = append(errs, declaredSet(k.Requests, resourcev1.DeviceRequestsMaxSize, at.Child("requests"), same)...)
			errs = append(errs, declaredAttributeName(k.MatchAttribute, at.Child("matchAttribute"))...)
			errs = append(errs, declaredAttributeName(k.DistinctAttribute, at.Child("distinctAttribute"))...)
		}
	}
	if tooMany := atMost(c.Config, resourcev1.DeviceConfigMaxSize, configs); len(tooMany) > 0 {
		return append(errs, tooMany...)
	}
	for i := range c.Config {
		at := configs.Index(i)
		errs = append(errs, declaredSet(c.Config[i].Requests, resourcev1.DeviceRequestsMaxSize, at.Child("requests"), same)...)
		errs = append(errs, declaredConfiguration(&c.Config[i].DeviceConfiguration, at)...)
	}
	return errs
}

func declaredAttributeName(name *resourcev1.FullyQualifiedName, path *field.Path) field.ErrorList {
	if name == nil {
		return nil
	}
	return declared(*name, path, validate.ResourceFullyQualifiedName[resourcev1.FullyQualifiedName])
}

func declaredDeviceRequest(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if e := r.Exactly; e != nil {
		at := path.Child("exactly")
		errs = append(errs, atMost(e.Selectors, resourcev1.DeviceSelectorsMaxSize, at.Child("selectors"))...)
		errs = append(errs, declaredMode(e.AllocationMode, at)...)
		errs = append(errs, declaredTolerations(e.Tolerations, at.Child("tolerations"))...)
	}
	list := path.Child("firstAvailable")
	errs = append(errs, declaredSet(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, list,
		func(a, b *resourcev1.DeviceSubRequest) bool { return a.Name == b.Name })...)
	if len(r.FirstAvailable) > resourcev1.FirstAvailableDeviceRequestMaxSize {
		return errs
	}
	for i, s := range r.FirstAvailable {
		at := list.Index(i)
		errs = append(errs, declaredRequired(s.DeviceClassName, at.Child("deviceClassName"), validate.LongName[string])...)
		errs = append(errs, atMost(s.Selectors, resourcev1.DeviceSelectorsMaxSize, at.Child("selectors"))...)
		errs = append(errs, declaredMode(s.AllocationMode, at)...)
		errs = append(errs, declaredTolerations(s.Tolerations, at.Child("tolerations"))...)
	}
	return errs
}

func declaredMode(mode resourcev1.DeviceAllocationMode, path *field.Path) field.ErrorList {
	return oneOf(mode, path.Child("allocationMode"), resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)
}

func validateDeviceRequest(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	errs := isDNSLabel(r.Name, path.Child("name"))
	switch e := r.Exactly; {
	case e == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(path, "exactly one of `exactly` or `firstAvailable` is required"))
	case e != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(path, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"))
	case e != nil:
		at := path.Child("exactly")
		errs = append(errs, validateClassName(e.DeviceClassName, at.Child("deviceClassName"))...)
		errs = append(errs, validateSelectors(e.Selectors, false, at.Child("selectors"))...)
		errs = append(errs, validateCount(e.AllocationMode, e.Count, at)...)
		return append(errs, validateTolerations(e.Tolerations, at.Child("tolerations"))...)
	}
	if len(r.FirstAvailable) > resourcev1.FirstAvailableDeviceRequestMaxSize {
		return errs
	}
	for i, s := range r.FirstAvailable {
		at := path.Child("firstAvailable").Index(i)
		errs = append(errs, isDNSLabel(s.Name, at.Child("name"))...)
		errs = append(errs, validateSelectors(s.Selectors, false, at.Child("selectors"))...)
		errs = append(errs, validateCount(s.AllocationMode, s.Count, at)...)
		errs = append(errs, validateTolerations(s.Tolerations, at.Child("tolerations"))...)
	}
	return errs
}

func validateClassName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return invalidEach(path, name, validation.IsDNS1123Subdomain(name))
}

func validateCount(mode resourcev1.DeviceAllocationMode, count int64, path *field.Path) field.ErrorList {
	switch at := path.Child("count"); {
	case mode == resourcev1.DeviceAllocationModeAll && count != 0:
		return field.ErrorList{field.Invalid(at, count, fmt.Sprintf("must not be specified when allocationMode is '%s'", mode))}
	case mode == resourcev1.DeviceAllocationModeExactCount && count <= 0:
		return field.ErrorList{field.Invalid(at, count, "must be greater than zero")}
	}
	return nil
}

func validateDeviceConstraint(c *resourcev1.DeviceConstraint, names requestNames, path *field.Path) field.ErrorList {
	errs := names.validateAll(c.Requests, path.Child("requests"))
	if c.MatchAttribute == nil && c.DistinctAttribute == nil {
		// Neither is set, whatever this says.
		errs = append(errs, field.Required(path, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
	}
	return errs
}

// requestNames are the requests of a claim with their alternatives.
type requestNames map[string]sets.Set[string]

func requestNamesOf(c *resourcev1.DeviceClaim) requestNames {
	names := requestNames{}
	for _, r := range c.Requests {
		alternatives := sets.New[string]()
		for _, s := range r.FirstAvailable {
			alternatives.Insert(s.Name)
		}
		names[r.Name] = alternatives
	}
	return names
}

func (names requestNames) validateAll(refs []string, path *field.Path) field.ErrorList {
	if len(refs) > resourcev1.DeviceRequestsMaxSize {
		return nil // declared
	}
	var errs field.ErrorList
	for i, ref := range refs {
		errs = append(errs, names.validate(ref, path.Index(i))...)
	}
	return errs
}

// validate checks a reference: request or request/alternative.
func (names requestNames) validate(ref string, path *field.Path) field.ErrorList {
	unknown := field.Invalid(path, ref, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")
	parts := strings.Split(ref, "/")
	if len(parts) > 2 {
		return field.ErrorList{unknown}
	}
	var errs field.ErrorList
	for _, part := range parts {
		errs = append(errs, isDNSLabel(part, path)...)
	}
	alternatives, found := names[parts[0]]
	if !found || len(parts) == 2 && !alternatives.Has(parts[1]) {
		errs = append(errs, unknown)
	}
	return errs
}
