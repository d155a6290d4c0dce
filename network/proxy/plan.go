package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"hansa.dev/hansa/network/internal/byservice"
	"hansa.dev/hansa/network/internal/nft"
)

// A Key names a service.
type Key = byservice.Key

// A ref is one element of a set that services share.
type ref struct {
	set string
	key nft.Datum
}

// A servicePlan is what one service needs.
type servicePlan struct {
	own    *nft.State        // chains, sets and their elements that no other service has
	claims map[ref]nft.Datum // elements of shared sets
	ports  []portPlan
	health *HealthCheck
}

// A portPlan is what of a service port later plans and flows depend on.
type portPlan struct {
	name       string // as in names of chains and sets
	proto      nft.Proto
	vips       []netip.AddrPort // addresses and ports it is reached at
	nodePort   uint16
	all, local []netip.AddrPort // endpoints by slot, see assign
}

// reached reports whether the port has any endpoint.
func (p *portPlan) reached() bool { return len(p.all)+len(p.local) > 0 }

// planService decides what the node needs for a service. before is the plan
// that is in force for it, or nil: endpoints keep their slots in it. It reads
// its arguments and keeps none of them.
func planService(c Config, svc *corev1.Service, eps []*discoveryv1.EndpointSlice, before *servicePlan) *servicePlan {
	plan := &servicePlan{own: nft.NewState(), claims: map[ref]nft.Datum{}}
	if !proxied(svc) {
		return plan
	}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		proto, err := nft.ParseProto(string(sp.Protocol))
		if err != nil {
			continue // validation lets no other in
		}
		b := &portBuilder{cfg: c, svc: svc, port: uint16(sp.Port), plan: plan}
		b.name = fmt.Sprintf("%s/%s/%s/%d", svc.Namespace, svc.Name, proto, sp.Port)
		b.proto, b.nodePort = proto, uint16(sp.NodePort)
		var old *portPlan
		if before != nil {
			if i := slices.IndexFunc(before.ports, func(p portPlan) bool { return p.name == b.name }); i >= 0 {
				old = &before.ports[i]
			}
		}
		all, local := choose(c, endpointsOf(c, sp, eps))
		if old != nil {
			b.all, b.local = assign(old.all, all), assign(old.local, local)
		} else {
			b.all, b.local = all, local
		}
		b.any = len(all)+len(local) > 0
		b.build()
		plan.ports = append(plan.ports, b.portPlan)
	}
	plan.health = healthCheck(c, svc, eps)
	return plan
}

// proxied reports whether the service has addresses of its own that are ours
// to serve: not headless, not a name elsewhere, not given to another proxy.
func proxied(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return false
	}
	_, other := svc.Labels["service.kubernetes.io/service-proxy-name"]
	return !other
}

// portBuilder writes one service port's part of a plan.
type portBuilder struct {
	portPlan
	cfg  Config
	svc  *corev1.Service
	port uint16
	any  bool // there are endpoints, be they of use to this node or not
	plan *servicePlan
}

func (b *portBuilder) build() {
	spec := &b.svc.Spec
	internalLocal := spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	externalLocal := spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	clusterIPs := ipv4(append([]string{spec.ClusterIP}, spec.ClusterIPs...))
	externalIPs := ipv4(spec.ExternalIPs)
	balancerIPs := balancerIPs(b.svc)
	external := b.nodePort != 0 || len(externalIPs)+len(balancerIPs) > 0

	needAll := !internalLocal || external
	needLocal := internalLocal || external && externalLocal
	if needAll && len(b.all) > 0 {
		b.balance("svc/", "ep/", b.all)
	} else {
		b.all = nil
	}
	if needLocal && len(b.local) > 0 {
		b.balance("svc-local/", "ep-local/", b.local)
	} else {
		b.local = nil
	}

	internal := target{chain: "svc/" + b.name, endpoints: len(b.all)}
	if internalLocal {
		internal = target{chain: "svc-local/" + b.name, endpoints: len(b.local)}
	}
	for _, ip := range clusterIPs {
		b.claimVIP(ip, internal)
	}
	if !external {
		return
	}
	outer := target{chain: "ext/" + b.name, endpoints: len(b.all)}
	if externalLocal {
		outer.endpoints = len(b.local)
	}
	if b.reached() {
		b.fromOutside(externalLocal)
	}
	for _, ip := range externalIPs {
		b.claimVIP(ip, outer)
	}
	if ranges := sourceRanges(spec); len(ranges) > 0 && b.reached() {
		b.firewall(ranges, balancerIPs)
		outer.chain = "fw/" + b.name
	}
	for _, ip := range balancerIPs {
		b.claimVIP(ip, outer)
	}
	if b.nodePort != 0 {
		outer.chain = "ext/" + b.name
		b.claim(setNodePorts, setNoEndpointNodePorts, nft.Concat(b.proto.Datum(), nft.Port(b.nodePort)), outer)
	}
}

