package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hansa.dev/hansa/network/internal/dump"
)

// gateway is the next hop of every pod: link-local and nobody's.
var gateway = netip.MustParseAddr("169.254.1.1")

// hostMAC is the hardware address of the host's end of every pod link. It may
// be the same on all, because each link is a network of its own; being set, no
// other program gives the link another one.
var hostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// routeProtocol marks host routes that no link of ours takes along when it
// goes: its own number among those left to daemons (rtnetlink(7)).
const routeProtocol = netlink.RouteProtocol(0x48)

const fallbackMTU = 1500

// linkName is the name of the host's end, unique for instance, container and
// interface: a name may have 15 characters.
func linkName(instance, container, ifname string) string {
	h := sha256.Sum256([]byte(instance + "/" + container + "/" + ifname))
	return "hansa" + hex.EncodeToString(h[:5])
}

// podMAC is the hardware address of the pod's end, locally administered.
func podMAC(link string) net.HardwareAddr {
	h := sha256.Sum256([]byte(link))
	return net.HardwareAddr{h[0]&0xfc | 2, h[1], h[2], h[3], h[4], h[5]}
}

// aliasPrefix starts the alias of every link of the instance.
func aliasPrefix(instance string) string { return "hansa-" + instance + " " }

func nodeLink(instance string) string { return "hansa-" + instance }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func notFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, syscall.ENODEV)
}

// routesBy lists IPv4 routes, those that agree with like in the fields of mask.
func routesBy(like *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return dump.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, like, mask)
	})
}

// hostMTU is the size of packets that can leave the host: that of the default
// route's link, or of an Ethernet if there is no default route.
func hostMTU() (int, error) {
	routes, err := routesBy(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	best := -1
	mtu := fallbackMTU
	for _, r := range routes {
		index := r.LinkIndex
		if index == 0 && len(r.MultiPath) > 0 {
			index = r.MultiPath[0].LinkIndex
		}
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || index == 0 || best >= 0 && r.Priority >= best {
			continue
		}
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			if notFound(err) {
				continue
			}
			return 0, fmt.Errorf("find link of the default route: %w", err)
		}
		best, mtu = r.Priority, l.Attrs().MTU
		if r.MTU > 0 {
			mtu = min(mtu, r.MTU)
		}
	}
	return mtu, nil
}

// conflict finds a foreign route inside one of our ranges: its destinations
// would be out of reach for us, or ours for the host.
func conflict(instance string, ranges ...netip.Prefix) error {
	routes, err := routesBy(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Protocol == routeProtocol {
			continue
		}
		addr, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(addr.Unmap(), bits)
		for _, own := range ranges {
			if !own.Contains(dst.Addr()) || dst.Bits() < own.Bits() {
				continue
			}
			name := "?"
			if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				if strings.HasPrefix(l.Attrs().Alias, aliasPrefix(instance)) {
					continue
				}
				name = l.Attrs().Name
			}
			return fmt.Errorf("range %s is taken on this host: there is a route to %s by link %s; choose another range with --cluster-cidr or --service-cidr", own, dst, name)
		}
	}
	return nil
}

// ensureNodeLink makes the link hansa-INSTANCE with the node's address, the
// route for services, and the refusal of pod addresses nobody has.
func ensureNodeLink(c Config) error {
	name := nodeLink(c.Instance)
	link, err := netlink.LinkByName(name)
	if notFound(err) {
		if err := c.record("link", name); err != nil {
			return err
		}
		err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{
			Name: name, Alias: aliasPrefix(c.Instance) + "node", HardwareAddr: podMAC(name),
		}})
		if err != nil {
			return fmt.Errorf("make link %s: %w", name, err)
		}
		// Not every kernel takes an alias while it makes a link.
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, aliasPrefix(c.Instance)+"node"); err != nil {
		return fmt.Errorf("set alias of link %s: %w", name, err)
	}
	if err := quietIPv6(link); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	addr := NodeAddress(c.NodeCIDR)
	if err := onlyAddress(link, single(addr)); err != nil {
		return err
	}
	if err := c.record("route", c.NodeCIDR.Masked().String()); err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, r := range []*netlink.Route{
		{LinkIndex: link.Attrs().Index, Dst: ipNet(c.ServiceCIDR.Masked()), Src: addr.AsSlice(), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol},
		{Dst: ipNet(c.NodeCIDR.Masked()), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol},
	} {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("set route %s: %w", r.Dst, err)
		}
		wanted[r.Dst.String()] = true
	}
	return removeRoutes(link.Attrs().Index, wanted)
}

// onlyAddress gives a link one IPv4 address and takes others away, which it
// has from a run with another range.
func onlyAddress(link netlink.Link, p netip.Prefix) error {
	name := link.Attrs().Name
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("set address %s of link %s: %w", p, name, err)
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list addresses of link %s: %w", name, err)
	}
	for _, a := range addrs {
		if a.IPNet.String() == ipNet(p).String() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("delete address %s of link %s: %w", a.IPNet, name, err)
		}
	}
	return nil
}

