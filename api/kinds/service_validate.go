package kinds

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
)

// validateService checks a service that has been prepared, defaulted and
// allocated. Addresses that old already has are accepted, however written; old
// is nil on create.
func validateService(s, old *corev1.Service) field.ErrorList {
	spec, path := &s.Spec, field.NewPath("spec")
	errs := validateTopologyAnnotations(s)
	if len(spec.Ports) == 0 && !isHeadless(s) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	errs = append(errs, validateServiceType(s, path)...)
	errs = append(errs, validateServicePorts(s, path.Child("ports"))...)
	errs = append(errs, metav1validation.ValidateLabels(spec.Selector, path.Child("selector"))...)
	errs = append(errs, validateAffinity(spec, path)...)
	errs = append(errs, validateClusterIPs(s, old)...)

	var known []string
	if old != nil {
		known = old.Spec.ExternalIPs
	}
	for i, ip := range spec.ExternalIPs {
		at := path.Child("externalIPs").Index(i)
		if bad := validation.IsValidIPForLegacyField(at, ip, true, known); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, isRoutableIP(ip, at)...)
		}
	}
	errs = append(errs, oneOf(spec.Type, path.Child("type"), corev1.ServiceTypeClusterIP,
		corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateLoadBalancer(s, old, path)...)
	return append(errs, validateTraffic(s, path)...)
}

func validateTopologyAnnotations(s *corev1.Service) field.ErrorList {
	hints, old := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, current := s.Annotations[corev1.AnnotationTopologyMode]
	if !old || !current || hints == mode {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
		fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))}
}

func validateServiceType(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	spec := &s.Spec
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if isHeadless(s) {
			errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(0), spec.ClusterIPs[0],
				fmt.Sprintf("may not be set to 'None' for %s services", spec.Type)))
		}
	case corev1.ServiceTypeExternalName:
		const why = "may not be set for ExternalName services"
		if len(spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(path.Child("clusterIPs"), why))
		}
		if len(spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(path.Child("ipFamilies"), why))
		}
		if spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(path.Child("ipFamilyPolicy"), why))
		}
		at := path.Child("externalName")
		if name := strings.TrimSuffix(spec.ExternalName, "."); name != "" {
			errs = append(errs, invalidEach(at, name, validation.IsDNS1123Subdomain(name))...)
		} else {
			errs = append(errs, field.Required(at, ""))
		}
	}
	return errs
}

func validateServicePorts(s *corev1.Service, path *field.Path) field.ErrorList {
	type numbered struct {
		protocol corev1.Protocol
		number   int32
	}
	var errs field.ErrorList
	names, ports, nodePorts := sets.New[string](), sets.New[numbered](), sets.New[numbered]()
	for i := range s.Spec.Ports {
		p, at := &s.Spec.Ports[i], path.Index(i)
		if p.Name == "" && len(s.Spec.Ports) > 1 {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if p.Name != "" {
			errs = append(errs, isDNSLabel(p.Name, at.Child("name"))...)
			if names.Has(p.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names.Insert(p.Name)
		}
		errs = append(errs, isPort(p.Port, at.Child("port"))...)
		errs = append(errs, oneOf(p.Protocol, at.Child("protocol"), protocols...)...)
		errs = append(errs, pod.ValidatePortNumOrName(p.TargetPort, at.Child("targetPort"))...)
		if p.AppProtocol != nil {
			errs = append(errs, isQualifiedName(*p.AppProtocol, at.Child("appProtocol"))...)
		}
		if s.Spec.Type == corev1.ServiceTypeClusterIP && p.NodePort != 0 {
			errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if id := (numbered{p.Protocol, p.NodePort}); p.NodePort != 0 {
			if nodePorts.Has(id) {
				errs = append(errs, field.Duplicate(at.Child("nodePort"), p.NodePort))
			}
			nodePorts.Insert(id)
		}
		id := numbered{p.Protocol, p.Port}
		if ports.Has(id) {
			errs = append(errs, field.Duplicate(at, corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}))
		}
		ports.Insert(id)
	}
	return errs
}

func validateAffinity(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	errs := oneOf(spec.SessionAffinity, path.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	at, config := path.Child("sessionAffinityConfig"), spec.SessionAffinityConfig
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if config != nil {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone)))
		}
	case corev1.ServiceAffinityClientIP:
		why := fmt.Sprintf("when session affinity type is %s", corev1.ServiceAffinityClientIP)
		const limit = int32(86400)
		switch {
		case config == nil:
			errs = append(errs, field.Required(at, why))
		case config.ClientIP == nil:
			errs = append(errs, field.Required(at.Child("clientIP"), why))
		case config.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(at.Child("clientIP", "timeoutSeconds"), why))
		case *config.ClientIP.TimeoutSeconds <= 0 || *config.ClientIP.TimeoutSeconds > limit:
			errs = append(errs, field.Invalid(at.Child("clientIP", "timeoutSeconds"), *config.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", limit)))
		}
	}
	return errs
}

