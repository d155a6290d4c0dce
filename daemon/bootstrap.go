package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller/servicecidr"
	"hansa.dev/hansa/network/pod"
)

// ensureObjects makes the objects that every API server makes: namespaces, roles,
// priority classes, the range of service addresses, and the service by which the
// API is reached. It returns when all are there.
func ensureObjects(ctx context.Context, c client.Interface, cfg Config, port int32, now time.Time) error {
	for {
		writes, err := bootstrap.Plan(c.Registry(), c.View())
		if err != nil {
			return fmt.Errorf("plan the objects of every cluster: %w", err)
		}
		if len(writes) == 0 {
			break
		}
		if err := carryOut(ctx, c, writes); err != nil {
			return err
		}
	}
	ranges := servicecidr.NewDefault(c, events.Discard, cfg.ServiceCIDR.String())
	if _, err := ranges.Step(ctx, api.Key{Name: kinds.DefaultServiceCIDR}, now); err != nil {
		return err
	}
	if err := ensureService(ctx, c, bootstrap.KubernetesService(cfg.ServiceCIDR.Addr().Next(), port)); err != nil {
		return err
	}
	if cfg.NoEndpoints {
		return nil
	}
	var servers []netip.Addr
	if cfg.AdvertiseAddress.IsValid() {
		servers = append(servers, cfg.AdvertiseAddress)
	}
	endpoints, slice := bootstrap.KubernetesEndpoints(port, servers...)
	if err := ensure(ctx, c, c.Registry().Must("", "endpoints"), endpoints, func(have, want api.Object) bool {
		return equality.Semantic.DeepEqual(have.(*corev1.Endpoints).Subsets, want.(*corev1.Endpoints).Subsets)
	}); err != nil {
		return err
	}
	return ensure(ctx, c, c.Registry().Must("discovery.k8s.io", "endpointslices"), slice, sameEndpoints)
}

// ensureDNS makes the service of DNS, which this node answers.
func ensureDNS(ctx context.Context, c client.Interface, cfg Config) error {
	if err := ensureService(ctx, c, dnsService(cfg)); err != nil {
		return err
	}
	return ensure(ctx, c, c.Registry().Must("discovery.k8s.io", "endpointslices"), dnsEndpoints(cfg), sameEndpoints)
}

// carryOut does the writes of one plan in few transactions.
func carryOut(ctx context.Context, c client.Interface, writes []bootstrap.Write) error {
	var batch []client.Write
	for _, w := range writes {
		if w.Delete != nil {
			if err := c.Delete(ctx, api.RefTo(w.Resource, w.Delete), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("replace %s: %w", api.RefTo(w.Resource, w.Delete), err)
			}
			continue
		}
		batch = append(batch, client.Write{Resource: w.Resource, Create: w.Create, Update: w.Update})
	}
	for i, r := range c.Batch(ctx, batch) {
		if r.Err != nil && !apierrors.IsAlreadyExists(r.Err) && !apierrors.IsConflict(r.Err) {
			return fmt.Errorf("make one of the %s of every cluster: %w", batch[i].Resource.Plural, r.Err)
		}
	}
	return nil
}

// dnsService is the service at which pods find DNS. It has no selector: each
// node answers at its address itself.
func dnsService(cfg Config) *corev1.Service {
	address := dnsAddress(cfg.ServiceCIDR).String()
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "kube-dns",
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: address, ClusterIPs: []string{address},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
			Ports: []corev1.ServicePort{
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
				{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)},
			},
		},
	}
}

// dnsEndpoints says that this node answers DNS.
func dnsEndpoints(cfg Config) *discoveryv1.EndpointSlice {
	port := func(name string, protocol corev1.Protocol) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: ptr.To[int32](dnsPort)}
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "kube-dns-" + cfg.NodeName,
			Labels: map[string]string{discoveryv1.LabelServiceName: "kube-dns", discoveryv1.LabelManagedBy: "hansa.dev"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses:  []string{pod.NodeAddress(cfg.nodeRange()).String()},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			NodeName:   &cfg.NodeName,
		}},
		Ports: []discoveryv1.EndpointPort{port("dns", corev1.ProtocolUDP), port("dns-tcp", corev1.ProtocolTCP)},
	}
}

// dnsAddress is the tenth address of the service range.
func dnsAddress(services netip.Prefix) netip.Addr {
	a := services.Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// ensureService leaves a service that is there alone: people may have changed
// it.
func ensureService(ctx context.Context, c client.Interface, s *corev1.Service) error {
	return ensure(ctx, c, c.Registry().Must("", "services"), s, func(_, _ api.Object) bool { return true })
}

// ensure creates an object that is missing, and replaces one that is not the
// same.
func ensure(ctx context.Context, c client.Interface, r *api.Resource, want api.Object, same func(have, want api.Object) bool) error {
	ref := api.RefTo(r, want)
	have := c.View().Get(r, ref.Key())
	var err error
	switch {
	case have == nil:
		_, err = c.Create(ctx, r, want, metav1.CreateOptions{})
	case !same(have, want):
		want.SetResourceVersion(have.GetResourceVersion())
		want.SetUID(have.GetUID())
		_, err = c.Update(ctx, r, want, "")
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make %s: %w", ref, err)
	}
	return nil
}
