package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"
	clocktesting "k8s.io/utils/clock/testing"
)

// An upstream answers questions in tests, and counts them.
type upstream struct {
	mu     sync.Mutex
	asked  []string // "NETWORK SERVER NAME TYPE"
	answer func(network string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error)
}

func (u *upstream) ask(_ context.Context, network string, m *mdns.Msg, server netip.AddrPort) (*mdns.Msg, error) {
	u.mu.Lock()
	u.asked = append(u.asked, fmt.Sprintf("%s %s %s %s", network, server.Addr(), m.Question[0].Name, mdns.TypeToString[m.Question[0].Qtype]))
	u.mu.Unlock()
	return u.answer(network, server, m)
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.asked)
}

func rr(t testing.TB, text string) mdns.RR {
	t.Helper()
	r, err := mdns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// forwarding is a synced server with two upstream servers and a fake clock.
func forwarding(t *testing.T, answer func(network string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error)) (*Server, *upstream, *clocktesting.FakeClock) {
	t.Helper()
	c := testConfig()
	clk := clocktesting.NewFakeClock(time.Unix(1000, 0))
	c.Clock = clk
	c.Upstreams = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")}
	s := New(c)
	s.SetSynced()
	u := &upstream{answer: answer}
	s.forward.ask = u.ask
	return s, u, clk
}

func reply4(t testing.TB, records ...string) func(string, netip.AddrPort, *mdns.Msg) (*mdns.Msg, error) {
	return func(_ string, _ netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error) {
		r := new(mdns.Msg).SetReply(m)
		for _, text := range records {
			switch x := rr(t, text); x.Header().Rrtype {
			case mdns.TypeSOA:
				r.Ns = append(r.Ns, x)
				r.Rcode = mdns.RcodeNameError
			default:
				r.Answer = append(r.Answer, x)
			}
		}
		return r, nil
	}
}

// Names elsewhere are forwarded, and kept as long as their records say.
func TestForwardAndCache(t *testing.T) {
	s, u, clk := forwarding(t, reply4(t, "example.com. 60 IN A 198.51.100.1"))
	want := func(asked int, text string) {
		t.Helper()
		if got := ask(t, s, "Example.com.", mdns.TypeA); got != text || u.count() != asked {
			t.Errorf("%q after %d questions; want %q after %d", got, u.count(), text, asked)
		}
	}
	want(1, "NOERROR\nExample.com. 60 IN A 198.51.100.1")
	clk.Step(20 * time.Second)
	want(1, "NOERROR\nExample.com. 40 IN A 198.51.100.1")
	clk.Step(40 * time.Second)
	want(2, "NOERROR\nExample.com. 60 IN A 198.51.100.1")
	if got := u.asked[0]; got != "udp 192.0.2.1 example.com. A" {
		t.Errorf("asked %q", got)
	}
}

// RFC 2308: "no" is kept for as long as the SOA says, and not without one.
func TestNegativeCache(t *testing.T) {
	soa := "example.com. 600 IN SOA ns.example.com. root.example.com. 1 2 3 4 30"
	s, u, clk := forwarding(t, reply4(t, soa))
	for i, step := range []time.Duration{0, 29 * time.Second, time.Second} {
		clk.Step(step)
		if got := ask(t, s, "x.example.com.", mdns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") || u.count() != 1+i/2 {
			t.Errorf("%q after %d questions", got, u.count())
		}
	}
	s, u, _ = forwarding(t, reply4(t))
	for range 2 {
		ask(t, s, "x.example.com.", mdns.TypeA)
	}
	if u.count() != 2 {
		t.Errorf("an answer without data and SOA was kept: %d questions", u.count())
	}
}

// The next server is asked when one does not answer, and goes on being asked
// first for a while.
func TestUpstreamFails(t *testing.T) {
	ok := reply4(t, "example.com. 0 IN A 198.51.100.1")
	down := true
	s, u, clk := forwarding(t, func(n string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error) {
		if down && server.Addr().String() == "192.0.2.1" {
			return nil, errors.New("timed out")
		}
		return ok(n, server, m)
	})
	want := func(servers ...string) {
		t.Helper()
		u.asked = nil
		if got := ask(t, s, "example.com.", mdns.TypeA); !strings.Contains(got, "198.51.100.1") {
			t.Errorf("answer %q", got)
		}
		var got []string
		for _, a := range u.asked {
			got = append(got, strings.Fields(a)[1])
		}
		if !slices.Equal(got, servers) {
			t.Errorf("asked %v, want %v", got, servers)
		}
	}
	want("192.0.2.1", "192.0.2.2")
	want("192.0.2.2")
	clk.Step(restTime)
	down = false
	want("192.0.2.1")

	// Nobody answers: SERVFAIL, kept for a second (RFC 9520).
	s, u, clk = forwarding(t, func(string, netip.AddrPort, *mdns.Msg) (*mdns.Msg, error) { return nil, errors.New("timed out") })
	for range 2 {
		if got := ask(t, s, "example.com.", mdns.TypeA); got != "SERVFAIL" {
			t.Errorf("answer %q", got)
		}
	}
	first := u.count()
	clk.Step(failure)
	ask(t, s, "example.com.", mdns.TypeA)
	if first != 4 || u.count() != 8 {
		t.Errorf("%d questions, then %d; want each server twice", first, u.count()-first)
	}
}

// A truncated answer is asked for again over TCP.
func TestUpstreamTruncates(t *testing.T) {
	full := reply4(t, "example.com. 60 IN A 198.51.100.1")
	s, u, _ := forwarding(t, func(n string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error) {
		r, err := full(n, server, m)
		if n == "udp" {
			r.Answer, r.Truncated = nil, true
		}
		return r, err
	})
	if got := ask(t, s, "example.com.", mdns.TypeA); !strings.Contains(got, "198.51.100.1") {
		t.Errorf("answer %q", got)
	}
	if u.count() != 2 || !strings.HasPrefix(u.asked[1], "tcp ") {
		t.Errorf("asked %q", u.asked)
	}
}

// 2.5: an external name is answered with the records it leads to.
func TestExternalName(t *testing.T) {
	s, _, _ := forwarding(t, reply4(t, "www.example.com. 60 IN A 198.51.100.1"))
	s.SetService(external("default", "www", "www.example.com"))
	want := "NOERROR\nwww.default.svc.cluster.local. 5 IN CNAME www.example.com.\nwww.example.com. 60 IN A 198.51.100.1"
	if got := ask(t, s, "www.default.svc.cluster.local.", mdns.TypeA); got != want {
		t.Errorf("got %q", got)
	}
}

// Equal questions at the same time are asked once.
func TestEqualQuestionsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		answer := reply4(t, "example.com. 0 IN A 198.51.100.1")
		s, u, _ := forwarding(t, func(n string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error) {
			<-release
			return answer(n, server, m)
		})
		var wg sync.WaitGroup
		for range 10 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if got := ask(t, s, "example.com.", mdns.TypeA); !strings.Contains(got, "198.51.100.1") {
					t.Errorf("answer %q", got)
				}
			}()
		}
		synctest.Wait()
		if u.count() != 1 {
			t.Errorf("%d questions", u.count())
		}
		close(release)
		wg.Wait()
	})
}

