package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: single matches use reg, one 16-byte register; concatenations use
// 32-bit registers from key upwards, and values found in maps go to data.
// The two ranges do not overlap for keys of up to four words.
const (
	reg  = unix.NFT_REG_1
	key  = unix.NFT_REG32_00 + 4 // words 4..7 are NFT_REG_2
	data = unix.NFT_REG32_00 + 8 // words 8..11 are NFT_REG_3
)

// Offsets and lengths of header fields (RFC 791, RFC 8200, RFC 768/793/9260).
const (
	ip4Src, ip4Dst = 12, 16
	ip6Src, ip6Dst = 8, 24
	portDst        = 2
)

// family guards a match on network headers: the table is of family inet.
func family(v6 bool) []expr.Any {
	f := byte(unix.NFPROTO_IPV4)
	if v6 {
		f = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{f}},
	}
}

func ipWord(v6 bool) string {
	if v6 {
		return "ip6"
	}
	return "ip"
}

// ifName matches an interface name; a trailing * matches any ending.
func ifName(k expr.MetaKey, word, name string, not bool) Term {
	b := []byte(name)
	if p, wild := strings.CutSuffix(name, "*"); wild {
		b = []byte(p)
	} else {
		b = append(b, make([]byte, unix.IFNAMSIZ-len(b))...)
	}
	op, sign := expr.CmpOpEq, ""
	if not {
		op, sign = expr.CmpOpNeq, "!= "
	}
	return Term{
		Text:  fmt.Sprintf("%s %s%q", word, sign, name),
		Exprs: []expr.Any{&expr.Meta{Key: k, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: b}},
	}
}

// IIFName matches the incoming interface.
func IIFName(name string) Term { return ifName(expr.MetaKeyIIFNAME, "iifname", name, false) }

// OIFName matches the outgoing interface.
func OIFName(name string) Term { return ifName(expr.MetaKeyOIFNAME, "oifname", name, false) }

// NotOIFName matches any other outgoing interface.
func NotOIFName(name string) Term { return ifName(expr.MetaKeyOIFNAME, "oifname", name, true) }

func addrMatch(p netip.Prefix, dst, not bool) Term {
	p = p.Masked()
	v6 := p.Addr().Is6()
	off, word := uint32(ip4Src), "saddr"
	switch {
	case v6 && dst:
		off, word = ip6Dst, "daddr"
	case v6:
		off = ip6Src
	case dst:
		off, word = ip4Dst, "daddr"
	}
	size := p.Addr().BitLen() / 8
	es := append(family(v6), &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: uint32(size)})
	text := p.Addr().String()
	if p.Bits() < p.Addr().BitLen() {
		text = p.String()
		mask := make([]byte, size)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		es = append(es, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(size), Mask: mask, Xor: make([]byte, size)})
	}
	op, sign := expr.CmpOpEq, ""
	if not {
		op, sign = expr.CmpOpNeq, "!= "
	}
	es = append(es, &expr.Cmp{Op: op, Register: reg, Data: p.Addr().AsSlice()})
	return Term{Text: fmt.Sprintf("%s %s %s%s", ipWord(v6), word, sign, text), Exprs: es}
}

// SAddr matches the source address.
func SAddr(p netip.Prefix) Term { return addrMatch(p, false, false) }

// NotSAddr matches packets of the prefix's family from elsewhere.
func NotSAddr(p netip.Prefix) Term { return addrMatch(p, false, true) }

// DAddr matches the destination address.
func DAddr(p netip.Prefix) Term { return addrMatch(p, true, false) }

// NotDAddr matches packets of the prefix's family to elsewhere.
func NotDAddr(p netip.Prefix) Term { return addrMatch(p, true, true) }

func fibType(dst, not bool) Term {
	op, sign, word := expr.CmpOpEq, "", "saddr"
	if not {
		op, sign = expr.CmpOpNeq, "!= "
	}
	if dst {
		word = "daddr"
	}
	return Term{
		Text: fmt.Sprintf("fib %s type %slocal", word, sign),
		Exprs: []expr.Any{
			&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: dst, FlagSADDR: !dst},
			&expr.Cmp{Op: op, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
		},
	}
}

