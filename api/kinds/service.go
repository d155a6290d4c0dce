package kinds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func service() *api.Resource {
	gv := corev1.SchemeGroupVersion
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return stored[corev1.Service, *corev1.Service, corev1.ServiceList](gv, &api.Resource{
		Plural:        "services",
		Singular:      "service",
		Kind:          "Service",
		ShortNames:    []string{"svc"},
		Categories:    []string{"all"},
		Namespaced:    true,
		Prefix:        "services/specs",
		Default:       on(defaultService),
		PrepareCreate: on(prepareService),
		PrepareUpdate: onUpdate(prepareServiceUpdate),
		Validate:      validates(func(s *corev1.Service) field.ErrorList { return validateService(s, nil) }),
		ValidateUpdate: validatesUpdate(func(s, old *corev1.Service) field.ErrorList {
			return append(validateServiceUpdate(s, old), validateService(s, old)...)
		}),
		Warnings: warns(warnService),
		// A service's name is a label in DNS; it may start with a digit.
		NameRule:                 apivalidation.NameIsDNSLabel,
		ResetFields:              resets(gv, "status"),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Type", "string", doc["type"]),
				column("Cluster-IP", "string", doc["clusterIP"]),
				column("External-IP", "string", doc["externalIPs"]),
				column("Port(s)", "string", doc["ports"]),
				ageColumn(),
				wideColumn("Selector", "string", doc["selector"]),
			},
			Row: cells(serviceCells),
		},
		FieldLabels: []string{"spec.clusterIP", "spec.type"},
		Fields: selects(func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(func(s, old *corev1.Service) { s.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(validateServiceStatus),
				ResetFields:    resets(gv, "spec"),
			},
			"proxy": proxySubresource("ServiceProxyOptions", func() runtime.Object { return &corev1.ServiceProxyOptions{} }),
		},
	})
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if externallyAccessible(s) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && spec.Type != corev1.ServiceTypeExternalName {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = ptr.To(true)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
			ingress.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
		}
	}
}

// externallyAccessible says whether traffic may arrive from outside the cluster.
func externallyAccessible(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP, "":
		return len(s.Spec.ExternalIPs) > 0
	}
	return false
}

// isHeadless says whether a service is a name for its endpoints only.
func isHeadless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

func prepareService(s *corev1.Service) {
	s.Status = corev1.ServiceStatus{}
	// Old clients know the singular field only.
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

// prepareServiceUpdate works out what the writer meant: it keeps the values
// that were allocated where the writer left them out, keeps singular and
// plural fields in step, and drops what a new type has no use for, unless the
// writer changed that as well, which validation then refuses.
func prepareServiceUpdate(s, old *corev1.Service) {
	defaultService(s)
	s.Status = *old.Status.DeepCopy()
	keepAllocated(s, old)
	syncClusterIPs(s, old)
	dropForType(s, old)
}

// keepAllocated lets a writer replace a service without knowing its addresses
// and ports.
func keepAllocated(s, old *corev1.Service) {
	if ServiceNeedsClusterIP(s) && ServiceNeedsClusterIP(old) {
		if s.Spec.ClusterIP == "" {
			s.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if ServiceNeedsNodePorts(s) && ServiceNeedsNodePorts(old) {
		keepNodePorts(s, old)
	}
	if ServiceNeedsHealthCheckPort(s) && ServiceNeedsHealthCheckPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func keepNodePorts(s, old *corev1.Service) {
	used := nodePorts(old).Intersection(nodePorts(s))
	byName := map[string]int32{}
	for _, p := range old.Spec.Ports {
		byName[p.Name] = p.NodePort
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if was := byName[p.Name]; p.NodePort == 0 && !used.Has(was) {
			p.NodePort = was
		}
	}
}

func nodePorts(s *corev1.Service) sets.Set[int32] {
	ports := sets.New[int32]()
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			ports.Insert(p.NodePort)
		}
	}
	return ports
}

// syncClusterIPs carries a change of clusterIP over to clusterIPs, if the
// writer left that as it was.
func syncClusterIPs(s, old *corev1.Service) {
	if len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == old.Spec.ClusterIP {
		s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
	}
	if s.Spec.ClusterIP == old.Spec.ClusterIP || !slices.Equal(s.Spec.ClusterIPs, old.Spec.ClusterIPs) {
		return
	}
	if s.Spec.ClusterIP == "" {
		s.Spec.ClusterIPs = nil
	} else {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

func dropForType(s, old *corev1.Service) {
	spec, was := &s.Spec, &old.Spec
	if ServiceNeedsClusterIP(old) && !ServiceNeedsClusterIP(s) {
		if spec.ClusterIP == was.ClusterIP && slices.Equal(spec.ClusterIPs, was.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, was.IPFamilies) {
			spec.IPFamilies = nil
		}
		if ptr.Equal(spec.IPFamilyPolicy, was.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
	}
	if ServiceUsesNodePorts(old) && !ServiceUsesNodePorts(s) && nodePorts(old).IsSuperset(nodePorts(s)) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if ServiceNeedsHealthCheckPort(old) && !ServiceNeedsHealthCheckPort(s) && spec.HealthCheckNodePort == was.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		if ptr.Equal(spec.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(spec.LoadBalancerClass, was.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	if externallyAccessible(old) && !externallyAccessible(s) && spec.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func warnService(s, _ *corev1.Service) []string {
	var warnings []string
	spec, path := &s.Spec, field.NewPath("spec")
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		warnings = append(warnings, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	headless := spec.Type == corev1.ServiceTypeClusterIP && spec.ClusterIP == corev1.ClusterIPNone
	if headless {
		if spec.LoadBalancerIP != "" {
			warnings = append(warnings, "spec.loadBalancerIP is ignored for headless services")
		}
		if len(spec.ExternalIPs) > 0 {
			warnings = append(warnings, "spec.externalIPs is ignored for headless services")
		}
		if spec.SessionAffinity != corev1.ServiceAffinityNone {
			warnings = append(warnings, "spec.SessionAffinity is ignored for headless services")
		}
	} else if spec.ClusterIP != "" {
		for i, ip := range spec.ClusterIPs {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range spec.ExternalIPs {
		warnings = append(warnings, validation.GetWarningsForIP(path.Child("externalIPs").Index(i), ip)...)
	}
	if len(spec.ExternalIPs) > 0 && !headless && spec.Type != corev1.ServiceTypeExternalName {
		warnings = append(warnings, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	if spec.LoadBalancerIP != "" {
		warnings = append(warnings, validation.GetWarningsForIP(path.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("loadBalancerSourceRanges").Index(i), strings.TrimSpace(cidr))...)
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		if len(spec.ExternalIPs) > 0 {
			warnings = append(warnings, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", corev1.ServiceTypeExternalName))
		}
	} else if spec.ExternalName != "" {
		warnings = append(warnings, fmt.Sprintf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName))
	}
	if ptr.Deref(spec.TrafficDistribution, "") == corev1.ServiceTrafficDistributionPreferClose {
		warnings = append(warnings, fmt.Sprintf("spec.trafficDistribution: %q is deprecated; use %q",
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone))
	}
	return warnings
}

func serviceCells(s *corev1.Service, now time.Time) []any {
	clusterIP := unset
	if len(s.Spec.ClusterIPs) > 0 {
		clusterIP = s.Spec.ClusterIPs[0]
	}
	ports := make([]string, 0, len(s.Spec.Ports))
	for _, p := range s.Spec.Ports {
		if p.NodePort > 0 {
			ports = append(ports, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return []any{s.Name, string(s.Spec.Type), clusterIP, externalCell(s),
		orDefault(strings.Join(ports, ","), unset), age(s.CreationTimestamp, now), labels.FormatLabels(s.Spec.Selector)}
}

func externalCell(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return orDefault(strings.Join(s.Spec.ExternalIPs, ","), unset)
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		given := sets.New[string]()
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if at := orDefault(ingress.IP, ingress.Hostname); at != "" {
				given.Insert(at)
			}
		}
		return orDefault(strings.Join(append(sets.List(given), s.Spec.ExternalIPs...), ","), "<pending>")
	}
	return unknown
}
