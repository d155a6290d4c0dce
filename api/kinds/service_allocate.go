package kinds

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

// What a service is given by the cluster is decided here and allocated by the
// server, in this order: prepare, default, AssignIPFamilies, then addresses
// (ServiceClusterIPsDue), node ports (ServiceNeedsNodePorts) and a health-check
// port; then validate, which demands the last. What old had and the new service has not is free again
// when the write is done.

// ServiceNeedsClusterIP says whether clusterIP has a meaning for the type; a
// headless service's is "None", and nothing is allocated for it.
func ServiceNeedsClusterIP(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName
}

// ServiceClusterIPsDue are the indexes into clusterIPs for which an address is to
// be claimed or chosen: all of a service that comes to need addresses, the second
// where it comes to have a second family. It is called after AssignIPFamilies; old
// is nil on create.
func ServiceClusterIPsDue(s, old *corev1.Service) []int {
	families := len(s.Spec.IPFamilies)
	switch {
	case !ServiceNeedsClusterIP(s):
		return nil
	case old == nil || !ServiceNeedsClusterIP(old):
		if isHeadless(s) {
			return nil
		}
		due := make([]int, families)
		for i := range due {
			due[i] = i
		}
		return due
	case !isHeadless(old) && len(old.Spec.IPFamilies) == 1 && families == 2:
		return []int{1}
	}
	return nil
}

// ServiceNeedsNodePorts says whether ports without a node port are given one.
func ServiceNeedsNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
}

// ServiceUsesNodePorts says whether ports may have a node port at all.
func ServiceUsesNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// ServiceNeedsHealthCheckPort says whether load balancers ask nodes whether
// they have endpoints.
func ServiceNeedsHealthCheckPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// AssignIPFamilies fills in ipFamilyPolicy and ipFamilies for a cluster with
// the given families, its primary first. old is nil on create. It answers with
// what the cluster cannot satisfy.
func AssignIPFamilies(s, old *corev1.Service, families []corev1.IPFamily) field.ErrorList {
	if !ServiceNeedsClusterIP(s) || keepsPreferredFamilies(s, old) {
		return nil
	}
	defaultFamilyPolicy(s, old)
	if errs := validateClusterIPs(s, old); len(errs) > 0 {
		return errs
	}
	policy, path := *s.Spec.IPFamilyPolicy, field.NewPath("spec")
	errs := reconcilePolicy(s, old, policy, path)
	errs = append(errs, inferFamilies(s, families, path)...)
	if len(errs) > 0 {
		return errs
	}

	// Without selector the endpoints are the user's own, of whatever family.
	if s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0 {
		if len(s.Spec.IPFamilies) == 0 {
			s.Spec.IPFamilies = []corev1.IPFamily{families[0]}
		}
		if len(s.Spec.IPFamilies) < 2 && policy != corev1.IPFamilyPolicySingleStack {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
		}
		return nil
	}

	if policy == corev1.IPFamilyPolicyRequireDualStack && len(families) < 2 {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), policy, "this cluster is not configured for dual-stack services"))
	}
	for i, family := range s.Spec.IPFamilies {
		if !slices.Contains(families, family) {
			errs = append(errs, field.Invalid(path.Child("ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{families[0]}
	}
	if policy != corev1.IPFamilyPolicySingleStack && len(s.Spec.IPFamilies) == 1 && len(families) == 2 {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, otherFamily(s.Spec.IPFamilies[0]))
	}
	return nil
}

// keepsPreferredFamilies says whether an update leaves a PreferDualStack
// service as it is: such a service follows a change of the cluster only when
// its own families or addresses are changed.
func keepsPreferredFamilies(s, old *corev1.Service) bool {
	prefers := func(s *corev1.Service) bool {
		return ptr.Deref(s.Spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicyPreferDualStack
	}
	return old != nil && prefers(s) && prefers(old) &&
		old.Spec.Type != corev1.ServiceTypeExternalName &&
		s.Spec.ClusterIP == old.Spec.ClusterIP &&
		slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) &&
		slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies)
}

func defaultFamilyPolicy(s, old *corev1.Service) {
	switch {
	case s.Spec.IPFamilyPolicy != nil:
	case old != nil && old.Spec.IPFamilyPolicy != nil:
		s.Spec.IPFamilyPolicy = ptr.To(*old.Spec.IPFamilyPolicy)
	case s.Spec.ClusterIP == corev1.ClusterIPNone && len(s.Spec.Selector) == 0:
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	default:
		s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	}
}

// reconcilePolicy releases the second family when the writer asks for a single
// one, and refuses a policy that contradicts the number of families.
func reconcilePolicy(s, old *corev1.Service, policy corev1.IPFamilyPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("ipFamilyPolicy")
	single := policy == corev1.IPFamilyPolicySingleStack
	if old != nil && single {
		if slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) && len(s.Spec.ClusterIPs) > 1 {
			s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
		}
		if slices.Equal(s.Spec.IPFamilies, old.Spec.IPFamilies) && len(s.Spec.IPFamilies) > 1 {
			s.Spec.IPFamilies = s.Spec.IPFamilies[:1]
		}
	}
	if old != nil && !single {
		if n := len(s.Spec.ClusterIPs); n != 0 && n < len(old.Spec.ClusterIPs) {
			errs = append(errs, field.Invalid(at, policy, "must be 'SingleStack' to release the secondary cluster IP"))
		}
		if n := len(s.Spec.IPFamilies); n != 0 && n < len(old.Spec.IPFamilies) {
			errs = append(errs, field.Invalid(at, policy, "must be 'SingleStack' to release the secondary IP family"))
		}
	}
	if single && len(s.Spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(at, policy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if single && len(s.Spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(at, policy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	return errs
}

// inferFamilies takes the families from the addresses that the writer chose.
func inferFamilies(s *corev1.Service, families []corev1.IPFamily, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			break
		}
		if i < len(s.Spec.IPFamilies) {
			continue
		}
		family := corev1.IPv4Protocol
		if netutils.IsIPv6String(ip) {
			family = corev1.IPv6Protocol
		}
		if slices.Contains(families, family) {
			s.Spec.IPFamilies = append(s.Spec.IPFamilies, family)
		} else {
			errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(i), s.Spec.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", family)))
		}
	}
	return errs
}

func otherFamily(family corev1.IPFamily) corev1.IPFamily {
	if family == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