// validateClusterIPs checks addresses and families against each other.
func validateClusterIPs(s, old *corev1.Service) field.ErrorList {
	spec := &s.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("spec")
	ips, families := path.Child("clusterIPs"), path.Child("ipFamilies")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) != 0:
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		errs = append(errs, field.Required(ips, ""))
	case spec.ClusterIP != "" && spec.ClusterIPs[0] != spec.ClusterIP:
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	for i, family := range spec.IPFamilies {
		known := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		if !slices.Contains(known, family) {
			errs = append(errs, field.NotSupported(families.Index(i), family, known))
		}
		if slices.Contains(spec.IPFamilies[:i], family) {
			errs = append(errs, field.Duplicate(families.Index(i), family))
		}
	}
	if policy := spec.IPFamilyPolicy; policy != nil {
		known := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack}
		if !slices.Contains(known, *policy) {
			errs = append(errs, field.NotSupported(path.Child("ipFamilyPolicy"), *policy, known))
		}
	}
	bad := validateClusterIPValues(s, old, ips)
	errs = append(errs, bad...)
	if len(spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may only hold up to 2 values"))
	}
	if len(bad) > 0 {
		return errs // what follows would only confuse
	}
	if len(spec.ClusterIPs) > 1 {
		if dual, err := netutils.IsDualStackIPStrings(spec.ClusterIPs); err != nil || !dual {
			errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may specify no more than one IP for each IP family"))
		}
	}
	if isHeadless(s) {
		return errs
	}
	for i, ip := range spec.ClusterIPs {
		if i >= len(spec.IPFamilies) {
			break
		}
		if family := spec.IPFamilies[i]; (family == corev1.IPv6Protocol) != netutils.IsIPv6String(ip) {
			errs = append(errs, field.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%v]`", family, i)))
		}
	}
	return errs
}

func validateClusterIPValues(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var known []string
	if old != nil {
		known = old.Spec.ClusterIPs
	}
	var errs field.ErrorList
	for i, ip := range s.Spec.ClusterIPs {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(s.Spec.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(path, s.Spec.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), ip, true, known)...)
	}
	return errs
}

func validateLoadBalancer(s, old *corev1.Service, path *field.Path) field.ErrorList {
	const only = "may only be used when `type` is 'LoadBalancer'"
	var errs field.ErrorList
	spec := &s.Spec
	balances := spec.Type == corev1.ServiceTypeLoadBalancer

	var known []string
	if old != nil {
		known = old.Spec.LoadBalancerSourceRanges
	}
	if len(spec.LoadBalancerSourceRanges) > 0 {
		at := path.Child("LoadBalancerSourceRanges") // as Kubernetes spells it
		if !balances {
			errs = append(errs, field.Forbidden(at, only))
		}
		for i, cidr := range spec.LoadBalancerSourceRanges {
			if !slices.Contains(known, cidr) {
				errs = append(errs, validation.IsValidCIDRForLegacyField(at.Index(i), strings.TrimSpace(cidr), true, nil)...)
			}
		}
	} else if value, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; ok {
		at := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if !balances {
			errs = append(errs, field.Forbidden(at, only))
		}
		if value = strings.TrimSpace(value); value != "" && (old == nil || old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] != s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]) {
			for _, cidr := range strings.Split(value, ",") {
				errs = append(errs, validation.IsValidCIDRForLegacyField(at, strings.TrimSpace(cidr), true, nil)...)
			}
		}
	}
	if spec.AllocateLoadBalancerNodePorts != nil && !balances {
		errs = append(errs, field.Forbidden(path.Child("allocateLoadBalancerNodePorts"), only))
	}
	if spec.AllocateLoadBalancerNodePorts == nil && balances {
		errs = append(errs, field.Required(field.NewPath("allocateLoadBalancerNodePorts"), ""))
	}
	if class := spec.LoadBalancerClass; class != nil {
		if balances {
			errs = append(errs, isQualifiedName(*class, path.Child("loadBalancerClass"))...)
		} else {
			errs = append(errs, field.Forbidden(path.Child("loadBalancerClass"), only))
		}
	}
	return errs
}

func validateTraffic(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	spec := &s.Spec
	external := path.Child("externalTrafficPolicy")
	if externallyAccessible(s) {
		errs = append(errs, oneOf(spec.ExternalTrafficPolicy, external,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	health := path.Child("healthCheckNodePort")
	switch port := spec.HealthCheckNodePort; {
	case !ServiceNeedsHealthCheckPort(s):
		if port != 0 {
			errs = append(errs, field.Invalid(health, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
		}
	case port == 0:
		errs = append(errs, field.Required(health, ""))
	default:
		errs = append(errs, isPort(port, health)...)
	}
	internal := path.Child("internalTrafficPolicy")
	if policy := spec.InternalTrafficPolicy; policy != nil {
		known := []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}
		if !slices.Contains(known, *policy) {
			errs = append(errs, field.NotSupported(internal, *policy, known))
		}
	} else if spec.Type == corev1.ServiceTypeClusterIP || ServiceUsesNodePorts(s) {
		errs = append(errs, field.Required(internal, ""))
	}
	if d := spec.TrafficDistribution; d != nil {
		known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
		if !slices.Contains(known, *d) {
			errs = append(errs, field.NotSupported(path.Child("trafficDistribution"), *d, known))
		}
	}
	return errs
}

// validateServiceUpdate keeps the primary address and family of a service as
// long as it has one.
func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if ServiceNeedsClusterIP(s) && ServiceNeedsClusterIP(old) {
		errs = append(errs, keepsClusterIPs(s, old, path)...)
		if !isHeadless(s) && !isHeadless(old) {
			errs = append(errs, keepsFamilies(s, old, path)...)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		!ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		errs = append(errs, field.Invalid(path.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, "may not change once set"))
	}
	if ServiceNeedsHealthCheckPort(s) && ServiceNeedsHealthCheckPort(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(path.Child("healthCheckNodePort"), "field is immutable"))
	}
	return errs
}

const setOnce = "may not change once set"

func keepsClusterIPs(s, old *corev1.Service, path *field.Path) field.ErrorList {
	if isHeadless(s) && isHeadless(old) {
		return nil
	}
	var errs field.ErrorList
	ips, was, at := s.Spec.ClusterIPs, old.Spec.ClusterIPs, path.Child("clusterIPs")
	switch {
	case len(ips) == len(was):
		for i := range was {
			if ips[i] != was[i] {
				errs = append(errs, field.Invalid(at.Index(i), ips, setOnce))
			}
		}
	case len(ips) == 0:
		errs = append(errs, field.Invalid(at.Index(0), ips, "primary clusterIP can not be unset"))
	default:
		if len(was) > 0 && ips[0] != was[0] {
			errs = append(errs, field.Invalid(at.Index(0), ips, setOnce))
		}
		if len(was) > len(ips) && !isSingleStack(s) {
			errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
		}
	}
	return errs
}

func keepsFamilies(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	families, was, at := s.Spec.IPFamilies, old.Spec.IPFamilies, path.Child("ipFamilies").Index(0)
	switch {
	case len(families) == len(was):
		for i := range was {
			if families[i] != was[i] {
				errs = append(errs, field.Invalid(at, families, setOnce))
			}
		}
	case len(families) < len(was):
		if len(s.Spec.ClusterIPs) == 0 {
			errs = append(errs, field.Invalid(at, families, "primary ipFamily can not be unset"))
		}
		if len(families) > 0 && families[0] != was[0] {
			errs = append(errs, field.Invalid(at, families, setOnce))
		}
		if len(families) == 1 && !isSingleStack(s) {
			errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
		}
	case len(was) > 0 && families[0] != was[0]:
		errs = append(errs, field.Invalid(at, families, setOnce))
	}
	return errs
}

func isSingleStack(s *corev1.Service) bool {
	return ptr.Deref(s.Spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicySingleStack
}

func validateServiceStatus(s, old *corev1.Service) field.ErrorList {
	path := field.NewPath("status", "loadBalancer", "ingress")
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		if len(s.Status.LoadBalancer.Ingress) > 0 {
			return field.ErrorList{field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")}
		}
		return nil
	}
	var known []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		known = append(known, ingress.IP)
	}
	var errs field.ErrorList
	for i := range s.Status.LoadBalancer.Ingress {
		ingress, at := &s.Status.LoadBalancer.Ingress[i], path.Index(i)
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), ingress.IP, true, known)...)
		}
		switch mode := ingress.IPMode; {
		case mode == nil && ingress.IP != "":
			errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
		case mode != nil && ingress.IP == "":
			errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
		case mode != nil:
			errs = append(errs, oneOf(*mode, at.Child("ipMode"), corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if ingress.Hostname != "" {
			errs = append(errs, invalidEach(at.Child("hostname"), ingress.Hostname, validation.IsDNS1123Subdomain(ingress.Hostname))...)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
