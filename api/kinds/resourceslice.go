package kinds

import (
	"fmt"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func resourceSlice() *api.Resource {
	doc := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return stored[resourcev1.ResourceSlice, *resourcev1.ResourceSlice, resourcev1.ResourceSliceList](resourcev1.SchemeGroupVersion, &api.Resource{
		Plural:   "resourceslices",
		Singular: "resourceslice",
		Kind:     "ResourceSlice",
		Prefix:   "resourceslices",
		Inert:    undevised,
		DefaultTimes: defaultsTimes(func(s *resourcev1.ResourceSlice, now metav1.Time) {
			for i := range s.Spec.Devices {
				for k := range s.Spec.Devices[i].Taints {
					defaultTaint(&s.Spec.Devices[i].Taints[k], now)
				}
			}
		}),
		PrepareCreate: on(func(s *resourcev1.ResourceSlice) {
			s.Generation = 1
			dropDisabledDevices(&s.Spec)
		}),
		PrepareUpdate: onUpdate(func(s, old *resourcev1.ResourceSlice) {
			countChange(s, old, s.Spec, old.Spec)
			dropDisabledDevices(&s.Spec)
		}),
		Validate: validates(func(s *resourcev1.ResourceSlice) field.ErrorList {
			return validateSlice(&s.Spec, nil, field.NewPath("spec"))
		}),
		ValidateUpdate: validatesUpdate(func(s, old *resourcev1.ResourceSlice) field.ErrorList {
			return validateSlice(&s.Spec, &old.Spec, field.NewPath("spec"))
		}),
		Warnings: warns(func(s, _ *resourcev1.ResourceSlice) []string {
			if s.Spec.Driver == strings.ToLower(s.Spec.Driver) {
				return nil
			}
			return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Node", "string", doc["nodeName"]),
				column("Driver", "string", doc["driver"]),
				column("Pool", "string", resourcev1.ResourcePool{}.SwaggerDoc()["name"]),
				ageColumn(),
			},
			Row: cells(func(s *resourcev1.ResourceSlice, now time.Time) []any {
				return []any{s.Name, ptr.Deref(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, age(s.CreationTimestamp, now)}
			}),
		},
		FieldRefusal: "field label not supported for " + resourcev1.SchemeGroupVersion.WithKind("ResourceSlice").String() + ": %s",
		FieldLabels:  []string{resourcev1.ResourceSliceSelectorDriver, resourcev1.ResourceSliceSelectorNodeName, resourcev1.ResourceSliceSelectorPoolName},
		Fields: selects(func(s *resourcev1.ResourceSlice) fields.Set {
			return fields.Set{
				resourcev1.ResourceSliceSelectorDriver:   s.Spec.Driver,
				resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""),
				resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name,
			}
		}),
	})
}

// dropDisabledDevices takes out what belongs to features that are off.
func dropDisabledDevices(spec *resourcev1.ResourceSliceSpec) {
	spec.PartitionTypeAttribute, spec.SkipNodeOperations = nil, nil
	for i := range spec.Devices {
		d := &spec.Devices[i]
		d.NodeAllocatableResources = nil
		for k := range d.ConsumesCounters {
			d.ConsumesCounters[k].CompatibilityGroups = nil
		}
		for name, a := range d.Attributes {
			a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	}
}
