package quota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func serviceKind() *Kind {
	return &Kind{
		named: func(name corev1.ResourceName) bool {
			return name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers
		},
		usage: func(obj api.Object, _ time.Time) corev1.ResourceList {
			s := obj.(*corev1.Service)
			balancers := 0
			if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
				balancers = 1
			}
			return corev1.ResourceList{
				corev1.ResourceServicesNodePorts:     number(nodePorts(s)),
				corev1.ResourceServicesLoadBalancers: number(balancers),
			}
		},
		charged: func(_, _ api.Object, subresource string) bool { return subresource == "" },
		freed: func(obj, old api.Object) bool {
			return limitedType(obj.(*corev1.Service)) != limitedType(old.(*corev1.Service))
		},
	}
}

// nodePorts goes by what is asked for: they are not allocated yet.
func nodePorts(s *corev1.Service) int {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		if ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true) {
			return len(s.Spec.Ports)
		}
		n := 0
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				n++
			}
		}
		return n
	}
	return 0
}

// limitedType is a type that counts more than the service itself, with how much.
func limitedType(s *corev1.Service) (of struct {
	kind  corev1.ServiceType
	ports int
}) {
	if t := s.Spec.Type; t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer {
		of.kind, of.ports = t, nodePorts(s)
	}
	return of
}
