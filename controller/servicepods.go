package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/podstate"
)

// ServicesOf are the services whose selector matches the pod's labels, before or
// after a change of it.
func ServicesOf(view client.View, services *api.Resource, old, new api.Object) []api.Key {
	if old != nil && new != nil && !concernsServices(old.(*corev1.Pod), new.(*corev1.Pod)) {
		return nil
	}
	var keys []api.Key
	any := old
	if any == nil {
		any = new
	}
	for o := range view.List(services, any.GetNamespace()) {
		s := o.(*corev1.Service)
		if len(s.Spec.Selector) == 0 {
			continue
		}
		selector := labels.Set(s.Spec.Selector).AsSelectorPreValidated()
		if old != nil && selector.Matches(labels.Set(old.GetLabels())) || new != nil && selector.Matches(labels.Set(new.GetLabels())) {
			keys = append(keys, api.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
	return keys
}

// concernsServices says whether a change of a pod can change its endpoint.
func concernsServices(a, b *corev1.Pod) bool {
	return podstate.Ready(a) != podstate.Ready(b) ||
		podstate.Finished(a) != podstate.Finished(b) ||
		(a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) ||
		a.Status.PodIP != b.Status.PodIP || a.Spec.NodeName != b.Spec.NodeName ||
		a.Spec.Hostname != b.Spec.Hostname || a.Spec.Subdomain != b.Spec.Subdomain ||
		!labels.Equals(a.Labels, b.Labels) || a.UID != b.UID
}

// ServicePods are the pods behind a service that have an address and have not
// ended.
func ServicePods(view client.View, pods *api.Resource, s *corev1.Service) []*corev1.Pod {
	selector := labels.Set(s.Spec.Selector).AsSelectorPreValidated()
	var out []*corev1.Pod
	for o := range view.List(pods, s.Namespace) {
		p := o.(*corev1.Pod)
		if p.Status.PodIP != "" && !podstate.Finished(p) && selector.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out
}

// TargetPort is the port of a pod to which a service's port leads; an error
// says that the pod has no port of that name.
func TargetPort(p *corev1.Pod, port *corev1.ServicePort) (int32, error) {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return port.Port, nil
		}
		return port.TargetPort.IntVal, nil
	}
	lists := [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers}
	for i, list := range lists {
		for _, c := range list {
			if i == 1 && (c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
				continue
			}
			for _, cp := range c.Ports {
				if cp.Name == port.TargetPort.StrVal && cp.Protocol == port.Protocol {
					return cp.ContainerPort, nil
				}
			}
		}
	}
	return 0, fmt.Errorf("pod %s/%s has no port named %q", p.Namespace, p.Name, port.TargetPort.StrVal)
}

// HostnameFor is the name under which a service's DNS shows the pod, or "".
func HostnameFor(s *corev1.Service, p *corev1.Pod) string {
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name && s.Namespace == p.Namespace {
		return p.Spec.Hostname
	}
	return ""
}

// PodReference is how an endpoint names its pod.
func PodReference(p *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
}

// ServiceOwner makes a service the owner of its endpoints.
func ServiceOwner(s *corev1.Service) metav1.OwnerReference {
	return *metav1.NewControllerRef(s, corev1.SchemeGroupVersion.WithKind("Service"))
}
