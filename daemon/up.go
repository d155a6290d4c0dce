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
	"time"

	"github.com/vishvananda/netlink"

	apihttp "hansa.dev/hansa/apiserver/http"
)

// Up runs server and node in one process until the context ends. It prints one
// line on out when the cluster is ready, and logs to logs.
func Up(ctx context.Context, c Config, out, logs io.Writer) (err error) {
	start := time.Now()
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: c.LogLevel}))
	if err := preflight(thisHost()); err != nil {
		return err
	}
	if c, err = complete(c); err != nil {
		return err
	}
	i := c.instance()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	held, err := takeLock(i)
	if err != nil {
		return err
	}
	l := newLifecycle(ctx)
	l.cleanup("lock", held.release)
	defer func() { err = errors.Join(err, l.stop()) }()

	listener, err := freePort(c.Listen)
	if err != nil {
		return err
	}
	p, err := startControlPlane(l.ctx, l, c, listener, func(*controlPlane) map[string]apihttp.Connector { return nil }, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	renew, err := p.authority.WriteAdminKubeconfig(i.kubeconfig(), "https://"+c.address())
	if err != nil {
		return err
	}
	l.run("kubeconfig", func(ctx context.Context) error {
		p.authority.KeepAdminKubeconfig(ctx, i.kubeconfig(), "https://"+c.address(), renew)
		return ctx.Err()
	})
	fmt.Fprintf(out, "hansa: ready in %.2fs, node %s, kubeconfig %s\n", time.Since(start).Seconds(), c.NodeName, i.kubeconfig())
	return l.wait()
}

// complete finds out what the configuration leaves to the host.
func complete(c Config) (Config, error) {
	if !c.NodeIP.IsValid() {
		ip, err := defaultAddress()
		if err != nil {
			return c, fmt.Errorf("find this node's address: %w; give one with --node-ip", err)
		}
		c.NodeIP = ip
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
