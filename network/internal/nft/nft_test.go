package nft_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hansa.dev/hansa/network/internal/nettest"
	"hansa.dev/hansa/network/internal/nft"
	"hansa.dev/hansa/network/internal/nft/nfttest"
)

func TestMain(m *testing.M) { nettest.Main(m, os.Args, os.Environ()) }

// draw makes a table of a few chains that refer to each other, to sets, and
// from maps, acyclic.
func draw(t *rapid.T) *nft.State {
	s := nft.NewState()
	flip := rapid.Bool()
	var chains []string
	for _, name := range []string{"a", "b", "c"} {
		if !flip.Draw(t, "chain "+name) {
			continue
		}
		c := &nft.Chain{Name: name}
		for _, other := range chains {
			if flip.Draw(t, name+" to "+other) {
				c.Rules = append(c.Rules, nft.Of(nft.Jump(other)))
			}
		}
		s.AddChain(c)
		chains = append(chains, name)
	}
	for _, name := range []string{"addresses", "endpoints", "chains"} {
		if !flip.Draw(t, "set "+name) {
			continue
		}
		set := &nft.Set{Name: name, Key: []nft.Type{nft.IPv4Addr, nft.InetProto, nft.InetService}}
		rule := nft.Of(nft.InSet(name, nft.DstIPv4, nft.L4Proto, nft.DstPort), nft.Drop())
		data := func(int) nft.Datum { return nft.Datum{} }
		switch name {
		case "endpoints":
			set.Key, set.Data = []nft.Type{nft.Mark}, []nft.Type{nft.IPv4Addr, nft.InetService}
			rule = nil // a base chain's; numgen is tried in TestTerms
			data = func(i int) nft.Datum {
				return nft.Concat(nft.Addr(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})), nft.Port(80))
			}
		case "chains":
			set.Data = []nft.Type{nft.VerdictType}
			rule = nft.Of(nft.VerdictMap(name, nft.DstIPv4, nft.L4Proto, nft.DstPort))
			if len(chains) == 0 {
				continue
			}
			data = func(int) nft.Datum { return nft.GotoDatum(rapid.SampledFrom(chains).Draw(t, "to")) }
		}
		s.AddSet(set)
		for i := range rapid.IntRange(0, 3).Draw(t, "elements") {
			key := nft.Number(uint32(i))
			if name != "endpoints" {
				key = nft.Concat(nft.Addr(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})), nft.TCP.Datum(), nft.Port(80))
			}
			s.AddElement(name, key, data(rapid.IntRange(1, 3).Draw(t, "data")))
		}
		if rule != nil {
			s.AddChain(&nft.Chain{Name: "user-of-" + name, Rules: []nft.Rule{rule}})
		}
	}
	return s
}

// What the fake kernel takes, Diff turns one table into any other with, and
// nothing is left to do then.
func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &nfttest.Table{}
		if err := k.Apply(nft.Program(nft.NewState())); err != nil {
			t.Fatal(err)
		}
		last := nft.NewState()
		for range 4 {
			next := draw(t)
			if err := k.Apply(nft.Diff(last, next)); err != nil {
				t.Fatal(err)
			}
			if rest := nft.Diff(k.State, next); len(rest) > 0 {
				t.Fatalf("left to do:\n%s", rest)
			}
			last = next
		}
	})
}

