package kinds

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api/pod"
)

// validateSlice checks a slice; what a device of old has already is not checked
// again where the rules came later. old is nil on create.
func validateSlice(spec, old *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	errs := declaredSlice(spec, path).MarkBeta()
	errs = append(errs, validateDriver(spec.Driver, path.Child("driver"))...)
	pool := path.Child("pool")
	errs = append(errs, validatePool(spec.Pool.Name, pool.Child("name"))...)
	if n := spec.Pool.ResourceSliceCount; n <= 0 {
		errs = append(errs, field.Invalid(pool.Child("resourceSliceCount"), n, "must be greater than zero"))
	}
	if n := spec.Pool.Generation; n < 0 {
		errs = append(errs, field.Invalid(pool.Child("generation"), n, "must be greater than or equal to zero"))
	}
	if old != nil {
		errs = append(errs, unchanged(spec.Pool.Name, old.Pool.Name, pool.Child("name"))...)
		errs = append(errs, unchanged(spec.Driver, old.Driver, path.Child("driver"))...)
		errs = append(errs, unchanged(spec.NodeName, old.NodeName, path.Child("nodeName"))...)
	}
	errs = append(errs, validateSliceNodes(spec, path)...)
	if spec.SharedCounters != nil && spec.Devices != nil {
		errs = append(errs, field.Invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"))
	}
	errs = append(errs, validateDevices(spec, old, path.Child("devices"))...)
	if len(spec.SharedCounters) <= resourcev1.ResourceSliceMaxCounterSets {
		for i, set := range spec.SharedCounters {
			errs = append(errs, atMostCounters(set.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, path.Child("sharedCounters").Index(i))...)
		}
	}
	return errs
}

func declaredSlice(spec *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range spec.Devices {
		errs = append(errs, declaredDevice(&spec.Devices[i], path.Child("devices").Index(i))...)
	}
	sets := path.Child("sharedCounters")
	errs = append(errs, declaredSet(spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, sets,
		func(a, b *resourcev1.CounterSet) bool { return a.Name == b.Name })...)
	if len(spec.SharedCounters) <= resourcev1.ResourceSliceMaxCounterSets {
		for i, s := range spec.SharedCounters {
			errs = append(errs, declaredCounters("name", s.Name, s.Counters, sets.Index(i))...)
		}
	}
	return errs
}

// declaredCounters checks counters and the name of their set.
func declaredCounters(key, name string, counters map[string]resourcev1.Counter, path *field.Path) field.ErrorList {
	errs := declaredRequired(name, path.Child(key), validate.ShortName[string])
	at := path.Child("counters")
	if len(counters) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	for counter := range counters {
		errs = append(errs, declared(counter, at, validate.ShortName[string])...)
	}
	return errs
}

func atMostCounters(counters map[string]resourcev1.Counter, most int, path *field.Path) field.ErrorList {
	if len(counters) > most {
		return field.ErrorList{field.TooMany(path.Child("counters"), len(counters), most)}
	}
	return nil
}

func declaredDevice(d *resourcev1.Device, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, a := range d.Attributes {
		errs = append(errs, declaredAttribute(&a, path.Child("attributes").Key(string(name)))...)
	}
	most, counters := resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, path.Child("consumesCounters")
	errs = append(errs, declaredSet(d.ConsumesCounters, most, counters,
		func(a, b *resourcev1.DeviceCounterConsumption) bool { return a.CounterSet == b.CounterSet })...)
	if len(d.ConsumesCounters) <= most {
		for i, c := range d.ConsumesCounters {
			errs = append(errs, declaredCounters("counterSet", c.CounterSet, c.Counters, counters.Index(i))...)
		}
	}
	for i := range d.Taints {
		errs = append(errs, declaredTaint(&d.Taints[i], path.Child("taints").Index(i))...)
	}
	return append(errs, declaredBindingConditions(d.BindingConditions, d.BindingFailureConditions, path)...)
}

// declaredAttribute demands one value. The lists that the refusal names, too,
// are off.
func declaredAttribute(a *resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	const all = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"
	var set []string
	for _, member := range []struct {
		name string
		set  bool
	}{{"int", a.IntValue != nil}, {"bool", a.BoolValue != nil}, {"string", a.StringValue != nil}, {"version", a.VersionValue != nil}} {
		if member.set {
			set = append(set, member.name)
		}
	}
	switch len(set) {
	case 0:
		return field.ErrorList{field.Invalid(path, "", "must specify one of: "+all)}
	case 1:
		return nil
	}
	return field.ErrorList{field.Invalid(path, "{"+strings.Join(set, ", ")+"}", "must specify exactly one of: "+all)}
}

// choice is a field of which one among several must be set.
type choice struct {
	name string
	set  bool
}

// chosen are the fields that are set, as refusals show them.
func chosen(choices ...choice) []string {
	var names []string
	for _, c := range choices {
		if c.set {
			names = append(names, "`"+c.name+"`")
		}
	}
	return names
}

func validateSliceNodes(spec *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name, at := spec.NodeName, path.Child("nodeName"); name != nil {
		if *name == "" {
			errs = append(errs, field.Invalid(at, *name, "must be either unset or set to a non-empty string"))
		} else {
			errs = append(errs, invalidEach(at, *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
	}
	if s, at := spec.NodeSelector, path.Child("nodeSelector"); s != nil {
		errs = append(errs, pod.ValidateNodeSelector(s, at)...)
		if len(s.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(at.Child("nodeSelectorTerms"), s.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	errs = append(errs, trueIfSet(spec.AllNodes, path.Child("allNodes"))...)
	errs = append(errs, trueIfSet(spec.PerDeviceNodeSelection, path.Child("perDeviceNodeSelection"))...)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch names := chosen(choice{"nodeName", spec.NodeName != nil && *spec.NodeName != ""}, choice{"nodeSelector", spec.NodeSelector != nil},
		choice{"allNodes", isTrue(spec.AllNodes)}, choice{"perDeviceNodeSelection", isTrue(spec.PerDeviceNodeSelection)}); len(names) {
	case 0:
		errs = append(errs, field.Required(path, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(names, ", ")+"}", one+", but multiple fields are set"))
	}
	return errs
}

func trueIfSet(value *bool, path *field.Path) field.ErrorList {
	if value != nil && !*value {
		return field.ErrorList{field.Invalid(path, *value, "must be either unset or set to true")}
	}
	return nil
}

func validateDevices(spec, old *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	most := resourcev1.ResourceSliceMaxDevices
	if slices.ContainsFunc(spec.Devices, func(d resourcev1.Device) bool { return len(d.Taints)+len(d.ConsumesCounters) > 0 }) {
		most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
	}
	if errs := atMost(spec.Devices, most, path); len(errs) > 0 {
		return errs
	}
	var errs field.ErrorList
	names := make([]string, 0, len(spec.Devices))
	for i := range spec.Devices {
		d := &spec.Devices[i]
		names = append(names, d.Name)
		was := &resourcev1.Device{}
		if old != nil {
			if k := slices.IndexFunc(old.Devices, func(o resourcev1.Device) bool { return o.Name == d.Name }); k >= 0 {
				was = &old.Devices[k]
			}
		}
		errs = append(errs, validateDevice(d, was, isTrue(spec.PerDeviceNodeSelection), path.Index(i))...)
	}
	return append(errs, repeated(names, path.Index)...)
}

// validateDevice checks one; was is empty for one that is new, and own says that
// devices themselves say where they are.
func validateDevice(d, was *resourcev1.Device, own bool, path *field.Path) field.ErrorList {
	errs := isDNSLabel(d.Name, path.Child("name"))
	if n, most := len(d.Attributes)+len(d.Capacity), resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice; n > most {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", most)))
	}
	if n, most := len(d.Attributes), resourcev1.ResourceSliceMaxAttributeValuesPerDevice; n > most {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attribute values must not exceed %d", most)))
	}
	for name, a := range d.Attributes {
		at := path.Child("attributes")
		errs = append(errs, validateAttributeName(name, at)...)
		errs = append(errs, validateAttribute(&a, keyOf(name, at))...)
	}
	if !equality.Semantic.DeepEqual(was.Capacity, d.Capacity) {
		for name, c := range d.Capacity {
			at := path.Child("capacity")
			errs = append(errs, validateAttributeName(name, at)...)
			errs = append(errs, validateCapacity(&c, isTrue(d.AllowMultipleAllocations), keyOf(name, at).Child("requestPolicy"))...)
		}
	}
	if taints := path.Child("taints"); !equality.Semantic.DeepEqual(was.Taints, d.Taints) {
		if tooMany := atMost(d.Taints, resourcev1.DeviceTaintsMaxLength, taints); len(tooMany) > 0 {
			errs = append(errs, tooMany...)
		} else {
			for i := range d.Taints {
				errs = append(errs, validateTaint(&d.Taints[i], taints.Index(i))...)
			}
		}
	}
	if len(d.ConsumesCounters) <= resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice {
		for i, c := range d.ConsumesCounters {
			errs = append(errs, atMostCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, path.Child("consumesCounters").Index(i))...)
		}
	}
	errs = append(errs, validateDeviceNodes(d, own, path)...)
	return append(errs, validateBindingConditions(d.BindingConditions, d.BindingFailureConditions, path)...)
}

// validateDeviceNodes checks where a device is, which it says itself if the slice
// leaves that to devices.
func validateDeviceNodes(d *resourcev1.Device, own bool, path *field.Path) field.ErrorList {
	if !own {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			return field.ErrorList{field.Invalid(path, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")}
		}
		return nil
	}
	var errs field.ErrorList
	if name, at := d.NodeName, path.Child("nodeName"); name != nil {
		if *name == "" {
			errs = append(errs, field.Invalid(at, *name, "must not be empty"))
		} else {
			errs = append(errs, invalidEach(at, *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
	}
	if d.NodeSelector != nil {
		errs = append(errs, pod.ValidateNodeSelector(d.NodeSelector, path.Child("nodeSelector"))...)
	}
	errs = append(errs, trueIfSet(d.AllNodes, path.Child("allNodes"))...)
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch names := chosen(choice{"nodeName", d.NodeName != nil && *d.NodeName != ""}, choice{"nodeSelector", d.NodeSelector != nil},
		choice{"allNodes", isTrue(d.AllNodes)}); len(names) {
	case 0:
		errs = append(errs, field.Required(path, one))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(names, ", ")+"}", one))
	}
	return errs
}

// longestKey is that of a domain and an identifier. Longer ones are shortened in
// paths.
const longestKey = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength

func keyOf(name resourcev1.QualifiedName, path *field.Path) *field.Path {
	key := string(name)
	if len(key) > longestKey {
		const gap = "..."
		rest := longestKey - len(gap)
		key = key[:(rest+1)/2] + gap + key[len(key)-rest/2:]
	}
	return path.Key(key)
}

// validateAttributeName checks names like driver.example.com/memory, whose domain
// may be left out.
func validateAttributeName(name resourcev1.QualifiedName, path *field.Path) field.ErrorList {
	parts := strings.Split(string(name), "/")
	switch len(parts) {
	case 1:
		return validateIdentifier(parts[0], path)
	case 2:
	default:
		return nil // as in Kubernetes
	}
	var errs field.ErrorList
	if parts[0] == "" {
		errs = append(errs, field.Invalid(path, "", "the domain must not be empty"))
	} else {
		errs = append(errs, validateDriver(parts[0], path)...)
	}
	if parts[1] == "" {
		return append(errs, field.Invalid(path, "", "the name must not be empty"))
	}
	return append(errs, validateIdentifier(parts[1], path)...)
}

func validateIdentifier(id string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if most := resourcev1.DeviceMaxIDLength; len(id) > most {
		errs = append(errs, field.TooLong(path, "", most))
	}
	return append(errs, invalidEach(path, id, validation.IsCIdentifier(id))...)
}

// semantic is the grammar of semver.org 2.0.0.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

func validateAttribute(a *resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	const most = resourcev1.DeviceAttributeMaxValueLength
	if v := a.StringValue; v != nil && len(*v) > most {
		errs = append(errs, field.TooLong(path.Child("string"), "", most))
	}
	if v, at := a.VersionValue, path.Child("version"); v != nil {
		if !semantic.MatchString(*v) {
			errs = append(errs, field.Invalid(at, *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		if len(*v) > most {
			errs = append(errs, field.TooLong(at, "", most))
		}
	}
	return errs
}
