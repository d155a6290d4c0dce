package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// SchemaVersion is the version of the specification (2.2).
const SchemaVersion = "1.1.0"

// A reply is what the zone says to a question. Name is that of the question,
// in the client's spelling; records are made with it.
type reply struct {
	rcode  int
	answer []mdns.RR
	extra  []mdns.RR
	alias  string // a name outside, whose records belong to the answer
}

var (
	noName = reply{rcode: mdns.RcodeNameError}
	noData = reply{}
)

// A question is a name with the parts that look-ups use.
type question struct {
	name  string // as asked
	qtype uint16
	ttl   uint32
}

func (q question) header(name string, rrtype uint16) mdns.RR_Header {
	return mdns.RR_Header{Name: name, Rrtype: rrtype, Class: mdns.ClassINET, Ttl: q.ttl}
}

// addresses makes A or AAAA records, as asked for, in random order.
func (q question) addresses(name string, ips []netip.Addr) []mdns.RR {
	out := make([]mdns.RR, 0, len(ips))
	for _, ip := range ips {
		switch {
		case q.qtype == mdns.TypeA && ip.Is4():
			out = append(out, &mdns.A{Hdr: q.header(name, mdns.TypeA), A: ip.AsSlice()})
		case q.qtype == mdns.TypeAAAA && ip.Is6():
			out = append(out, &mdns.AAAA{Hdr: q.header(name, mdns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// glue makes the address records of a name for the additional section.
func (q question) glue(name string, ips []netip.Addr) []mdns.RR {
	v4, v6 := q, q
	v4.qtype, v6.qtype = mdns.TypeA, mdns.TypeAAAA
	return append(v4.addresses(name, ips), v6.addresses(name, ips)...)
}

// lookup answers a question about a name in the zone: sub is the name without
// the zone's domain, in lower case, and empty for the domain itself.
func (z *zone) lookup(q question, sub string, self netip.Addr) reply {
	switch sub {
	case "":
		return z.apex(q, self)
	case "svc", "pod", "dns":
		return noData
	case "dns-version":
		if q.qtype == mdns.TypeTXT {
			return reply{answer: []mdns.RR{&mdns.TXT{Hdr: q.header(q.name, mdns.TypeTXT), Txt: []string{SchemaVersion}}}}
		}
		return noData
	case "ns.dns":
		return reply{answer: q.addresses(q.name, []netip.Addr{self})}
	}
	if rest, ok := strings.CutSuffix(sub, ".svc"); ok {
		return z.svc(q, rest)
	}
	if rest, ok := strings.CutSuffix(sub, ".pod"); ok {
		return z.pod(q, rest)
	}
	return noName
}

// apex answers about the domain itself.
func (z *zone) apex(q question, self netip.Addr) reply {
	switch q.qtype {
	case mdns.TypeSOA:
		return reply{answer: []mdns.RR{z.soa(z.domain, q.ttl)}}
	case mdns.TypeNS:
		ns := "ns.dns." + z.domain
		return reply{
			answer: []mdns.RR{&mdns.NS{Hdr: q.header(q.name, mdns.TypeNS), Ns: ns}},
			extra:  q.glue(ns, []netip.Addr{self}),
		}
	}
	return noData
}

// soa is the authority for a zone of ours; nobody transfers it, so its numbers
// matter to nobody but the last, which bounds how long "no" is believed.
func (z *zone) soa(name string, ttl uint32) mdns.RR {
	return &mdns.SOA{
		Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeSOA, Class: mdns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

// lastTwo splits "x.y.name.ns" into "x.y" and "name.ns"; ok is false for fewer
// than two labels.
func lastTwo(s string) (front, back string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", s, false
	}
	j := strings.LastIndexByte(s[:i], '.')
	if j < 0 {
		return "", s, true
	}
	return s[:j], s[j+1:], true
}

// svc answers about a name below svc.
func (z *zone) svc(q question, sub string) reply {
	front, label, ok := lastTwo(sub)
	z.mu.RLock()
	s := z.services[label]
	namespace := !ok && z.namespaces[label]
	z.mu.RUnlock()
	if namespace {
		return noData
	}
	if s == nil || !s.exists() {
		return noName
	}
	name := z.serviceName(s)
	if front == "" {
		return s.own(q)
	}
	if s.external != "" {
		return noName
	}
	first, second, both := strings.Cut(front, ".")
	if both && strings.HasPrefix(first, "_") && strings.HasPrefix(second, "_") && !strings.Contains(second, ".") {
		return s.srv(q, first[1:], second[1:], name)
	}
	if both {
		return noName
	}
	if proto, ok := strings.CutPrefix(first, "_"); ok {
		if s.hasProto(proto) {
			return noData
		}
		return noName
	}
	if ips := s.hosts[first]; len(ips) > 0 {
		return reply{answer: q.addresses(q.name, ips)} // 2.4.1
	}
	return noName
}

// own answers about a service's own name (2.3.1, 2.4.1, 2.5).
func (s *service) own(q question) reply {
	switch {
	case s.external != "":
		r := reply{answer: []mdns.RR{&mdns.CNAME{Hdr: q.header(q.name, mdns.TypeCNAME), Target: s.external}}}
		if q.qtype != mdns.TypeCNAME {
			r.alias = s.external
		}
		return r
	case s.headless:
		var ips []netip.Addr
		for _, l := range s.hosts {
			ips = append(ips, l...)
		}
		slices.SortFunc(ips, netip.Addr.Compare)
		ips = slices.Compact(ips) // one address may have two hostnames
		return reply{answer: q.addresses(q.name, ips)}
	}
	return reply{answer: q.addresses(q.name, s.ips)}
}

// hasProto reports whether SRV records exist below _proto.
func (s *service) hasProto(proto string) bool {
	for _, p := range s.ports {
		if p.proto == proto {
			return true
		}
	}
	for _, t := range s.targets {
		if t.proto == proto {
			return true
		}
	}
	return false
}

// srv answers about _name._proto of a service (2.3.2, 2.4.2).
func (s *service) srv(q question, name, proto, self string) reply {
	var r reply
	found := false
	record := func(host string, number uint16) {
		found = true
		if q.qtype == mdns.TypeSRV {
			r.answer = append(r.answer, &mdns.SRV{Hdr: q.header(q.name, mdns.TypeSRV), Weight: 100, Port: number, Target: host})
		}
	}
	for _, p := range s.ports {
		if p.name == name && p.proto == proto {
			record(self, p.number)
			r.extra = q.glue(self, s.ips)
		}
	}
	last := ""
	for _, t := range s.targets {
		if t.name != name || t.proto != proto {
			continue
		}
		host := t.host + "." + self
		record(host, t.number)
		if t.host != last { // targets are sorted by host
			r.extra = append(r.extra, q.glue(host, s.hosts[t.host])...)
			last = t.host
		}
	}
	if !found {
		return noName
	}
	if q.qtype != mdns.TypeSRV {
		return noData
	}
	return r
}

// pod answers about a name below pod: an address with dashes in a namespace
// that exists (2.6).
func (z *zone) pod(q question, sub string) reply {
	label, namespace, ok := strings.Cut(sub, ".")
	if !ok {
		namespace = label
	}
	z.mu.RLock()
	exists := z.namespaces[namespace]
	z.mu.RUnlock()
	if !exists {
		return noName
	}
	if !ok {
		return noData
	}
	ip, ok := undashed(label)
	if !ok {
		return noName
	}
	return reply{answer: q.addresses(q.name, []netip.Addr{ip})}
}

// reverseLookup answers about an address in one of the cluster's ranges.
func (z *zone) reverseLookup(q question, ip netip.Addr) reply {
	z.mu.RLock()
	names := z.names[ip]
	z.mu.RUnlock()
	if len(names) == 0 {
		return noName
	}
	if q.qtype != mdns.TypePTR {
		return noData
	}
	var r reply
	for _, n := range names {
		r.answer = append(r.answer, &mdns.PTR{Hdr: q.header(q.name, mdns.TypePTR), Ptr: n})
	}
	return r
}

// parseReverse reads a whole address from its name below in-addr.arpa or
// ip6.arpa (RFC 1035, section 3.5; RFC 3596, section 2.5).
func parseReverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		ip, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return ip, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	nibbles := strings.Split(rest, ".")
	if !ok || len(nibbles) != 32 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := range nibbles {
		n := nibbles[31-i]
		if len(n) != 1 {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(n)
	}
	ip, err := netip.ParseAddr(b.String())
	return ip, err == nil
}

// reverseZone is the name of the zone that an address of a range is in: the
// range's own, or where that does not end between labels, the next smaller.
func reverseZone(ip netip.Addr, bits int) string {
	full, err := mdns.ReverseAddr(ip.String())
	if err != nil {
		return "."
	}
	per, all := 8, 4
	if ip.Is6() {
		per, all = 4, 32
	}
	keep := min((bits+per-1)/per, all)
	for range all - keep {
		_, full, _ = strings.Cut(full, ".")
	}
	return full
}