// ToLocal matches packets to an address of this host.
func ToLocal() Term { return fibType(true, false) }

// FromLocal matches packets from an address of this host.
func FromLocal() Term { return fibType(false, false) }

// NotFromLocal matches packets from an address that is not this host's.
func NotFromLocal() Term { return fibType(false, true) }

// NoReversePath matches packets whose source is not routed through the
// interface they came in by (RFC 3704, strict).
func NoReversePath() Term {
	return Term{
		Text: "fib saddr . iif oif missing",
		Exprs: []expr.Any{
			&expr.Fib{Register: reg, ResultOIF: true, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: make([]byte, 4)},
		},
	}
}

// MarkSet matches packets that have all bits of mask in their mark.
func MarkSet(mask uint32) Term {
	m := binary.NativeEndian.AppendUint32(nil, mask)
	return Term{
		Text: fmt.Sprintf("meta mark & 0x%08x == 0x%08x", mask, mask),
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
			&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: m, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: m},
		},
	}
}

// SetMark sets the bits of mask in the packet's mark.
func SetMark(mask uint32) Term {
	return changeMark(fmt.Sprintf("meta mark set meta mark | 0x%08x", mask), ^mask, mask)
}

// ClearMark clears the bits of mask in the packet's mark.
func ClearMark(mask uint32) Term {
	return changeMark(fmt.Sprintf("meta mark set meta mark & 0x%08x", ^mask), ^mask, 0)
}

func changeMark(text string, and, xor uint32) Term {
	return Term{Text: text, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, and), Xor: binary.NativeEndian.AppendUint32(nil, xor),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true},
	}}
}

// ctBits matches connections whose state or status has one of the bits.
func ctBits(text string, k expr.CtKey, bits uint32) Term {
	return Term{Text: text, Exprs: []expr.Any{
		&expr.Ct{Register: reg, Key: k},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}}
}

// NewConnection matches the first packet of a connection.
func NewConnection() Term { return ctBits("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW) }

// Invalid matches packets that belong to no connection as tracking sees it.
func Invalid() Term { return ctBits("ct state invalid", expr.CtKeySTATE, expr.CtStateBitINVALID) }

// WasDNATed matches connections whose destination was translated.
func WasDNATed() Term {
	const ipsDstNAT = 1 << 5 // IPS_DST_NAT of the kernel's nf_conntrack_common.h
	return ctBits("ct status dnat", expr.CtKeySTATUS, ipsDstNAT)
}

// RedirectMessage matches ICMP redirects.
func RedirectMessage() Term {
	return Term{
		Text: "icmp type redirect",
		Exprs: append(family(false),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{unix.IPPROTO_ICMP}},
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{5}}),
	}
}

func verdict(text string, k expr.VerdictKind, chain string) Term {
	return Term{Text: text, Exprs: []expr.Any{&expr.Verdict{Kind: k, Chain: chain}}}
}

// Drop discards the packet.
func Drop() Term { return verdict("drop", expr.VerdictDrop, "") }

// Jump calls a chain.
func Jump(chain string) Term { return verdict("jump "+chain, expr.VerdictJump, chain) }

// Goto continues in a chain and does not come back.
func Goto(chain string) Term { return verdict("goto "+chain, expr.VerdictGoto, chain) }

// Reject answers with port unreachable, in the packet's own family.
func Reject() Term {
	return Term{Text: "reject with icmpx port-unreachable", Exprs: []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH},
	}}
}

// Masquerade replaces the source by the outgoing interface's address.
func Masquerade() Term {
	return Term{Text: "masquerade fully-random", Exprs: []expr.Any{&expr.Masq{FullyRandom: true}}}
}

// A Field is what part of a packet goes into a set's key. Each of those here
// takes one 32-bit register.
type Field struct {
	text string
	v4   bool // only IPv4 packets have it
	load func(r uint32) expr.Any
}