// A target is where an address of the port leads to, and how many endpoints
// stand behind it for packets that are not treated specially.
type target struct {
	chain     string
	endpoints int
}

func (b *portBuilder) claimVIP(ip netip.Addr, t target) {
	b.vips = append(b.vips, netip.AddrPortFrom(ip, b.port))
	key := nft.Concat(nft.Addr(ip), b.proto.Datum(), nft.Port(b.port))
	b.claim(setServiceIPs, setNoEndpoints, key, t)
}

// claim sends an address of the port to its target. Without any endpoint,
// packets are rejected; where the policy leaves none but others exist, they
// are dropped, because another node would take them. Under a local policy
// without local endpoints the chain is needed all the same, for pods and the
// host itself.
func (b *portBuilder) claim(reached, unreached string, key nft.Datum, t target) {
	if t.endpoints == 0 {
		to := chainReject
		if b.any {
			to = chainDrop
		}
		b.claimOnce(ref{unreached, key}, nft.GotoDatum(to))
	}
	if _, ok := b.plan.own.Chains[t.chain]; ok {
		b.claimOnce(ref{reached, key}, nft.GotoDatum(t.chain))
	}
}

func (b *portBuilder) claimOnce(r ref, d nft.Datum) {
	if _, ok := b.plan.claims[r]; !ok {
		b.plan.claims[r] = d
	}
}

// balance writes the chain that sends a packet to one of the endpoints, and
// the map behind it.
func (b *portBuilder) balance(chain, set string, eps []netip.AddrPort) {
	s := b.plan.own
	c := &nft.Chain{Name: chain + b.name}
	if chain == "svc/" {
		// An outside that routes service addresses to this node cannot expect
		// answers from another.
		c.Rules = append(c.Rules, nft.Of(nft.NotSAddr(b.cfg.ClusterCIDR), nft.NotFromLocal(), nft.SetMark(MasqueradeMark)))
	}
	for _, ep := range eps {
		if b.cfg.NodeCIDR.Contains(ep.Addr()) {
			self := nft.Concat(nft.Addr(ep.Addr()), nft.Addr(ep.Addr()))
			b.claimOnce(ref{setHairpin, self}, nft.Datum{})
		}
	}
	slots := &nft.Set{Name: set + b.name, Key: []nft.Type{nft.Mark}}
	if timeout := affinity(&b.svc.Spec); timeout > 0 {
		slots.Name = "sticky-" + slots.Name
		b.sticky(c, slots, eps, timeout)
	} else {
		slots.Data = []nft.Type{nft.IPv4Addr, nft.InetService}
		for i, ep := range eps {
			s.AddElement(slots.Name, nft.Number(uint32(i)), nft.Concat(nft.Addr(ep.Addr()), nft.Port(ep.Port())))
		}
		c.Rules = append(c.Rules, nft.Of(nft.DNATRandom(slots.Name, len(eps))))
	}
	// A choice may find no slot: the kernel takes rules by the generation in which
	// a packet came and sets by that of the lookup, and between the two the slots
	// may have become fewer. The client sends again; a refusal would be final.
	c.Rules = append(c.Rules, nft.Of(nft.Drop()))
	s.AddSet(slots)
	s.AddChain(c)
}

