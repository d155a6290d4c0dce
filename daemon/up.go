package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/ledger"
	"hansa.dev/hansa/internal/reclaim"
	"hansa.dev/hansa/pki"
)

// Up runs server and node in one process until the context ends. It prints one
// line on out when the cluster is ready, and logs to logs.
func Up(ctx context.Context, c Config, out, logs io.Writer) (err error) {
	began := time.Now()
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: c.LogLevel}))
	quietLibraries(log)
	if err := preflight(thisHost()); err != nil {
		return err
	}
	if c, err = complete(c); err != nil {
		return err
	}
	i := c.instance()
	if err := i.claim(); err != nil {
		return err
	}
	held, err := takeLock(i)
	if err != nil {
		return err
	}
	l := newLifecycle(ctx)
	l.cleanup("lock", held.release)
	defer func() {
		if ctx.Err() != nil {
			err = nil // whoever is asked to end in the middle of a start does not fail at it
		}
		err = errors.Join(err, l.stop())
	}()

	listener, err := freePort(c.Listen, "listen")
	if err != nil {
		forgetUnused(i)
		return err
	}
	// Taken before anything is made: who shares our ports shares our network.
	nodeListener, err := freeNodePort()
	if err != nil {
		forgetUnused(i)
		return errors.Join(err, listener.Close())
	}
	l.cleanup("node API port", func() error {
		nodeListener.Close() //nolint:errcheck // who served there has closed it
		return nil
	})
	book, err := ledger.Open(i.ledgerFile())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	l.cleanup("ledger", book.Close)
	layout, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := checkNode(c.Node, "/proc", layout); err != nil {
		return errors.Join(err, listener.Close())
	}
	warnOf(c.Node, log)
	tree := cgroup.New(layout, i.cgroup(), book.Record)

	// The control plane and the container runtime need nothing of each other.
	var p *controlPlane
	var rt *nodeRuntime
	var start sync.WaitGroup
	var planeErr, runtimeErr error
	start.Go(func() { p, planeErr = startPlane(l, c, listener, log) })
	start.Go(func() { rt, runtimeErr = startRuntime(l.ctx, l, c, tree, layout, book, log) })
	start.Wait()
	if err := errors.Join(planeErr, runtimeErr); err != nil {
		return errors.Join(err, listener.Close())
	}
	network, err := startPodNetwork(l.ctx, l, c, book, log)
	if err != nil {
		return err
	}
	sweep := rt.looked
	rt.looked = func() {
		sweep()
		network.Repair()
	}
	nodeClient := p.as(pki.NodePrefix+c.NodeName, "kubelet", pki.NodesGroup)
	resolver, err := nodeResolver(c.Node)
	if err != nil {
		return err
	}
	if err := startServices(l.ctx, l, c, p.registry, nodeClient.View(), book, resolver, log); err != nil {
		return err
	}
	if _, err := startAgent(l, c, nodeListener, p.authority, p.authenticate, p.authorize, nodeClient, rt, tree, book, log); err != nil {
		return err
	}
	if !awaitNode(l.ctx, p, c.NodeName, began) {
		return l.wait()
	}
	fmt.Fprintf(out, "hansa: ready in %.2fs, node %s, kubeconfig %s\n", time.Since(began).Seconds(), c.NodeName, i.kubeconfig())
	defer reclaim.Start(clock.RealClock{}, p.handler.Codec.Forget, p.store.Relax).Stop()
	return l.wait()
}

// forgetUnused removes a data directory in which there is nothing but our lock.
func forgetUnused(i instance) {
	if entries, err := os.ReadDir(i.dir); err == nil && len(entries) == 1 && os.Remove(i.lockFile()) == nil {
		os.Remove(i.dir) //nolint:errcheck // it was no more than an empty directory
	}
}

