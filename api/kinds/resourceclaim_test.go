package kinds_test

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// TestAdminAccess gives devices in use only to namespaces with the label for it,
// and asks when access is asked for or granted, not later.
func TestAdminAccess(t *testing.T) {
	asks := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
		{Name: "a", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "x"}}},
		{Name: "b", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: ptr.To(false)}},
		{Name: "c", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: ptr.To(true)}},
	}}}
	granted := &resourcev1.ResourceClaim{Spec: asks, Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{}, {AdminAccess: ptr.To(true)}}},
	}}}
	claim, template := &resourcev1.ResourceClaim{Spec: asks}, &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{Spec: asks}}
	for name, c := range map[string]struct {
		obj, old api.Object
		want     string // the field of the refusal
	}{
		"claim":            {claim, nil, "spec.devices.requests[2].adminAccess"},
		"template":         {template, nil, "spec.devices.requests[2].adminAccess"},
		"modest claim":     {&resourcev1.ResourceClaim{}, nil, ""},
		"claim relabelled": {claim, claim, ""},
		"template kept":    {template, template, ""},
		"granted":          {granted, claim, "status.allocation.devices.results[1].adminAccess"},
		"granted before":   {granted, granted, ""},
		"another kind":     {&resourcev1.DeviceClass{}, nil, ""},
	} {
		got := ""
		if errs := kinds.ValidateAdminAccess(c.obj, c.old, map[string]string{"a": "b"}); len(errs) > 0 {
			got = errs[0].Field
			if want := "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"; errs[0].Detail != want {
				t.Errorf("%s: %s, want %s", name, errs[0].Detail, want)
			}
		}
		if got != c.want {
			t.Errorf("%s: refused at %q, want %q", name, got, c.want)
		}
		if errs := kinds.ValidateAdminAccess(c.obj, c.old, map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}); len(errs) > 0 {
			t.Errorf("%s, for administrators: %v", name, errs)
		}
	}
}
