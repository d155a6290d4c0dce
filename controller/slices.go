package controller

import (
	"fmt"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// SlicesOf are a service's EndpointSlices that one manager keeps.
func SlicesOf(view client.View, r *api.Resource, service api.Key, managedBy string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for o := range view.List(r, service.Namespace) {
		if l := o.GetLabels(); l[discoveryv1.LabelManagedBy] == managedBy && l[discoveryv1.LabelServiceName] == service.Name {
			out = append(out, o.(*discoveryv1.EndpointSlice))
		}
	}
	return out
}

// KeysOfSlices wakes the services of a manager's slices, so that they are mended
// when somebody changes them.
func KeysOfSlices(managedBy string) func(old, new api.Object) []api.Key {
	return func(old, new api.Object) []api.Key {
		var keys []api.Key
		for _, o := range []api.Object{old, new} {
			if o != nil && o.GetLabels()[discoveryv1.LabelManagedBy] == managedBy {
				keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetLabels()[discoveryv1.LabelServiceName]})
			}
		}
		return keys
	}
}

// PortsKey is the same for the same ports in any order.
func PortsKey(ports []discoveryv1.EndpointPort) string {
	keys := make([]string, 0, len(ports))
	for _, p := range ports {
		keys = append(keys, fmt.Sprintf("%s/%d/%s/%s", ptr.Deref(p.Name, ""), ptr.Deref(p.Port, 0), ptr.Deref(p.Protocol, ""), ptr.Deref(p.AppProtocol, "")))
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}
