package daemon

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/auth/authn"
	"hansa.dev/hansa/controller/authentication"
	"hansa.dev/hansa/pki"
)

// startAggregation has group-versions answered by other servers, as APIServices
// say.
func startAggregation(l *lifecycle, p *controlPlane, log *slog.Logger) *aggregation.Server {
	s := aggregation.New(aggregation.Config{
		Registry: p.registry, View: p.store.View(), Resolve: newProxies(p).extension,
		TLS: p.keys.proxyTLS(), Clock: clock.RealClock{}, Log: log,
	})
	s.Sync(l.ctx) // what was there before is passed on from the first request
	l.run("aggregation", s.Run)
	return s
}

// extension finds who answers for a port of the service of an APIService or webhook: an
// endpoint that is ready, in a pod or not, or the host that an ExternalName is.
// Unlike the proxy subresources, which everybody uses who may write endpoints,
// this leads where an administrator has it lead, as it does in Kubernetes.
func (x *proxies) extension(namespace, name string, port int32) (string, error) {
	s, ok := x.view.Get(x.services, api.Key{Namespace: namespace, Name: name}).(*corev1.Service)
	if !ok {
		return "", apierrors.NewNotFound(x.services.GroupResource(), name)
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(s.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	named, err := x.portName(namespace, name, int64(port))
	if err != nil {
		return "", err
	}
	hosts := x.ready(namespace, name, named, func(*discoveryv1.Endpoint) bool { return true })
	if len(hosts) == 0 {
		return "", fmt.Errorf("no endpoints available for service %q", name)
	}
	return hosts[rand.IntN(len(hosts))], nil
}

// proxyTLS shows a certificate to the servers behind this one, if it has one.
func (k keys) proxyTLS() func() *tls.Config {
	if k.proxy == nil {
		return func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
	}
	return k.proxy.client
}

// frontProxies are whom this server believes about who asks: who has a certificate
// of the front proxies' authority and this server's own name as one. Nil: nobody.
func (p *controlPlane) frontProxies(clk clock.PassiveClock) *authn.FrontProxies {
	if p.keys.proxy == nil {
		return nil
	}
	return authn.NewFrontProxies(p.keys.proxy.roots, []string{pki.FrontProxyName}, authn.DefaultProxyHeaders(), clk)
}

// authenticationInfo is what servers behind this one have to know of it.
func (p *controlPlane) authenticationInfo() authentication.Info {
	if p.keys.proxy == nil {
		return authentication.Info{ClientCA: p.keys.clientCA}
	}
	headers := authn.DefaultProxyHeaders()
	return authentication.Info{
		ClientCA: p.keys.clientCA, ProxyCA: p.keys.proxy.pem, ProxyNames: []string{pki.FrontProxyName},
		UserHeaders: headers.User, UIDHeaders: headers.UID, GroupHeaders: headers.Group, ExtraPrefixes: headers.ExtraPrefix,
	}
}

// remoteContents empties namespaces of what other servers have in them.
func (p *controlPlane) remoteContents() *aggregation.Contents {
	return &aggregation.Contents{Server: p.aggregate, Authorizer: p.authorize, As: loopUser("namespace-controller")}
}
