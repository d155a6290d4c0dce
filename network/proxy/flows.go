package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hansa.dev/hansa/network/internal/nft"
)

// Flows says where packets to an address may go on going. UDP has no end that
// the kernel would see: without being told it sends a client's packets where
// it sent the first, be the endpoint gone, or come only later.
type Flows struct {
	// Dst is the address that clients use. An invalid address stands for every
	// address of the host (a node port).
	Dst netip.AddrPort
	// Keep are the endpoints behind it now. All other UDP flows to Dst are to
	// be forgotten.
	Keep []netip.AddrPort
}

func (f Flows) String() string {
	to := fmt.Sprintf("*:%d", f.Dst.Port())
	if f.Dst.Addr().IsValid() {
		to = f.Dst.String()
	}
	keep := make([]string, len(f.Keep))
	for i, k := range f.Keep {
		keep[i] = k.String()
	}
	return "udp to " + to + " only by [" + strings.Join(keep, " ") + "]"
}

// changedFlows lists the addresses whose endpoints differ between two plans of
// a service; either may be nil.
func changedFlows(old, new *servicePlan) []Flows {
	var out []Flows
	was, is := udpEndpoints(old), udpEndpoints(new)
	for dst, eps := range was {
		if now, ok := is[dst]; !ok || !slices.Equal(eps, now) {
			out = append(out, Flows{dst, now})
		}
	}
	for dst, eps := range is {
		if _, ok := was[dst]; !ok {
			out = append(out, Flows{dst, eps})
		}
	}
	slices.SortFunc(out, func(a, b Flows) int { return a.Dst.Compare(b.Dst) })
	return out
}

// udpEndpoints maps the UDP addresses of a plan to their endpoints, sorted.
func udpEndpoints(p *servicePlan) map[netip.AddrPort][]netip.AddrPort {
	out := map[netip.AddrPort][]netip.AddrPort{}
	if p == nil {
		return out
	}
	for _, port := range p.ports {
		if port.proto != nft.UDP {
			continue
		}
		eps := slices.Concat(port.all, port.local)
		slices.SortFunc(eps, netip.AddrPort.Compare)
		eps = slices.Compact(eps)
		for _, vip := range port.vips {
			out[vip] = eps
		}
		if port.nodePort != 0 {
			out[netip.AddrPortFrom(netip.Addr{}, port.nodePort)] = eps
		}
	}
	return out
}
