package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var pods atomic.Int32

// Forwarding makes the host a router.
func Forwarding(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// Pod makes a namespace connected to the host as package network/pod connects
// pods: a routed veth pair with one /32 address. The link goes with the test.
func Pod(t testing.TB, ip string) *NS {
	t.Helper()
	n := New(t)
	addr := netip.MustParseAddr(ip)
	name := fmt.Sprintf("hansatest%d", pods.Add(1))
	hostMAC := net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	b := addr.As4()
	podMAC := net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("pod %s: %v", ip, err)
		}
	}
	fatal(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hostMAC},
		PeerName:  "eth0", PeerHardwareAddr: podMAC, PeerNamespace: netlink.NsFd(n.h),
	}))
	host, err := netlink.LinkByName(name)
	fatal(err)
	t.Cleanup(func() { _ = netlink.LinkDel(host) })
	single := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	fatal(os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0))
	fatal(netlink.LinkSetUp(host))
	fatal(netlink.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: podMAC}))
	fatal(netlink.RouteAdd(&netlink.Route{LinkIndex: host.Attrs().Index, Dst: single, Scope: netlink.SCOPE_LINK}))
	gateway := net.IPv4(169, 254, 1, 1)
	n.Must(func() error {
		up(t, "lo", "")
		up(t, "eth0", ip+"/32")
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		index := l.Attrs().Index
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: hostMAC}); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway})
	})
	return n
}