// The real kernel takes what the fake one takes.
func TestDiffOnKernel(t *testing.T) {
	table := nft.NewTable("hansa-nfttest")
	t.Cleanup(func() {
		if err := table.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := table.Apply(nft.Program(nft.NewState())); err != nil {
		t.Fatal(err)
	}
	last := nft.NewState()
	rapid.Check(t, func(t *rapid.T) {
		next := draw(t)
		if err := table.Apply(nft.Diff(last, next)); err != nil {
			t.Fatalf("%v\n%s", err, nft.Diff(last, next))
		}
		last = next
	})
}

// The kernel takes every term, in a chain of a kind that it is meant for.
func TestTerms(t *testing.T) {
	s := nft.NewState()
	addr := []nft.Type{nft.IPv4Addr}
	target := []nft.Type{nft.IPv4Addr, nft.InetService}
	verdict := []nft.Type{nft.VerdictType}
	for _, set := range []*nft.Set{
		{Name: "addrs", Key: addr}, {Name: "clients", Key: addr, Dynamic: true, Timeout: time.Minute, Size: 10},
		{Name: "to-addr", Key: addr, Data: target}, {Name: "to-chain", Key: addr, Data: verdict},
		{Name: "slots", Key: []nft.Type{nft.Mark}, Data: target}, {Name: "slot-chains", Key: []nft.Type{nft.Mark}, Data: verdict},
	} {
		s.AddSet(set)
	}
	four, six := netip.MustParsePrefix("10.42.0.0/17"), netip.MustParsePrefix("fd00::/48")
	host := netip.MustParsePrefix("192.0.2.1/32")
	rules := map[nft.Point][]nft.Term{
		nft.Prerouting: {
			nft.IIFName("eth*"), nft.IIFName("eth0"), nft.SAddr(four), nft.SAddr(six), nft.NotSAddr(host), nft.DAddr(six), nft.NotDAddr(four),
			nft.ToLocal(), nft.FromLocal(), nft.NotFromLocal(), nft.NoReversePath(), nft.MarkSet(1), nft.SetMark(1), nft.ClearMark(1),
			nft.NewConnection(), nft.Invalid(), nft.WasDNATed(), nft.RedirectMessage(), nft.Drop(), nft.Reject(), nft.Jump("other"), nft.Goto("other"),
			nft.VerdictMap("to-chain", nft.DstIPv4), nft.InSet("addrs", nft.SrcIPv4), nft.Remember("clients", nft.SrcIPv4, time.Minute),
			nft.VerdictRandom("slot-chains", 3),
		},
		nft.Output:      {nft.DNATMap("to-addr", nft.DstIPv4), nft.DNATRandom("slots", 2), nft.DNAT(netip.MustParseAddrPort("10.0.0.1:80"))},
		nft.Postrouting: {nft.OIFName("eth0"), nft.NotOIFName("eth*"), nft.Masquerade()},
	}
	s.AddChain(&nft.Chain{Name: "other"})
	for point, terms := range rules {
		kind := nft.NAT
		if point == nft.Prerouting {
			kind = nft.Filter
		}
		c := &nft.Chain{Name: string(point), Hook: &nft.Hook{Point: point, Kind: kind, Priority: 50}}
		for _, term := range terms {
			c.Rules = append(c.Rules, nft.Of(term))
		}
		s.AddChain(c)
	}
	table := nft.NewTable("hansa-nfttest-terms")
	t.Cleanup(func() {
		if err := table.Delete(); err != nil {
			t.Error(err)
		}
	})
	if err := table.Apply(nft.Program(s)); err != nil {
		t.Fatal(err)
	}
	if ok, err := table.Exists(); !ok || err != nil {
		t.Errorf("table: %t, %v", ok, err)
	}
}

// A transaction that cannot be carried out changes nothing.
func TestAllOrNothing(t *testing.T) {
	table := nft.NewTable("hansa-nfttest-all")
	t.Cleanup(func() {
		if err := table.Delete(); err != nil {
			t.Error(err)
		}
	})
	s := nft.NewState()
	s.AddChain(&nft.Chain{Name: "a", Rules: []nft.Rule{nft.Of(nft.Jump("missing"))}})
	if err := table.Apply(nft.Program(s)); err == nil || !strings.Contains(err.Error(), "hansa-nfttest-all") {
		t.Errorf("a jump to nowhere: %v", err)
	}
	if ok, err := table.Exists(); ok || err != nil {
		t.Errorf("table: %t, %v", ok, err)
	}
}

func TestParseProto(t *testing.T) {
	for name, want := range map[string]nft.Proto{"": nft.TCP, "TCP": nft.TCP, "udp": nft.UDP, "SCTP": nft.SCTP} {
		if got, err := nft.ParseProto(name); got != want || err != nil {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
	if _, err := nft.ParseProto("icmp"); err == nil {
		t.Error("icmp has no ports")
	}
}

// Keys and data have the layout of the kernel's registers.
func TestDatum(t *testing.T) {
	d := nft.Concat(nft.Addr(netip.MustParseAddr("10.1.2.3")), nft.UDP.Datum(), nft.Port(0x1234))
	if want := "\x0a\x01\x02\x03\x11\x00\x00\x00\x12\x34\x00\x00"; d.Raw != want || d.Text != "10.1.2.3 . udp . 4660" {
		t.Errorf("%q %q", d.Text, d.Raw)
	}
	if words := len(d.Raw) / 4; words != 3 {
		t.Errorf("%d words", words)
	}
}