// startPlane starts everything that is not of the node: the API, the objects
// that every cluster has, the administrator's kubeconfig, the loops.
func startPlane(l *lifecycle, c Config, listener net.Listener, log *slog.Logger) (*controlPlane, error) {
	authority, err := pki.Open(c.instance().path("pki"), pki.Options{Clock: clock.RealClock{}, Logger: log})
	if err != nil {
		return nil, err
	}
	k, err := ownKeys(c, authority)
	if err != nil {
		return nil, err
	}
	p, err := startControlPlane(l.ctx, l, c, k, listener, log)
	if err != nil {
		return nil, err
	}
	p.authority = authority
	kubeconfig, url := c.instance().kubeconfig(), "https://"+c.address()
	renew, err := p.authority.WriteAdminKubeconfig(kubeconfig, url)
	if err != nil {
		return nil, err
	}
	l.run("kubeconfig", func(ctx context.Context) error {
		p.authority.KeepAdminKubeconfig(ctx, kubeconfig, url, renew)
		return ctx.Err()
	})
	if err := p.begin(l.ctx, c, listener); err != nil {
		return nil, err
	}
	if err := ensureDNS(l.ctx, p.asServer("kube-apiserver"), c); err != nil {
		return nil, err
	}
	startScheduler(l, p, log)
	s := newLoops(l, p, log)
	s.startServer(c.ServiceCIDR)
	s.startManager()
	return p, nil
}

// awaitNode returns when the node is ready, as its agent has it since began;
// false when the context ended before.
func awaitNode(ctx context.Context, p *controlPlane, name string, began time.Time) bool {
	view := p.store.View()
	nodes, leases := p.registry.Must("", "nodes"), p.registry.Must("coordination.k8s.io", "leases")
	changed := make(chan struct{}, 1)
	for _, r := range []*api.Resource{nodes, leases} {
		defer view.Subscribe(r, func(_, _ api.Object) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})()
	}
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
		lease, ok := view.Get(leases, api.Key{Namespace: corev1.NamespaceNodeLease, Name: name}).(*coordinationv1.Lease)
		if !ok || lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Time.Before(began) {
			continue
		}
		n, ok := view.Get(nodes, api.Key{Name: name}).(*corev1.Node)
		if ok && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			return true
		}
	}
}

// complete finds out what the configuration leaves to the host.
func complete(c Config) (Config, error) {
	if c.Node == nil {
		c.Node = settings.Default()
	}
	if !c.NodeIP.IsValid() {
		ip, err := defaultAddress()
		if err != nil {
			return c, fmt.Errorf("find this node's address: %w; give one with --node-ip", err)
		}
		c.NodeIP = ip
	} else if !isOurs(c.NodeIP) {
		return c, fmt.Errorf("no link of this machine has the address %s, given with --node-ip", c.NodeIP)
	}
	if !c.AdvertiseAddress.IsValid() {
		c.AdvertiseAddress = c.NodeIP
	}
	return c, nil
}

// defaultAddress is the address from which this host reaches the world, or,
// where it cannot, the first global one of any link.
func defaultAddress() (netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Src.To4()); ok {
			return a, nil
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			if a, ok := firstAddress(link); ok {
				return a, nil
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		if a, ok := firstAddress(link); ok {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("no link has an IPv4 address")
}

// isOurs tells whether a link of this host has an address.
func isOurs(ip netip.Addr) bool {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		have, ok := netip.AddrFromSlice(a.IP.To4())
		return ok && have == ip
	})
}

func firstAddress(link netlink.Link) (netip.Addr, bool) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && ip.IsGlobalUnicast() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// quietLibraries takes what Kubernetes' libraries log, at level debug: they
// call an error what a client that hung up is.
func quietLibraries(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(demoted{log.Handler()}))
}

// demoted makes everything a message of level debug.
type demoted struct{ slog.Handler }

func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	// klog does not ask before it hands a record over.
	if !d.Enabled(ctx, r.Level) {
		return nil
	}
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}

func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}

func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }
