package bootstrap

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// kubernetesName is that of the service by which pods reach the API, and of its
// endpoints, in the namespace "default".
const kubernetesName = "kubernetes"

// KubernetesService is the service by which pods reach the API servers, at the
// first address of the service range.
func KubernetesService(address netip.Addr, port int32) *corev1.Service {
	family := corev1.IPv4Protocol
	if address.Is6() {
		family = corev1.IPv6Protocol
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault,
			Name:      kubernetesName,
			Labels:    map[string]string{"component": "apiserver", "provider": "kubernetes"},
		},
		Spec: corev1.ServiceSpec{
			Type:            corev1.ServiceTypeClusterIP,
			ClusterIP:       address.String(),
			ClusterIPs:      []string{address.String()},
			IPFamilies:      []corev1.IPFamily{family},
			IPFamilyPolicy:  ptr.To(corev1.IPFamilyPolicySingleStack),
			SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{
				Name:       "https",
				Protocol:   corev1.ProtocolTCP,
				Port:       443,
				TargetPort: intstr.FromInt32(port),
			}},
		},
	}
}

// KubernetesEndpoints are where the service leads: the API servers' advertised
// addresses, all of one family. Both objects say the same; the endpoint-slice
// mirroring leaves the first alone.
func KubernetesEndpoints(port int32, servers ...netip.Addr) (*corev1.Endpoints, *discoveryv1.EndpointSlice) {
	servers = slices.SortedFunc(slices.Values(servers), netip.Addr.Compare)
	endpoints := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault,
			Name:      kubernetesName,
			Labels:    map[string]string{discoveryv1.LabelSkipMirror: "true"},
		},
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault,
			Name:      kubernetesName,
			Labels:    map[string]string{discoveryv1.LabelServiceName: kubernetesName},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{
			Name: ptr.To("https"), Protocol: ptr.To(corev1.ProtocolTCP), Port: &port,
		}},
	}
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: port}}}
	for _, server := range servers {
		if server.Is6() {
			slice.AddressType = discoveryv1.AddressTypeIPv6
		}
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: server.String()})
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{server.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		})
	}
	if len(servers) > 0 {
		endpoints.Subsets = []corev1.EndpointSubset{subset}
	}
	return endpoints, slice
}
