package kinds

import (
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func deviceClass() *api.Resource {
	return stored[resourcev1.DeviceClass, *resourcev1.DeviceClass, resourcev1.DeviceClassList](resourcev1.SchemeGroupVersion, &api.Resource{
		Plural:        "deviceclasses",
		AnyBase:       true,
		Singular:      "deviceclass",
		Kind:          "DeviceClass",
		Prefix:        "deviceclasses",
		Inert:         undevised,
		PrepareCreate: on(func(c *resourcev1.DeviceClass) { c.Generation = 1 }),
		PrepareUpdate: onUpdate(func(c, old *resourcev1.DeviceClass) {
			countChange(c, old, c.Spec, old.Spec)
		}),
		Validate: validates(func(c *resourcev1.DeviceClass) field.ErrorList {
			return validateDeviceClass(&c.Spec, &resourcev1.DeviceClassSpec{}, field.NewPath("spec"))
		}),
		ValidateUpdate: validatesUpdate(func(c, old *resourcev1.DeviceClass) field.ErrorList {
			return validateDeviceClass(&c.Spec, &old.Spec, field.NewPath("spec"))
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{nameColumn(), ageColumn()},
			Row: cells(func(c *resourcev1.DeviceClass, now time.Time) []any {
				return []any{c.Name, age(c.CreationTimestamp, now)}
			}),
		},
	})
}

// validateDeviceClass takes selectors and configurations that are as before for
// stored, all of them or none.
func validateDeviceClass(spec, old *resourcev1.DeviceClassSpec, path *field.Path) field.ErrorList {
	selectors, configs := path.Child("selectors"), path.Child("config")
	errs := atMost(spec.Selectors, resourcev1.DeviceSelectorsMaxSize, selectors).MarkBeta()
	errs = append(errs, validateSelectors(spec.Selectors, equality.Semantic.DeepEqual(spec.Selectors, old.Selectors), selectors)...)
	if tooMany := atMost(spec.Config, resourcev1.DeviceConfigMaxSize, configs); len(tooMany) > 0 {
		errs = append(errs, tooMany.MarkBeta()...)
	} else {
		stored := equality.Semantic.DeepEqual(spec.Config, old.Config)
		for i := range spec.Config {
			errs = append(errs, declaredConfiguration(&spec.Config[i].DeviceConfiguration, configs.Index(i)).MarkBeta()...)
			errs = append(errs, validateConfiguration(&spec.Config[i].DeviceConfiguration, stored, configs.Index(i))...)
		}
	}
	if name := spec.ExtendedResourceName; name != nil {
		errs = append(errs, declared(*name, path.Child("extendedResourceName"), validate.ExtendedResourceName[string]).MarkBeta()...)
	}
	return errs
}

func deviceTaintRule() *api.Resource {
	gv := resourcev1.SchemeGroupVersion
	doc := resourcev1.DeviceTaint{}.SwaggerDoc()
	row := stored[resourcev1.DeviceTaintRule, *resourcev1.DeviceTaintRule, resourcev1.DeviceTaintRuleList](gv, &api.Resource{
		Plural:   "devicetaintrules",
		Singular: "devicetaintrule",
		Kind:     "DeviceTaintRule",
		Prefix:   "devicetaintrules",
		Inert:    undevised,
		DefaultTimes: defaultsTimes(func(r *resourcev1.DeviceTaintRule, now metav1.Time) {
			defaultTaint(&r.Spec.Taint, now)
		}),
		Stamp: stamps(stampTaintRule),
		PrepareCreate: on(func(r *resourcev1.DeviceTaintRule) {
			r.Status = resourcev1.DeviceTaintRuleStatus{}
			r.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(r, old *resourcev1.DeviceTaintRule) {
			r.Status = *old.Status.DeepCopy()
			countChange(r, old, r.Spec, old.Spec)
		}),
		Validate:       validates(validateTaintRule),
		ValidateUpdate: validatesUpdate(func(r, _ *resourcev1.DeviceTaintRule) field.ErrorList { return validateTaintRule(r) }),
		ResetFields:    resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Key", "string", doc["key"]),
				column("Value", "string", doc["value"]),
				column("Effect", "string", doc["effect"]),
				column("TimeAdded", "string", doc["timeAdded"]),
				ageColumn(),
			},
			Row: cells(taintRuleCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(r, old *resourcev1.DeviceTaintRule) {
					r.Spec = *old.Spec.DeepCopy()
					keepMeta(r, old)
				}),
				ValidateUpdate: validatesUpdate(func(r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
					path := field.NewPath("status", "conditions")
					return append(metav1validation.ValidateConditions(r.Status.Conditions, path),
						atMost(r.Status.Conditions, resourcev1.DeviceTaintRuleStatusMaxConditions, path)...)
				}),
				ResetFields: resets(gv, "metadata", "spec"),
			},
		},
	})
	return storedAs[resourcev1beta2.DeviceTaintRule, resourcev1.DeviceTaintRule](resourcev1beta2.SchemeGroupVersion, row)
}

// defaultTaint says since when a taint is there, where its writer does not.
func defaultTaint(taint *resourcev1.DeviceTaint, now metav1.Time) {
	if taint.TimeAdded == nil {
		taint.TimeAdded = &now
	}
}

// stampTaintRule counts from when a taint has its effect.
func stampTaintRule(r, old *resourcev1.DeviceTaintRule, now metav1.Time) {
	taint := &r.Spec.Taint
	if old != nil && taint.Effect != old.Spec.Taint.Effect && taint.TimeAdded.Equal(old.Spec.Taint.TimeAdded) {
		taint.TimeAdded = &now
	}
}

func taintRuleCells(r *resourcev1.DeviceTaintRule, now time.Time) []any {
	added := ""
	if t := r.Spec.Taint.TimeAdded; t != nil {
		added = age(*t, now)
	}
	return []any{r.Name, r.Spec.Taint.Key, r.Spec.Taint.Value, string(r.Spec.Taint.Effect), added, age(r.CreationTimestamp, now)}
}

func validateTaintRule(r *resourcev1.DeviceTaintRule) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if s := r.Spec.DeviceSelector; s != nil {
		at := path.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, validateDriver(*s.Driver, at.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, validatePool(*s.Pool, at.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, isDNSLabel(*s.Device, at.Child("device"))...)
		}
	}
	errs = append(errs, declaredTaint(&r.Spec.Taint, path.Child("taint")).MarkBeta()...)
	return append(errs, validateTaint(&r.Spec.Taint, path.Child("taint"))...)
}
