package kinds

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api/pod"
)

func validateClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	path, status := field.NewPath("status"), &c.Status
	errs := declaredClaimStatus(status, path).MarkBeta()
	if len(status.ReservedFor) <= resourcev1.ResourceClaimReservedForMaxSize {
		for i, ref := range status.ReservedFor {
			at := path.Child("reservedFor").Index(i)
			errs = append(errs, named(ref.Resource, at.Child("resource"))...)
			errs = append(errs, named(ref.Name, at.Child("name"))...)
			errs = append(errs, named(string(ref.UID), at.Child("uid"))...)
		}
	}
	allocated := allocatedDevices(status.Allocation)
	for i := range status.Devices {
		errs = append(errs, validateDeviceStatus(&status.Devices[i], allocated, path.Child("devices").Index(i))...)
	}
	if reserved := path.Child("reservedFor"); len(status.ReservedFor) > 0 {
		switch added := sets.New(status.ReservedFor...).Difference(sets.New(old.Status.ReservedFor...)); {
		case status.Allocation == nil:
			errs = append(errs, field.Forbidden(reserved, "may not be specified when `allocated` is not set"))
		case c.DeletionTimestamp != nil && len(added) > 0:
			errs = append(errs, field.Forbidden(reserved, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
		}
	}
	allocation := path.Child("allocation")
	switch {
	case status.Allocation == nil:
	case old.Status.Allocation == nil:
		errs = append(errs, declaredAllocation(&status.Allocation.Devices, allocation.Child("devices")).MarkBeta()...)
		errs = append(errs, validateAllocation(status.Allocation, requestNamesOf(&c.Spec.Devices), allocation)...)
	case !equality.Semantic.DeepEqual(status.Allocation, old.Status.Allocation):
		errs = append(errs, field.Invalid(allocation, nil, "field cannot be modified once set"))
	}
	return errs
}

// declaredClaimStatus leaves out the allocation, which is checked when it is
// made.
func declaredClaimStatus(s *resourcev1.ResourceClaimStatus, path *field.Path) field.ErrorList {
	errs := declaredSet(s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize, path.Child("reservedFor"),
		func(a, b *resourcev1.ResourceClaimConsumerReference) bool { return a.UID == b.UID })
	devices := path.Child("devices")
	errs = append(errs, declaredSet(s.Devices, len(s.Devices), devices, func(a, b *resourcev1.AllocatedDeviceStatus) bool {
		return deviceID(a.Driver, a.Pool, a.Device, a.ShareID) == deviceID(b.Driver, b.Pool, b.Device, b.ShareID)
	})...)
	for i, d := range s.Devices {
		at := devices.Index(i)
		if d.ShareID != nil {
			errs = append(errs, declared(*d.ShareID, at.Child("shareID"), validate.UUID[string])...)
		}
		if n, of := d.NetworkData, at.Child("networkData"); n != nil {
			errs = append(errs, declared(n.InterfaceName, of.Child("interfaceName"), maxBytes(resourcev1.NetworkDeviceDataInterfaceNameMaxLength))...)
			errs = append(errs, declaredSet(n.IPs, resourcev1.NetworkDeviceDataMaxIPs, of.Child("ips"), same)...)
			errs = append(errs, declared(n.HardwareAddress, of.Child("hardwareAddress"), maxBytes(resourcev1.NetworkDeviceDataHardwareAddressMaxLength))...)
		}
	}
	return errs
}

func validateDeviceStatus(d *resourcev1.AllocatedDeviceStatus, allocated sets.Set[sharedDevice], path *field.Path) field.ErrorList {
	errs := validateDriver(d.Driver, path.Child("driver"))
	errs = append(errs, validatePool(d.Pool, path.Child("pool"))...)
	errs = append(errs, isDNSLabel(d.Device, path.Child("device"))...)
	if id := deviceID(d.Driver, d.Pool, d.Device, d.ShareID); !allocated.Has(id) {
		errs = append(errs, field.Invalid(path, id, "must be an allocated device in the claim"))
	}
	conditions := path.Child("conditions")
	errs = append(errs, atMost(d.Conditions, resourcev1.AllocatedDeviceStatusMaxConditions, conditions)...)
	errs = append(errs, metav1validation.ValidateConditions(d.Conditions, conditions)...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, isJSONObject(d.Data, resourcev1.AllocatedDeviceStatusDataMaxLength, path.Child("data"))...)
	}
	if n := d.NetworkData; n != nil && len(n.IPs) <= resourcev1.NetworkDeviceDataMaxIPs {
		for i, ip := range n.IPs {
			errs = append(errs, validation.IsValidInterfaceAddress(path.Child("networkData", "ips").Index(i), ip)...)
		}
	}
	return errs
}

// Most configurations of an allocation: those of classes and of the claim.
const maxAllocationConfigs = 2 * resourcev1.DeviceConfigMaxSize

func declaredAllocation(a *resourcev1.DeviceAllocationResult, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	results, configs := path.Child("results"), path.Child("config")
	if tooMany := atMost(a.Results, resourcev1.AllocationResultsMaxSize, results); len(tooMany) > 0 {
		errs = append(errs, tooMany...)
	} else {
		for i := range a.Results {
			r, at := &a.Results[i], results.Index(i)
			errs = append(errs, declaredDriver(r.Driver, at.Child("driver"))...)
			errs = append(errs, declaredRequired(r.Pool, at.Child("pool"), validate.ResourcePoolName[string])...)
			errs = append(errs, declaredTolerations(r.Tolerations, at.Child("tolerations"))...)
			errs = append(errs, declaredBindingConditions(r.BindingConditions, r.BindingFailureConditions, at)...)
			if r.ShareID != nil {
				errs = append(errs, declared(*r.ShareID, at.Child("shareID"), validate.UUID[types.UID])...)
			}
		}
	}
	if tooMany := atMost(a.Config, maxAllocationConfigs, configs); len(tooMany) > 0 {
		return append(errs, tooMany...)
	}
	for i := range a.Config {
		c, at := &a.Config[i], configs.Index(i)
		errs = append(errs, oneOf(c.Source, at.Child("source"), resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)...)
		errs = append(errs, declaredSet(c.Requests, resourcev1.DeviceRequestsMaxSize, at.Child("requests"), same)...)
		errs = append(errs, declaredConfiguration(&c.DeviceConfiguration, at)...)
	}
	return errs
}

func validateAllocation(a *resourcev1.AllocationResult, names requestNames, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	results, configs := path.Child("devices", "results"), path.Child("devices", "config")
	if len(a.Devices.Results) <= resourcev1.AllocationResultsMaxSize {
		for i := range a.Devices.Results {
			r, at := &a.Devices.Results[i], results.Index(i)
			errs = append(errs, names.validate(r.Request, at.Child("request"))...)
			errs = append(errs, isDNSLabel(r.Device, at.Child("device"))...)
			errs = append(errs, validateBindingConditions(r.BindingConditions, r.BindingFailureConditions, at)...)
			errs = append(errs, validateTolerations(r.Tolerations, at.Child("tolerations"))...)
		}
	}
	if len(a.Devices.Config) <= maxAllocationConfigs {
		for i := range a.Devices.Config {
			c, at := &a.Devices.Config[i], configs.Index(i)
			errs = append(errs, names.validateAll(c.Requests, at.Child("requests"))...)
			errs = append(errs, validateConfiguration(&c.DeviceConfiguration, false, at)...)
		}
	}
	if a.NodeSelector != nil {
		errs = append(errs, pod.ValidateNodeSelector(a.NodeSelector, path.Child("nodeSelector"))...)
	}
	return errs
}