// sticky writes session affinity: each endpoint has a chain, which notes the
// client in the endpoint's own set, and a rule ahead of the choice leads known
// clients there. So with an endpoint goes what its clients are known by.
func (b *portBuilder) sticky(c *nft.Chain, slots *nft.Set, eps []netip.AddrPort, timeout time.Duration) {
	s := b.plan.own
	slots.Data = []nft.Type{nft.VerdictType}
	var known []nft.Rule
	for i, ep := range eps {
		name := fmt.Sprintf("%s/%s/%d", b.name, ep.Addr(), ep.Port())
		// The name holds the timeout because a set's declaration is fixed.
		clients := fmt.Sprintf("clients-%d/%s", timeout/time.Second, name)
		s.AddSet(&nft.Set{Name: clients, Key: []nft.Type{nft.IPv4Addr}, Dynamic: true, Timeout: timeout, Size: clientsMax})
		s.AddChain(&nft.Chain{Name: "to/" + name, Rules: []nft.Rule{
			nft.Of(nft.Remember(clients, nft.SrcIPv4, timeout)),
			nft.Of(nft.DNAT(ep)),
		}})
		s.AddElement(slots.Name, nft.Number(uint32(i)), nft.GotoDatum("to/"+name))
		known = append(known, nft.Of(nft.InSet(clients, nft.SrcIPv4), nft.Goto("to/"+name)))
	}
	// In an order that does not depend on slots, so that fewer changes of them
	// are changes of rules.
	slices.SortFunc(known, func(a, b nft.Rule) int { return cmp.Compare(a.String(), b.String()) })
	c.Rules = append(c.Rules, known...)
	c.Rules = append(c.Rules, nft.Of(nft.VerdictRandom(slots.Name, len(eps))))
}

// fromOutside writes the chain for traffic to node ports, external and load
// balancer addresses. Under policy Cluster the source is replaced, since the
// endpoint may be on another node; under Local it is kept, and only pods and
// the host itself, who are inside, may use any endpoint.
func (b *portBuilder) fromOutside(local bool) {
	c := &nft.Chain{Name: "ext/" + b.name}
	svc := "svc/" + b.name
	switch {
	case !local:
		if len(b.all) == 0 {
			return
		}
		c.Rules = []nft.Rule{nft.Of(nft.SetMark(MasqueradeMark), nft.Goto(svc))}
	default:
		if len(b.all) > 0 {
			c.Rules = append(c.Rules,
				nft.Of(nft.SAddr(b.cfg.ClusterCIDR), nft.Goto(svc)),
				nft.Of(nft.FromLocal(), nft.SetMark(MasqueradeMark), nft.Goto(svc)))
		}
		if len(b.local) > 0 {
			c.Rules = append(c.Rules, nft.Of(nft.Goto("svc-local/"+b.name)))
		}
	}
	b.plan.own.AddChain(c)
}

// firewall writes the chain that lets only the given sources to the load
// balancer's addresses. A balancer's address may be on the node itself; the
// node then comes from it.
func (b *portBuilder) firewall(ranges []netip.Prefix, own []netip.Addr) {
	if b.plan.own.Chains["ext/"+b.name] == nil {
		return
	}
	c := &nft.Chain{Name: "fw/" + b.name}
	for _, ip := range own {
		ranges = append(ranges, netip.PrefixFrom(ip, ip.BitLen()))
	}
	for _, r := range ranges {
		c.Rules = append(c.Rules, nft.Of(nft.SAddr(r), nft.Goto("ext/"+b.name)))
	}
	c.Rules = append(c.Rules, nft.Of(nft.Drop()))
	b.plan.own.AddChain(c)
}

// clientsMax bounds how many clients of an endpoint are remembered.
const clientsMax = 65535

// affinity is how long a client stays with its endpoint; 0 without affinity.
func affinity(spec *corev1.ServiceSpec) time.Duration {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(10800) // ClientIPConfig's default
	if c := spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// balancerIPs are the addresses at which a load balancer hands packets over
// untranslated (LoadBalancerIngress.ipMode VIP).
func balancerIPs(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var ips []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			ips = append(ips, in.IP)
		}
	}
	return ipv4(ips)
}

// sourceRanges are the sources that may use load balancer addresses; none
// means all.
func sourceRanges(spec *corev1.ServiceSpec) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range spec.LoadBalancerSourceRanges {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
			if p.Bits() == 0 {
				return nil
			}
			out = append(out, p)
		}
	}
	return out
}

// ipv4 parses the IPv4 addresses among ips, each once.
func ipv4(ips []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ips {
		a, err := netip.ParseAddr(s)
		if err == nil && a.Unmap().Is4() && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out
}
