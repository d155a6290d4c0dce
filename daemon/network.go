package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/ledger"
	"hansa.dev/hansa/network/dns"
	"hansa.dev/hansa/network/pod"
	"hansa.dev/hansa/network/proxy"
)

// dnsPort is where a node answers DNS, at its own address in the pod network.
const dnsPort = 53

// startServices makes services reachable and their names known, from one feed.
func startServices(ctx context.Context, l *lifecycle, c Config, registry *api.Registry, view client.View, book *ledger.Ledger, resolver work.Resolver, log *slog.Logger) error {
	if err := book.Record("table", proxy.TableName(c.instance().id)); err != nil {
		return err
	}
	services := proxy.New(proxy.Config{
		Instance: c.instance().id, NodeName: c.NodeName,
		NodeCIDR: c.nodeRange(), ClusterCIDR: c.ClusterCIDR, ServiceCIDR: c.ServiceCIDR,
		Log: log, Clock: clock.RealClock{},
	}, proxy.NewLinux(c.instance().id))
	names := dns.New(dns.Config{
		Domain: c.ClusterDomain, Address: dnsAddress(c.ServiceCIDR),
		Ranges:    []netip.Prefix{c.ClusterCIDR, c.ServiceCIDR},
		Upstreams: upstreams(resolver), Log: log, Clock: clock.RealClock{},
	})
	cancel := feed(registry, view, services, names)
	l.cleanup("service feed", func() error { cancel(); return nil })
	names.SetSynced()
	if err := services.Flush(ctx); err != nil {
		return err
	}
	l.run("service proxy", services.Run)
	address := pod.NodeAddress(c.nodeRange())
	packets, listener, err := dns.Listen(ctx, netip.AddrPortFrom(address, dnsPort))
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("port %d of %s, at which pods ask for names, is in use by another program: let that one listen on the host's own addresses only", dnsPort, address)
	}
	if err != nil {
		return err
	}
	l.run("dns", func(ctx context.Context) error {
		return names.Serve(ctx, []net.PacketConn{packets}, []net.Listener{listener})
	})
	return nil
}

// feed tells proxy and DNS of services, slices and namespaces: of those there
// are before it returns, and of every change until cancelled.
func feed(registry *api.Registry, view client.View, p *proxy.Proxy, d *dns.Server) (cancel func()) {
	cancels := []func(){
		view.Subscribe(registry.Must("", "services"), func(old, new api.Object) {
			if s, ok := new.(*corev1.Service); ok {
				p.SetService(s)
				d.SetService(s)
				return
			}
			p.DeleteService(proxy.Key{Namespace: old.GetNamespace(), Name: old.GetName()})
			d.DeleteService(dns.Key{Namespace: old.GetNamespace(), Name: old.GetName()})
		}),
		view.Subscribe(registry.Must("discovery.k8s.io", "endpointslices"), func(old, new api.Object) {
			if s, ok := new.(*discoveryv1.EndpointSlice); ok {
				p.SetSlice(s)
				d.SetSlice(s)
				return
			}
			p.DeleteSlice(proxy.Key{Namespace: old.GetNamespace(), Name: old.GetName()})
			d.DeleteSlice(dns.Key{Namespace: old.GetNamespace(), Name: old.GetName()})
		}),
		view.Subscribe(registry.Must("", "namespaces"), func(old, new api.Object) {
			if new != nil {
				d.SetNamespace(new.GetName())
				return
			}
			d.DeleteNamespace(old.GetName())
		}),
	}
	return func() {
		for _, c := range cancels {
			c()
		}
	}
}

// upstreams are the host's own name servers.
func upstreams(r work.Resolver) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range r.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}
