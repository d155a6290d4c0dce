package pod

import (
	"net/netip"

	"hansa.dev/hansa/network/internal/nft"
)

// links matches every link of ours by name.
const links = "hansa*"

// ForwardMark is the bit of the packet mark that forwarded pod packets carry
// through the forward hook, and there only. It lets one rule in a foreign
// chain accept both directions, in words that iptables understands too.
const ForwardMark uint32 = 1 << 12

// Sets of the table.
const (
	setHostPorts   = "hostports"    // any address of the host
	setHostIPPorts = "hostip-ports" // one address
	setHairpin     = "hairpin"      // pods that may meet themselves through a host port
)

// Priorities of base chains (Netfilter's own: raw -300, conntrack -200,
// mangle -150, dstnat -100, filter 0, srcnat 100).
const (
	prioRaw         = -300
	prioMark        = -160 // before any foreign chain that may drop
	prioDestination = -100
	prioFilter      = 0
	prioSource      = 100
	prioLast        = 300
)

// rules is what the instance's table holds without any pod.
func rules(c Config) *nft.State {
	s := nft.NewState()
	for _, set := range []*nft.Set{
		{Name: setHostPorts, Key: []nft.Type{nft.InetProto, nft.InetService}, Data: []nft.Type{nft.IPv4Addr, nft.InetService}},
		{Name: setHostIPPorts, Key: []nft.Type{nft.IPv4Addr, nft.InetProto, nft.InetService}, Data: []nft.Type{nft.IPv4Addr, nft.InetService}},
		{Name: setHairpin, Key: []nft.Type{nft.IPv4Addr, nft.IPv4Addr}},
	} {
		s.AddSet(set)
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	toPod := []nft.Rule{
		nft.Of(nft.DNATMap(setHostIPPorts, nft.DstIPv4, nft.L4Proto, nft.DstPort)),
		nft.Of(nft.ToLocal(), nft.DNATMap(setHostPorts, nft.L4Proto, nft.DstPort)),
	}
	for _, c := range []*nft.Chain{
		{Name: "from-pod", Hook: &nft.Hook{Point: nft.Prerouting, Kind: nft.Filter, Priority: prioRaw}, Rules: []nft.Rule{
			nft.Of(nft.IIFName(links), nft.NoReversePath(), nft.Drop()),
			// Links have route_localnet for host ports on 127.0.0.1; only the
			// host itself may use it.
			nft.Of(nft.IIFName(links), nft.DAddr(loopback), nft.Drop()),
		}},
		{Name: "mark", Hook: &nft.Hook{Point: nft.Forward, Kind: nft.Filter, Priority: prioMark}, Rules: []nft.Rule{
			// Packets outside their connection's window are not translated back;
			// a client would take such an answer for a stranger's and reset.
			nft.Of(nft.IIFName(links), nft.Invalid(), nft.Drop()),
			nft.Of(nft.IIFName(links), nft.SetMark(ForwardMark)),
			nft.Of(nft.OIFName(links), nft.SetMark(ForwardMark)),
		}},
		{Name: "unmark", Hook: &nft.Hook{Point: nft.Postrouting, Kind: nft.Filter, Priority: prioLast}, Rules: []nft.Rule{
			nft.Of(nft.MarkSet(ForwardMark), nft.ClearMark(ForwardMark)),
		}},
		// A pod that meets itself through the host comes and goes by one link;
		// without this the host would advise it of a shorter way.
		{Name: "to-pod", Hook: &nft.Hook{Point: nft.Output, Kind: nft.Filter, Priority: prioFilter}, Rules: []nft.Rule{
			nft.Of(nft.OIFName(links), nft.RedirectMessage(), nft.Drop()),
		}},
		{Name: "hostport-in", Hook: &nft.Hook{Point: nft.Prerouting, Kind: nft.NAT, Priority: prioDestination}, Rules: toPod},
		{Name: "hostport-out", Hook: &nft.Hook{Point: nft.Output, Kind: nft.NAT, Priority: prioDestination}, Rules: toPod},
		{Name: "masquerade", Hook: &nft.Hook{Point: nft.Postrouting, Kind: nft.NAT, Priority: prioSource}, Rules: []nft.Rule{
			nft.Of(nft.WasDNATed(), nft.InSet(setHairpin, nft.SrcIPv4, nft.DstIPv4), nft.Masquerade()),
			nft.Of(nft.OIFName(links), nft.SAddr(loopback), nft.Masquerade()),
			nft.Of(nft.NotOIFName(links), nft.SAddr(c.NodeCIDR), nft.NotDAddr(c.ClusterCIDR), nft.Masquerade()),
		}},
	} {
		s.AddChain(c)
	}
	return s
}

// hostPorts adds what the record's host ports need to s.
func hostPorts(s *nft.State, r *Record) {
	if len(r.IPs) == 0 {
		return
	}
	ip := r.IPs[0]
	for _, p := range r.HostPorts {
		to := nft.Concat(nft.Addr(ip), nft.Port(p.ContainerPort))
		if p.anyAddress() {
			s.AddElement(setHostPorts, nft.Concat(p.Protocol.Datum(), nft.Port(p.HostPort)), to)
		} else {
			s.AddElement(setHostIPPorts, nft.Concat(nft.Addr(p.HostIP), p.Protocol.Datum(), nft.Port(p.HostPort)), to)
		}
		s.AddElement(setHairpin, nft.Concat(nft.Addr(ip), nft.Addr(ip)), nft.Datum{})
	}
}

// elementsOf is the part of the table's state that the records add.
func elementsOf(records ...*Record) *nft.State {
	s := nft.NewState()
	for _, r := range records {
		hostPorts(s, r)
	}
	return s
}
