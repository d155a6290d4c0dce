package proxy

import "hansa.dev/hansa/network/internal/nft"

// MasqueradeMark is the bit of the packet mark between the decision to replace
// a packet's source and the hook where that is done. It is the bit Kubernetes
// uses for this, so that other software leaves it alone.
const MasqueradeMark uint32 = 1 << 14

// Sets that services share.
const (
	setServiceIPs          = "service-ips"
	setNodePorts           = "nodeports"
	setNoEndpoints         = "no-endpoints"
	setNoEndpointNodePorts = "no-endpoint-nodeports"
	setHairpin             = "hairpin"
)

// Chains that services share.
const (
	chainServices = "services"
	chainReject   = "reject-all"
	chainDrop     = "drop-all"
)

const (
	prioDestination = -100
	prioFilter      = -10 // before other tables' filters, to answer what they would drop
	prioSource      = 100
)

// base is what the table holds without any service.
func base(c Config) *nft.State {
	s := nft.NewState()
	verdict := []nft.Type{nft.VerdictType}
	byAddr := []nft.Type{nft.IPv4Addr, nft.InetProto, nft.InetService}
	byPort := []nft.Type{nft.InetProto, nft.InetService}
	for _, set := range []*nft.Set{
		{Name: setServiceIPs, Key: byAddr, Data: verdict},
		{Name: setNoEndpoints, Key: byAddr, Data: verdict},
		{Name: setNodePorts, Key: byPort, Data: verdict},
		{Name: setNoEndpointNodePorts, Key: byPort, Data: verdict},
		{Name: setHairpin, Key: []nft.Type{nft.IPv4Addr, nft.IPv4Addr}},
	} {
		s.AddSet(set)
	}
	translate := []nft.Rule{nft.Of(nft.Jump(chainServices))}
	// What is still for a service address after translation has no endpoint,
	// or no service, behind it.
	unreached := []nft.Rule{
		nft.Of(nft.NewConnection(), nft.VerdictMap(setNoEndpoints, nft.DstIPv4, nft.L4Proto, nft.DstPort)),
		nft.Of(nft.NewConnection(), nft.ToLocal(), nft.VerdictMap(setNoEndpointNodePorts, nft.L4Proto, nft.DstPort)),
		nft.Of(nft.NewConnection(), nft.DAddr(c.ServiceCIDR), nft.Reject()),
	}
	for _, ch := range []*nft.Chain{
		{Name: "translate-in", Hook: &nft.Hook{Point: nft.Prerouting, Kind: nft.NAT, Priority: prioDestination}, Rules: translate},
		{Name: "translate-out", Hook: &nft.Hook{Point: nft.Output, Kind: nft.NAT, Priority: prioDestination}, Rules: translate},
		{Name: chainServices, Rules: []nft.Rule{
			nft.Of(nft.VerdictMap(setServiceIPs, nft.DstIPv4, nft.L4Proto, nft.DstPort)),
			nft.Of(nft.ToLocal(), nft.VerdictMap(setNodePorts, nft.L4Proto, nft.DstPort)),
		}},
		{Name: "unreached-in", Hook: &nft.Hook{Point: nft.Input, Kind: nft.Filter, Priority: prioFilter}, Rules: unreached},
		{Name: "unreached-forward", Hook: &nft.Hook{Point: nft.Forward, Kind: nft.Filter, Priority: prioFilter}, Rules: unreached},
		{Name: "unreached-out", Hook: &nft.Hook{Point: nft.Output, Kind: nft.Filter, Priority: prioFilter}, Rules: unreached},
		{Name: chainReject, Rules: []nft.Rule{nft.Of(nft.Reject())}},
		{Name: chainDrop, Rules: []nft.Rule{nft.Of(nft.Drop())}},
		{Name: "masquerade", Hook: &nft.Hook{Point: nft.Postrouting, Kind: nft.NAT, Priority: prioSource}, Rules: []nft.Rule{
			nft.Of(nft.MarkSet(MasqueradeMark), nft.ClearMark(MasqueradeMark), nft.Masquerade()),
			nft.Of(nft.WasDNATed(), nft.InSet(setHairpin, nft.SrcIPv4, nft.DstIPv4), nft.Masquerade()),
		}},
	} {
		s.AddChain(ch)
	}
	return s
}
