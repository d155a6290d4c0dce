package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	apihttp "hansa.dev/hansa/apiserver/http"
)

// The proxy subresources lead to [SCHEME:]NAME[:PORT] of a node, a pod or a
// service. Invariant: they lead to a node's or a pod's own address only, never
// to what somebody wrote into a status or an endpoint to reach the machine that
// the API runs on.

// forward passes a request on to a host; it is plain HTTP unless the scheme
// says otherwise.
func (x *proxies) forward(w http.ResponseWriter, r *http.Request, c *apihttp.Connection, scheme, host string) error {
	if scheme == "https" {
		return apihttp.Proxy(w, r, c, &url.URL{Scheme: scheme, Host: host}, x.secure)
	}
	return apihttp.Proxy(w, r, c, &url.URL{Scheme: "http", Host: host}, x.plain)
}

// nodeProxy proxies to a node's API, or to another port of the node.
func (x *proxies) nodeProxy(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(c.Info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", c.Info.Name))
	}
	u, err := x.nodeURL(name)
	if err != nil {
		return err
	}
	if err := proxyable(r.Context(), u.Hostname()); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if port == "" || port == u.Port() {
		return apihttp.Proxy(w, r, c, u, x.node)
	}
	return x.forward(w, r, c, scheme, net.JoinHostPort(u.Hostname(), port))
}

// proxyable demands that a host is known by addresses that others reach, too.
func proxyable(ctx context.Context, host string) error {
	addresses, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if !a.IP.IsGlobalUnicast() {
			return fmt.Errorf("address not allowed")
		}
	}
	return nil
}

// pod proxies to a port of a pod, by default the first that it declares, else
// the scheme's own.
func (x *proxies) pod(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(c.Info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", c.Info.Name))
	}
	p, found := x.view.Get(x.pods, api.Key{Namespace: c.Info.Namespace, Name: name}).(*corev1.Pod)
	if !found {
		return apierrors.NewNotFound(x.pods.GroupResource(), name)
	}
	for _, ctr := range p.Spec.Containers {
		if port == "" && len(ctr.Ports) > 0 {
			port = strconv.Itoa(int(ctr.Ports[0].ContainerPort))
		}
	}
	var address string
	if len(p.Status.PodIPs) > 0 {
		address = p.Status.PodIPs[0].IP
	}
	if ip := net.ParseIP(address); ip == nil || !ip.IsGlobalUnicast() {
		return apierrors.NewBadRequest("address not allowed")
	}
	return x.forward(w, r, c, scheme, strings.TrimSuffix(net.JoinHostPort(address, port), ":"))
}

// service proxies to a ready endpoint behind a port of a service, which is
// given by its name or number; the port without a name needs neither.
func (x *proxies) service(w http.ResponseWriter, r *http.Request, c *apihttp.Connection) error {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(c.Info.Name)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", c.Info.Name))
	}
	if number, err := strconv.ParseInt(port, 10, 64); err == nil {
		if port, err = x.portName(c.Info.Namespace, name, number); err != nil {
			return err
		}
	}
	hosts := x.endpoints(c.Info.Namespace, name, port)
	if len(hosts) == 0 {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	return x.forward(w, r, c, scheme, hosts[rand.IntN(len(hosts))])
}

// ResolveEndpoint finds who answers behind a port of a service, for webhooks.
func (x *proxies) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	host, err := x.extension(namespace, name, port)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}

// portName is the name of a service's port with a number.
func (x *proxies) portName(namespace, name string, number int64) (string, error) {
	s, found := x.view.Get(x.services, api.Key{Namespace: namespace, Name: name}).(*corev1.Service)
	if !found {
		return "", apierrors.NewNotFound(x.services.GroupResource(), name)
	}
	for _, p := range s.Spec.Ports {
		if int64(p.Port) == number {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
}

// endpoints are the ready addresses of pods behind a port of a service, those of
// IPv4 if there are any.
func (x *proxies) endpoints(namespace, service, port string) []string {
	return x.ready(namespace, service, port, func(e *discoveryv1.Endpoint) bool { return x.isPod(namespace, e) })
}

// ready are the ready addresses behind a port of a service that are allowed.
func (x *proxies) ready(namespace, service, port string, allowed func(*discoveryv1.Endpoint) bool) []string {
	hosts := map[discoveryv1.AddressType][]string{}
	for o := range x.view.List(x.slices, namespace) {
		sl := o.(*discoveryv1.EndpointSlice)
		if sl.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, p := range sl.Ports {
			if p.Name == nil || *p.Name != port || p.Port == nil {
				continue
			}
			for _, e := range sl.Endpoints {
				if ptr.Deref(e.Conditions.Ready, true) && len(e.Addresses) > 0 && allowed(&e) {
					hosts[sl.AddressType] = append(hosts[sl.AddressType], net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	if four := hosts[discoveryv1.AddressTypeIPv4]; len(four) > 0 {
		return four
	}
	return hosts[discoveryv1.AddressTypeIPv6]
}

// isPod says whether an endpoint is a pod of the namespace, at an address of
// that pod.
func (x *proxies) isPod(namespace string, e *discoveryv1.Endpoint) bool {
	if e.TargetRef == nil || e.TargetRef.Namespace != namespace || len(e.Addresses) == 0 {
		return false
	}
	p, ok := x.view.Get(x.pods, api.Key{Namespace: namespace, Name: e.TargetRef.Name}).(*corev1.Pod)
	if !ok {
		return false
	}
	for _, ip := range p.Status.PodIPs {
		if ip.IP == e.Addresses[0] {
			return true
		}
	}
	return false
}
