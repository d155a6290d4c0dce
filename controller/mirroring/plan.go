package mirroring

import (
	"maps"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
)

const (
	// perSubset is the most addresses of one subset that are mirrored, as
	// upstream; what is mirrored of a subset is one slice per address family.
	perSubset = 1000
	// managedBy marks the slices that are ours.
	managedBy = "endpointslicemirroring-controller.k8s.io"
	// leaderAnnotation is on Endpoints that are no endpoints but a lock.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// mirrored says whether Endpoints are to be mirrored: somebody wrote them for a
// service whose pods no controller looks for.
func mirrored(e *corev1.Endpoints, s *corev1.Service) bool {
	if e == nil || s == nil || len(s.Spec.Selector) > 0 || e.Labels[discoveryv1.LabelSkipMirror] == "true" {
		return false
	}
	_, lock := e.Annotations[leaderAnnotation]
	return !lock
}

// actions bring the slices to what they should be. Objects are fresh.
type actions struct {
	create, update, delete []*discoveryv1.EndpointSlice
}

// plan compares the slices that there are with those that mirror the Endpoints.
// skipped is how many addresses are beyond what is mirrored.
func plan(e *corev1.Endpoints, existing []*discoveryv1.EndpointSlice) (a actions, skipped int) {
	want, skipped := desired(e)
	for _, sl := range existing {
		n := want[keyOf(sl)]
		if n == nil {
			a.delete = append(a.delete, sl)
			continue
		}
		delete(want, keyOf(sl))
		now := sl.DeepCopy()
		now.Labels, now.Annotations, now.OwnerReferences, now.Endpoints = n.Labels, n.Annotations, n.OwnerReferences, n.Endpoints
		if !equality.Semantic.DeepEqual(now, sl) {
			a.update = append(a.update, now)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		a.create = append(a.create, want[key])
	}
	return a, skipped
}

// desired are the slices that mirror Endpoints: one for each set of ports and
// each address family.
func desired(e *corev1.Endpoints) (want map[string]*discoveryv1.EndpointSlice, skipped int) {
	want = map[string]*discoveryv1.EndpointSlice{}
	for i := range e.Subsets {
		sub := &e.Subsets[i]
		ready, others := sub.Addresses, sub.NotReadyAddresses
		skipped += max(0, len(ready)+len(others)-perSubset)
		ready = ready[:min(len(ready), perSubset)]
		others = others[:min(len(others), perSubset-len(ready))]
		for _, list := range []struct {
			addresses []corev1.EndpointAddress
			ready     bool
		}{{ready, true}, {others, false}} {
			for j := range list.addresses {
				add(want, e, sub.Ports, &list.addresses[j], list.ready)
			}
		}
	}
	return want, skipped
}

// add puts one address into its slice, unless it is there already.
func add(want map[string]*discoveryv1.EndpointSlice, e *corev1.Endpoints, ports []corev1.EndpointPort, a *corev1.EndpointAddress, ready bool) {
	ip := netutils.ParseIPSloppy(a.IP)
	if ip == nil {
		return // not possible in Endpoints that were validated
	}
	sl := newSlice(e, ports, ip)
	if there := want[keyOf(sl)]; there != nil {
		sl = there
	} else {
		want[keyOf(sl)] = sl
	}
	if len(sl.Endpoints) >= perSubset || slices.ContainsFunc(sl.Endpoints, func(o discoveryv1.Endpoint) bool { return o.Addresses[0] == ip.String() }) {
		return
	}
	endpoint := discoveryv1.Endpoint{
		Addresses:  []string{ip.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef:  a.TargetRef,
		NodeName:   a.NodeName,
	}
	if a.Hostname != "" {
		endpoint.Hostname = &a.Hostname
	}
	sl.Endpoints = append(sl.Endpoints, endpoint)
}

func newSlice(e *corev1.Endpoints, ports []corev1.EndpointPort, ip net.IP) *discoveryv1.EndpointSlice {
	sl := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
			Labels:          maps.Clone(e.Labels), Annotations: maps.Clone(e.Annotations),
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{},
	}
	if sl.Labels == nil {
		sl.Labels = map[string]string{}
	}
	sl.Labels[discoveryv1.LabelServiceName], sl.Labels[discoveryv1.LabelManagedBy] = e.Name, managedBy
	delete(sl.Annotations, corev1.LastAppliedConfigAnnotation)
	delete(sl.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if ip.To4() == nil {
		sl.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, p := range ports {
		sl.Ports = append(sl.Ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To(p.Port), Protocol: ptr.To(p.Protocol), AppProtocol: p.AppProtocol})
	}
	return sl
}

// keyOf tells slices apart that cannot be one: by family and ports.
func keyOf(sl *discoveryv1.EndpointSlice) string {
	return string(sl.AddressType) + ":" + controller.PortsKey(sl.Ports)
}
