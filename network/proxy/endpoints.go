package proxy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"hansa.dev/hansa/network/internal/nft"
)

// An endpoint is one address and port behind a service port.
type endpoint struct {
	addr                        netip.AddrPort
	ready, serving, terminating bool
	local                       bool // on this node
	hint                        hint
}

// A hint says where an endpoint should be used.
type hint struct {
	node, zone       bool // here
	hasNode, hasZone bool // anywhere
}

// endpointsOf collects a service port's endpoints from the service's slices,
// sorted by address. An address in several slices counts once, with the
// conditions of the one that is readier.
func endpointsOf(c Config, sp *corev1.ServicePort, slicesOf []*discoveryv1.EndpointSlice) []endpoint {
	var out []endpoint
	for _, s := range slicesOf {
		if s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for i := range s.Ports {
			p := &s.Ports[i]
			if p.Port == nil || value(p.Name, "") != sp.Name || !sameProto(value(p.Protocol, corev1.ProtocolTCP), sp.Protocol) {
				continue
			}
			for j := range s.Endpoints {
				if e, ok := endpointOf(c, &s.Endpoints[j], uint16(*p.Port)); ok {
					out = append(out, e)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b endpoint) int {
		if d := a.addr.Compare(b.addr); d != 0 {
			return d
		}
		return rank(b) - rank(a)
	})
	return slices.CompactFunc(out, func(a, b endpoint) bool { return a.addr == b.addr })
}

func rank(e endpoint) int {
	switch {
	case e.ready:
		return 2
	case e.serving:
		return 1
	}
	return 0
}

func sameProto(a, b corev1.Protocol) bool {
	x, err := nft.ParseProto(string(a))
	y, err2 := nft.ParseProto(string(b))
	return err == nil && err2 == nil && x == y
}

func endpointOf(c Config, e *discoveryv1.Endpoint, port uint16) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	// Addresses of one endpoint are alike; clients may take the first.
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || !ip.Is4() {
		return endpoint{}, false
	}
	out := endpoint{
		addr:        netip.AddrPortFrom(ip, port),
		ready:       value(e.Conditions.Ready, true),
		terminating: value(e.Conditions.Terminating, false),
		local:       value(e.NodeName, "") == c.NodeName,
	}
	out.serving = value(e.Conditions.Serving, out.ready)
	if h := e.Hints; h != nil {
		out.hint.hasNode, out.hint.hasZone = len(h.ForNodes) > 0, len(h.ForZones) > 0
		out.hint.node = slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == c.NodeName })
		out.hint.zone = c.Zone != "" && slices.ContainsFunc(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == c.Zone })
	}
	return out, true
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// choose returns which endpoints get packets under policy Cluster and which
// under Local. Only when none is ready do those that terminate but still serve
// (KEP-1669); hints count when every ready endpoint has one and some are meant
// for here (Service.spec.trafficDistribution).
func choose(c Config, eps []endpoint) (all, local []netip.AddrPort) {
	ready := func(e endpoint) bool { return e.ready }
	draining := func(e endpoint) bool { return e.serving && e.terminating }
	if slices.ContainsFunc(eps, ready) {
		all = addresses(eps, ready, hinted(eps))
	} else {
		all = addresses(eps, draining)
	}
	isLocal := func(e endpoint) bool { return e.local }
	local = addresses(eps, ready, isLocal)
	if len(local) == 0 {
		local = addresses(eps, draining, isLocal)
	}
	return all, local
}

// hinted returns which of the ready endpoints are meant for this node.
func hinted(eps []endpoint) func(endpoint) bool {
	type level struct{ has, here func(endpoint) bool }
	for _, l := range []level{
		{func(e endpoint) bool { return e.hint.hasNode }, func(e endpoint) bool { return e.hint.node }},
		{func(e endpoint) bool { return e.hint.hasZone }, func(e endpoint) bool { return e.hint.zone }},
	} {
		every, any := true, false
		for _, e := range eps {
			if e.ready {
				every = every && l.has(e)
				any = any || l.here(e)
			}
		}
		if every && any {
			return l.here
		}
	}
	return func(endpoint) bool { return true }
}

func addresses(eps []endpoint, conditions ...func(endpoint) bool) []netip.AddrPort {
	var out []netip.AddrPort
next:
	for _, e := range eps {
		for _, ok := range conditions {
			if !ok(e) {
				continue next
			}
		}
		out = append(out, e.addr)
	}
	return out
}

// assign puts endpoints into slots 0..n-1. Those that had a slot in before keep
// it unless it is beyond the last, so that few elements change.
func assign(before, want []netip.AddrPort) []netip.AddrPort {
	out := make([]netip.AddrPort, len(want))
	placed := make(map[netip.AddrPort]bool, len(want))
	wanted := make(map[netip.AddrPort]bool, len(want))
	for _, w := range want {
		wanted[w] = true
	}
	for i, b := range before {
		if i < len(out) && wanted[b] {
			out[i] = b
			placed[b] = true
		}
	}
	free := 0
	for _, w := range want {
		if placed[w] {
			continue
		}
		for out[free].IsValid() {
			free++
		}
		out[free] = w
	}
	return out
}
