package kinds

import (
	"slices"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func resourceClaim() *api.Resource {
	gv := resourcev1.SchemeGroupVersion
	return stored[resourcev1.ResourceClaim, *resourcev1.ResourceClaim, resourcev1.ResourceClaimList](gv, &api.Resource{
		Plural:     "resourceclaims",
		Singular:   "resourceclaim",
		Kind:       "ResourceClaim",
		Namespaced: true,
		Prefix:     "resourceclaims",
		ChecksBase: true,
		Inert:      undevised,
		Default:    on(defaultResourceClaim),
		PrepareCreate: on(func(c *resourcev1.ResourceClaim) {
			c.Status = resourcev1.ResourceClaimStatus{}
			dropDisabledRequests(&c.Spec)
		}),
		PrepareUpdate: onUpdate(func(c, old *resourcev1.ResourceClaim) {
			c.Status = *old.Status.DeepCopy()
			dropDisabledRequests(&c.Spec)
		}),
		Validate: validates(func(c *resourcev1.ResourceClaim) field.ErrorList {
			return validateDeviceClaim(&c.Spec.Devices, field.NewPath("spec", "devices"))
		}),
		ValidateUpdate: validatesUpdate(func(c, old *resourcev1.ResourceClaim) field.ErrorList {
			return immutable(c.Spec, old.Spec, field.NewPath("spec"))
		}),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("State", "string", "A summary of the current state (allocated, pending, reserved, etc.)."),
				ageColumn(),
			},
			Row: cells(func(c *resourcev1.ResourceClaim, now time.Time) []any {
				return []any{c.Name, claimState(c), age(c.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(prepareClaimStatus),
				ValidateUpdate: validatesUpdate(validateClaimStatus),
				ResetFields:    resets(gv, "metadata", "spec"),
			},
		},
	})
}

func resourceClaimTemplate() *api.Resource {
	validate := func(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
		path := field.NewPath("spec")
		return append(pod.ValidateTemplateMeta(&t.Spec.ObjectMeta, path.Child("metadata")),
			validateDeviceClaim(&t.Spec.Spec.Devices, path.Child("spec", "devices"))...)
	}
	return stored[resourcev1.ResourceClaimTemplate, *resourcev1.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList](resourcev1.SchemeGroupVersion, &api.Resource{
		Plural:        "resourceclaimtemplates",
		Singular:      "resourceclaimtemplate",
		Kind:          "ResourceClaimTemplate",
		Namespaced:    true,
		Prefix:        "resourceclaimtemplates",
		ChecksBase:    true,
		Inert:         undevised,
		Default:       on(func(t *resourcev1.ResourceClaimTemplate) { defaultRequests(t.Spec.Spec.Devices.Requests) }),
		PrepareCreate: on(func(t *resourcev1.ResourceClaimTemplate) { dropDisabledRequests(&t.Spec.Spec) }),
		PrepareUpdate: onUpdate(func(t, _ *resourcev1.ResourceClaimTemplate) { dropDisabledRequests(&t.Spec.Spec) }),
		Validate:      validates(validate),
		ValidateUpdate: validatesUpdate(func(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
			return append(validate(t), unchanged(t.Spec, old.Spec, field.NewPath("spec"))...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{nameColumn(), ageColumn()},
			Row: cells(func(t *resourcev1.ResourceClaimTemplate, now time.Time) []any {
				return []any{t.Name, age(t.CreationTimestamp, now)}
			}),
		},
	})
}

func defaultResourceClaim(c *resourcev1.ResourceClaim) {
	defaultRequests(c.Spec.Devices.Requests)
	if c.Status.Allocation == nil {
		return
	}
	for i := range c.Status.Allocation.Devices.Results {
		defaultDeviceTolerations(c.Status.Allocation.Devices.Results[i].Tolerations)
	}
}

func defaultRequests(requests []resourcev1.DeviceRequest) {
	for i := range requests {
		if e := requests[i].Exactly; e != nil {
			defaultAmount(&e.AllocationMode, &e.Count)
			defaultDeviceTolerations(e.Tolerations)
		}
		for k := range requests[i].FirstAvailable {
			s := &requests[i].FirstAvailable[k]
			defaultAmount(&s.AllocationMode, &s.Count)
			defaultDeviceTolerations(s.Tolerations)
		}
	}
}

func defaultAmount(mode *resourcev1.DeviceAllocationMode, count *int64) {
	if *mode == "" {
		*mode = resourcev1.DeviceAllocationModeExactCount
	}
	if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
		*count = 1
	}
}

func defaultDeviceTolerations(tolerations []resourcev1.DeviceToleration) {
	for i := range tolerations {
		if tolerations[i].Operator == "" {
			tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
		}
	}
}

// dropDisabledRequests takes out what belongs to features that are off.
func dropDisabledRequests(spec *resourcev1.ResourceClaimSpec) {
	for i := range spec.Devices.Requests {
		r := &spec.Devices.Requests[i]
		if r.Exactly != nil {
			r.Exactly.DerivedAttributes = nil
		}
		for k := range r.FirstAvailable {
			r.FirstAvailable[k].DerivedAttributes = nil
		}
	}
}

func claimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation != nil && len(c.Status.ReservedFor) > 0:
		states = append(states, "allocated", "reserved")
	case c.Status.Allocation != nil:
		states = append(states, "allocated")
	case c.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}

// sharedDevice names a device, or the share of one, among all. Refusals print it
// as Kubernetes does.
type sharedDevice struct{ Driver, Pool, Device, ShareID string }

func deviceID(driver, pool, device string, share *string) sharedDevice {
	return sharedDevice{driver, pool, device, ptr.Deref(share, "")}
}

func allocatedDevices(a *resourcev1.AllocationResult) sets.Set[sharedDevice] {
	ids := sets.New[sharedDevice]()
	if a != nil {
		for _, r := range a.Devices.Results {
			ids.Insert(deviceID(r.Driver, r.Pool, r.Device, (*string)(r.ShareID)))
		}
	}
	return ids
}

// prepareClaimStatus forgets the status of devices that are no longer allocated,
// which who frees them may know nothing of.
func prepareClaimStatus(c, old *resourcev1.ResourceClaim) {
	c.Spec = *old.Spec.DeepCopy()
	keepMeta(c, old)
	if c.Status.Allocation != nil {
		for i := range c.Status.Allocation.Devices.Results {
			c.Status.Allocation.Devices.Results[i].SkipNodeOperations = nil // off
		}
	}
	freed := allocatedDevices(old.Status.Allocation).Difference(allocatedDevices(c.Status.Allocation))
	c.Status.Devices = slices.DeleteFunc(c.Status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
		return freed.Has(deviceID(d.Driver, d.Pool, d.Device, d.ShareID))
	})
	if len(c.Status.Devices) == 0 {
		c.Status.Devices = nil
	}
}

// ValidateAdminAccess is the part of validating claims and their templates that
// needs the namespace, by its labels: devices that are in use go to namespaces
// for administrators alone. old is nil on create.
func ValidateAdminAccess(obj, old api.Object, namespace map[string]string) field.ErrorList {
	path := asksForAdmin(obj, old)
	if path == nil || namespace[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, "admin access to devices requires the `"+resourcev1.DRAAdminNamespaceLabelKey+": true` label on the containing namespace")}
}

// asksForAdmin is where an object asks for it first: what it asks for cannot
// change later, nor what it was given.
func asksForAdmin(obj, old api.Object) *field.Path {
	if old != nil {
		c, isClaim := obj.(*resourcev1.ResourceClaim)
		if !isClaim || givenToAdmin(old.(*resourcev1.ResourceClaim)) != nil {
			return nil
		}
		return givenToAdmin(c)
	}
	var requests []resourcev1.DeviceRequest
	switch o := obj.(type) {
	case *resourcev1.ResourceClaim:
		requests = o.Spec.Devices.Requests
	case *resourcev1.ResourceClaimTemplate:
		requests = o.Spec.Spec.Devices.Requests
	}
	for i, r := range requests {
		if r.Exactly != nil && isTrue(r.Exactly.AdminAccess) {
			// The same path for templates, as Kubernetes reports it.
			return field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess")
		}
	}
	return nil
}

func givenToAdmin(c *resourcev1.ResourceClaim) *field.Path {
	if c.Status.Allocation == nil {
		return nil
	}
	for i, r := range c.Status.Allocation.Devices.Results {
		if isTrue(r.AdminAccess) {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}