func payload(text string, base expr.PayloadBase, off, size uint32, v4 bool) Field {
	return Field{text: text, v4: v4, load: func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: base, Offset: off, Len: size}
	}}
}

// The fields that keys are made of.
var (
	SrcIPv4 = payload("ip saddr", expr.PayloadBaseNetworkHeader, ip4Src, 4, true)
	DstIPv4 = payload("ip daddr", expr.PayloadBaseNetworkHeader, ip4Dst, 4, true)
	DstPort = payload("th dport", expr.PayloadBaseTransportHeader, portDst, 2, false)
	L4Proto = Field{text: "meta l4proto", load: func(r uint32) expr.Any {
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r}
	}}
)

// load puts fields into consecutive registers from first.
func load(first uint32, fields []Field) (text string, es []expr.Any) {
	var words []string
	if slices.ContainsFunc(fields, func(f Field) bool { return f.v4 }) {
		es = append(es, family(false)...)
	}
	for i, f := range fields {
		words = append(words, f.text)
		es = append(es, f.load(first+uint32(i)))
	}
	return strings.Join(words, " . "), es
}

// VerdictMap looks the fields up in a verdict map and does what it says.
func VerdictMap(set string, fields ...Field) Term {
	text, es := load(key, fields)
	return Term{
		Text:  fmt.Sprintf("%s vmap @%s", text, set),
		Exprs: append(es, &expr.Lookup{SourceRegister: key, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set}),
	}
}

// InSet matches packets whose fields are in a set.
func InSet(set string, fields ...Field) Term {
	text, es := load(key, fields)
	return Term{
		Text:  fmt.Sprintf("%s @%s", text, set),
		Exprs: append(es, &expr.Lookup{SourceRegister: key, SetName: set}),
	}
}

func dnat(addrReg uint32) expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4,
		RegAddrMin: addrReg, RegProtoMin: addrReg + 1, Specified: true,
	}
}

// DNATMap sends the packet to the IPv4 address and port that a map has for
// the fields; without an entry the rule does not match.
func DNATMap(set string, fields ...Field) Term {
	text, es := load(key, fields)
	return Term{
		Text: fmt.Sprintf("dnat ip to %s map @%s", text, set),
		Exprs: append(es,
			&expr.Lookup{SourceRegister: key, DestRegister: data, IsDestRegSet: true, SetName: set},
			dnat(data)),
	}
}

// DNATRandom sends the packet to one of the n IPv4 addresses and ports that a
// map has under 0..n-1.
func DNATRandom(set string, n int) Term {
	return Term{
		Text: fmt.Sprintf("dnat ip to numgen random mod %d map @%s", n, set),
		Exprs: append(family(false),
			&expr.Numgen{Register: key, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
			&expr.Lookup{SourceRegister: key, DestRegister: data, IsDestRegSet: true, SetName: set},
			dnat(data)),
	}
}

// VerdictRandom continues in one of the n chains that a verdict map has under
// 0..n-1.
func VerdictRandom(set string, n int) Term {
	return Term{
		Text: fmt.Sprintf("numgen random mod %d vmap @%s", n, set),
		Exprs: []expr.Any{
			&expr.Numgen{Register: key, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
			&expr.Lookup{SourceRegister: key, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set},
		},
	}
}

// Remember adds the field to a dynamic set for some time, or renews it.
func Remember(set string, f Field, timeout time.Duration) Term {
	text, es := load(key, []Field{f})
	return Term{
		Text:  fmt.Sprintf("update @%s { %s timeout %ds }", set, text, timeout/time.Second),
		Exprs: append(es, &expr.Dynset{SrcRegKey: key, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout}),
	}
}

// DNAT sends the packet to an IPv4 address and port.
func DNAT(to netip.AddrPort) Term {
	return Term{
		Text: "dnat ip to " + to.String(),
		Exprs: append(family(false),
			&expr.Immediate{Register: data, Data: to.Addr().AsSlice()},
			&expr.Immediate{Register: data + 1, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
			dnat(data)),
	}
}
