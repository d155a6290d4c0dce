package rig

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// node is the address of the namespace's only link (RFC 5737, TEST-NET-1).
var node = netip.MustParsePrefix("192.0.2.10/24")

// makeNetwork gives a fresh network namespace what a host has: a loopback, a
// link with an address, a default route. Nothing leaves it.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	out := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "outside"}, PeerName: "nowhere"}
	if err := netlink.LinkAdd(out); err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	peer, err := netlink.LinkByName(out.PeerName)
	if err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: node.Addr().AsSlice(), Mask: net.CIDRMask(node.Bits(), 32)}}
	if err := netlink.AddrAdd(out, address); err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	for _, link := range []netlink.Link{lo, peer, out} {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("make network: %w", err)
		}
	}
	route := &netlink.Route{LinkIndex: out.Attrs().Index, Gw: node.Masked().Addr().Next().AsSlice()}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	return nil
}