// quietIPv6 keeps the kernel from giving the link an IPv6 address of its own.
func quietIPv6(link netlink.Link) error {
	const addrGenModeNone = 1
	err := netlink.LinkSetIP6AddrGenMode(link, addrGenModeNone)
	if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("switch off automatic IPv6 addresses of link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// removeRoutes deletes routes of ours that are not pods': those by the link of
// that index, and those that no link takes along; but those to destinations in
// keep stay.
func removeRoutes(index int, keep map[string]bool) error {
	routes, err := routesBy(&netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	var errs []error
	for _, r := range routes {
		ours := r.Type == unix.RTN_UNREACHABLE || index != 0 && r.LinkIndex == index
		if !ours || keep[r.Dst.String()] {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route %s: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// connect makes the pod's link and everything on both its ends. Its steps are
// idempotent: it completes what an interrupted one began.
func connect(c Config, r *Record, ns netns.NsHandle) error {
	mtu, err := hostMTU()
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return fmt.Errorf("record of container %s: %w", r.ContainerID, err)
	}
	host, err := netlink.LinkByName(r.Link)
	if notFound(err) {
		if err := c.record("link", r.Link); err != nil {
			return err
		}
		err = netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:        netlink.LinkAttrs{Name: r.Link, MTU: mtu, HardwareAddr: hostMAC, NumTxQueues: 1, NumRxQueues: 1},
			PeerName:         r.IfName,
			PeerHardwareAddr: mac,
			PeerNamespace:    netlink.NsFd(ns),
			PeerNumTxQueues:  1,
			PeerNumRxQueues:  1,
			PeerMTU:          uint32(mtu),
		})
		if err != nil {
			return fmt.Errorf("make link %s with %s in %s: %w", r.Link, r.IfName, r.Netns, err)
		}
		host, err = netlink.LinkByName(r.Link)
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", r.Link, err)
	}
	if err := netlink.LinkSetAlias(host, aliasPrefix(c.Instance)+r.podName()); err != nil {
		return fmt.Errorf("set alias of link %s: %w", r.Link, err)
	}
	if err := configurePodEnd(r, ns, mac); err != nil {
		return err
	}
	return configureHostEnd(r, host, mac)
}

func configureHostEnd(r *Record, host netlink.Link, podMAC net.HardwareAddr) error {
	if err := quietIPv6(host); err != nil {
		return err
	}
	// Host and node ports are open on 127.0.0.1 as well: packets from there may
	// leave by pod links. The rules let nothing come back that was not asked for.
	if err := writeSysctl("net/ipv4/conf/"+r.Link+"/route_localnet", "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("set link %s up: %w", r.Link, err)
	}
	index := host.Attrs().Index
	for _, ip := range r.IPs {
		if err := netlink.NeighSet(permanent(index, ip, podMAC)); err != nil {
			return fmt.Errorf("set neighbour %s on link %s: %w", ip, r.Link, err)
		}
		route := &netlink.Route{LinkIndex: index, Dst: ipNet(single(ip)), Scope: netlink.SCOPE_LINK, Protocol: routeProtocol}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("set route to %s by link %s: %w", ip, r.Link, err)
		}
	}
	return nil
}

func permanent(index int, ip netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac}
}

func configurePodEnd(r *Record, ns netns.NsHandle, mac net.HardwareAddr) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", r.Netns, err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up in %s: %w", r.Netns, err)
	}
	link, err := h.LinkByName(r.IfName)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", r.IfName, r.Netns, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up in %s: %w", r.IfName, r.Netns, err)
	}
	index := link.Attrs().Index
	for _, ip := range r.IPs {
		if err := h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(single(ip))}); err != nil {
			return fmt.Errorf("set address %s of %s in %s: %w", ip, r.IfName, r.Netns, err)
		}
	}
	if err := h.NeighSet(permanent(index, gateway, hostMAC)); err != nil {
		return fmt.Errorf("set neighbour %s in %s: %w", gateway, r.Netns, err)
	}
	routes := []*netlink.Route{
		{LinkIndex: index, Dst: ipNet(single(gateway)), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: gateway.AsSlice()},
	}
	for _, route := range routes {
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("set route %s in %s: %w", route.Dst, r.Netns, err)
		}
	}
	return nil
}

// disconnect removes the pod's link, and with it addresses and routes.
func disconnect(link string) error {
	l, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !notFound(err) {
		return fmt.Errorf("delete link %s: %w", link, err)
	}
	return nil
}

// verify reports what of the pod's connection is not as it should be.
func verify(r *Record, ns netns.NsHandle) error {
	host, err := netlink.LinkByName(r.Link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", r.Link, err)
	}
	if host.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("link %s is down", r.Link)
	}
	for _, ip := range r.IPs {
		routes, err := routesBy(&netlink.Route{LinkIndex: host.Attrs().Index, Dst: ipNet(single(ip))}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
		if err != nil {
			return fmt.Errorf("list routes of link %s: %w", r.Link, err)
		}
		if len(routes) == 0 {
			return fmt.Errorf("no route to %s by link %s", ip, r.Link)
		}
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", r.Netns, err)
	}
	defer h.Close()
	link, err := h.LinkByName(r.IfName)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", r.IfName, r.Netns, err)
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list addresses of %s in %s: %w", r.IfName, r.Netns, err)
	}
	have := map[string]bool{}
	for _, a := range addrs {
		have[a.IP.String()] = true
	}
	for _, ip := range r.IPs {
		if !have[ip.String()] {
			return fmt.Errorf("%s in %s lacks address %s", r.IfName, r.Netns, ip)
		}
	}
	return nil
}

// removeLinks deletes every link of the instance, known or not.
func removeLinks(instance string) error {
	all, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Alias, aliasPrefix(instance)) || l.Attrs().Name == nodeLink(instance) {
			errs = append(errs, disconnect(l.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

// nsExists reports whether a path still names a network namespace. A file that
// is left after its namespace was unmounted does not.
func nsExists(path string) bool {
	if path == "" {
		return false
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	return st.Type == unix.NSFS_MAGIC || st.Type == unix.PROC_SUPER_MAGIC
}