// More questions than there are places for are refused, not queued.
func TestForwardLimit(t *testing.T) {
	s, _, _ := forwarding(t, reply4(t, "example.com. 0 IN A 198.51.100.1"))
	s.forward.slots = make(chan struct{}) // no place
	if got := ask(t, s, "example.com.", mdns.TypeA); got != "SERVFAIL" {
		t.Errorf("answer %q", got)
	}
}

// A cache holds no more than it should, and drops what was used longest ago.
func TestCacheBounded(t *testing.T) {
	c := newCache(2)
	now := time.Unix(0, 0)
	put := func(name string) {
		m := &mdns.Msg{Question: []mdns.Question{{Name: name, Qtype: mdns.TypeA}}, Answer: []mdns.RR{rr(t, name+" 60 IN A 192.0.2.1")}}
		c.put(cacheKey{name: name, qtype: mdns.TypeA}, m, now)
	}
	has := func(name string) bool { return c.get(cacheKey{name: name, qtype: mdns.TypeA}, now) != nil }
	put("a.")
	put("b.")
	has("a.")
	put("c.")
	if !has("a.") || has("b.") || !has("c.") || len(c.items) != 2 || c.order.Len() != 2 {
		t.Errorf("a %t b %t c %t, %d kept", has("a."), has("b."), has("c."), len(c.items))
	}
}

// Loops are refused: upstream servers that are this one, and those that ask it.
func TestLoops(t *testing.T) {
	s, u, _ := forwarding(t, nil)
	u.answer = func(_ string, server netip.AddrPort, m *mdns.Msg) (*mdns.Msg, error) {
		if server.Addr().String() == "192.0.2.1" { // forwards to us
			return s.answer(context.Background(), m), nil
		}
		return reply4(t, "example.com. 60 IN A 198.51.100.1")("", server, m)
	}
	s.forward.probe(t.Context())
	u.asked = nil
	if got := ask(t, s, "example.com.", mdns.TypeA); !strings.Contains(got, "198.51.100.1") {
		t.Errorf("answer %q", got)
	}
	if u.count() != 1 || !strings.Contains(u.asked[0], "192.0.2.2") {
		t.Errorf("asked %q", u.asked)
	}
	s.SetUpstreams([]netip.AddrPort{netip.MustParseAddrPort("10.43.0.10:53")})
	if got := s.forward.order(); len(got) != 0 {
		t.Errorf("servers %v", got)
	}
	if got := ask(t, s, "other.example.com.", mdns.TypeA); got != "SERVFAIL" {
		t.Errorf("answer %q", got)
	}
}
