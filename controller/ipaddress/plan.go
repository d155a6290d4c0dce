package ipaddress

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hansa.dev/hansa/api/kinds"
)

// repair is what is wrong with one address of a service, or with one claim.
type repair struct {
	reason, message string // of the event; no reason: none is told
	// make is the claim that the service should have, in the place of the one
	// that there is.
	make *networkingv1.IPAddress
	// remove: the claim is nobody's.
	remove bool
}

// world is what a plan looks at.
type world interface {
	// claim is the IPAddress of an address, or nil.
	claim(ip string) *networkingv1.IPAddress
	// service is a service, or nil.
	service(namespace, name string) *corev1.Service
	// ranged says whether the address is in a ServiceCIDR.
	ranged(ip netip.Addr) bool
}

// planService compares the addresses that a service has with its claims.
func planService(s *corev1.Service, w world) []repair {
	var repairs []repair
	for _, text := range addressesOf(s) {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			repairs = append(repairs, repair{reason: "ClusterIPNotValid", message: fmt.Sprintf("Cluster IP %s is not a valid IP; please recreate Service", text)})
			continue
		}
		if r, wrong := planAddress(s, ip.Unmap(), w); wrong {
			repairs = append(repairs, r)
		}
	}
	return repairs
}

func planAddress(s *corev1.Service, ip netip.Addr, w world) (repair, bool) {
	family := kinds.IPFamilyOf(ip)
	if !w.ranged(ip) {
		return repair{reason: "ClusterIPOutOfRange", message: fmt.Sprintf("Cluster IP [%v]: %s is not within any configured Service CIDR; please recreate service", family, ip)}, true
	}
	want := kinds.ServiceAddress(ip, s)
	have := w.claim(want.Name)
	if have == nil {
		return repair{reason: "ClusterIPNotAllocated", message: fmt.Sprintf("Cluster IP [%v]: %s is not allocated; repairing", family, ip), make: want}, true
	}
	wrong := repair{reason: "ClusterIPNotAllocated", message: fmt.Sprintf("the ClusterIP [%v]: %s for Service %s/%s has a wrong reference; repairing", family, ip, s.Namespace, s.Name), make: want}
	ref := have.Spec.ParentRef
	if !toService(have) {
		return wrong, true
	}
	if ref.Namespace != s.Namespace || ref.Name != s.Name {
		other := w.service(ref.Namespace, ref.Name)
		if other != nil && slices.Contains(addressesOf(other), have.Name) {
			return repair{reason: "ClusterIPAlreadyAllocated", message: fmt.Sprintf("Cluster IP [%v]:%s was assigned to multiple services; please recreate service", family, ip)}, true
		}
		return wrong, true
	}
	if have.Labels[networkingv1.LabelIPAddressFamily] != string(family) || !managed(have) {
		return repair{make: want}, true
	}
	return repair{}, false
}

// planClaim says whether a claim of the allocator is that of a service.
func planClaim(claim *networkingv1.IPAddress, w world) (repair, bool) {
	if !managed(claim) {
		return repair{}, false
	}
	ref := claim.Spec.ParentRef
	if !toService(claim) {
		return repair{reason: "IPAddressNotAllocated", message: fmt.Sprintf("IPAddress %s appears to have been modified, not referencing a Service %v: cleaning up", claim.Name, ref), remove: true}, true
	}
	s := w.service(ref.Namespace, ref.Name)
	switch {
	case s == nil:
		return repair{reason: "IPAddressNotAllocated", message: fmt.Sprintf("IPAddress: %s for Service %s/%s appears to have leaked: cleaning up", claim.Name, ref.Namespace, ref.Name), remove: true}, true
	case !slices.Contains(addressesOf(s), claim.Name):
		return repair{reason: "IPAddressWrongReference", message: fmt.Sprintf("IPAddress: %s for Service %s/%s has a wrong reference; cleaning up", claim.Name, s.Namespace, s.Name), remove: true}, true
	}
	return repair{}, false
}

func managed(claim *networkingv1.IPAddress) bool {
	return claim.Labels[networkingv1.LabelManagedBy] == kinds.ServiceAddressManager
}

func toService(claim *networkingv1.IPAddress) bool {
	ref := claim.Spec.ParentRef
	return ref != nil && ref.Group == "" && ref.Resource == "services"
}

// addressesOf are the cluster addresses that a service has.
func addressesOf(s *corev1.Service) []string {
	if !kinds.ServiceNeedsClusterIP(s) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Spec.ClusterIPs), func(ip string) bool { return ip == "" || ip == corev1.ClusterIPNone })
}
