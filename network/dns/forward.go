package dns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
)

const (
	// tryTime bounds one question to one upstream server, allTime all of them:
	// a client asks again after five seconds (resolv.conf(5), timeout).
	tryTime = 2 * time.Second
	allTime = 5 * time.Second
	// restTime is how long a server that did not answer is asked last.
	restTime = 10 * time.Second
	// maxForwarded bounds questions to upstream servers under way.
	maxForwarded = 1000
	// maxCached bounds the answers kept.
	maxCached = 10000
	// ednsSize is the size of UDP messages that pass any sane network
	// (DNS flag day 2020).
	ednsSize = 1232
)

// errBusy says that too many questions are under way.
var errBusy = errors.New("too many questions to upstream servers")

// errNoUpstream says that there is nobody to ask.
var errNoUpstream = errors.New("no upstream server")

// A forwarder asks upstream servers. It may be used concurrently.
type forwarder struct {
	clock  clock.Clock
	log    *slog.Logger
	cache  *cache
	flight singleflight.Group
	slots  chan struct{}
	ask    func(ctx context.Context, network string, m *mdns.Msg, server netip.AddrPort) (*mdns.Msg, error)

	mu      sync.Mutex
	servers []netip.AddrPort
	resting map[netip.AddrPort]time.Time // until when a server is asked last
	probes  map[string]netip.AddrPort    // names of loop probes under way
	looped  map[netip.AddrPort]bool      // servers that ask us
}

func newForwarder(c clock.Clock, log *slog.Logger) *forwarder {
	return &forwarder{
		clock: c, log: log, cache: newCache(maxCached), slots: make(chan struct{}, maxForwarded), ask: exchange,
		resting: map[netip.AddrPort]time.Time{}, probes: map[string]netip.AddrPort{}, looped: map[netip.AddrPort]bool{},
	}
}

// exchange asks one server once. The answer is to the question, or an error.
func exchange(ctx context.Context, network string, m *mdns.Msg, server netip.AddrPort) (*mdns.Msg, error) {
	c := mdns.Client{Net: network, UDPSize: ednsSize, Timeout: tryTime}
	r, _, err := c.ExchangeContext(ctx, m, server.String())
	if err != nil {
		return nil, err
	}
	q := m.Question[0]
	if len(r.Question) != 1 || r.Question[0].Qtype != q.Qtype || r.Question[0].Qclass != q.Qclass || !strings.EqualFold(r.Question[0].Name, q.Name) {
		return nil, fmt.Errorf("answer of %s is to another question", server)
	}
	return r, nil
}

// set replaces the servers.
func (f *forwarder) set(servers []netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = slices.Clone(servers)
	f.looped = map[netip.AddrPort]bool{}
	f.resting = map[netip.AddrPort]time.Time{}
}

// order returns the servers in the order to ask them: as configured, but those
// that did not answer lately last, and those that ask us never.
func (f *forwarder) order() []netip.AddrPort {
	now := f.clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	var first, last []netip.AddrPort
	for _, s := range f.servers {
		switch until, ok := f.resting[s]; {
		case f.looped[s]:
		case ok && now.Before(until):
			last = append(last, s)
		default:
			first = append(first, s)
		}
	}
	return append(first, last...)
}

func (f *forwarder) rest(s netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting[s] = f.clock.Now().Add(restTime)
}

// resolve answers a question from the cache or an upstream server. The message
// is the caller's; it has no OPT record.
func (f *forwarder) resolve(ctx context.Context, k cacheKey) (*mdns.Msg, error) {
	if m := f.cache.get(k, f.clock.Now()); m != nil {
		return m, nil
	}
	got, err, shared := f.flight.Do(fmt.Sprintf("%s %d %t %t", k.name, k.qtype, k.do, k.cd), func() (any, error) {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
		default:
			return nil, errBusy
		}
		m, err := f.upstream(ctx, k)
		if err != nil {
			return nil, err
		}
		f.cache.put(k, m.Copy(), f.clock.Now())
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	m := got.(*mdns.Msg)
	if shared {
		m = m.Copy()
	}
	return m, nil
}

// upstream asks servers until one answers. Failures are kept for a second, so
// that a storm of clients does not become one of ours.
func (f *forwarder) upstream(ctx context.Context, k cacheKey) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, allTime)
	defer cancel()
	servers := f.order()
	if len(servers) == 0 {
		return nil, errNoUpstream
	}
	var failed *mdns.Msg
	var errs []error
	for range 2 {
		for _, s := range servers {
			m, err := f.try(ctx, k, s)
			switch {
			case err != nil:
				if ctx.Err() == nil {
					f.rest(s)
				}
				errs = append(errs, err)
			case m.Rcode == mdns.RcodeServerFailure || m.Rcode == mdns.RcodeRefused:
				failed = m
			default:
				return m, nil
			}
			if ctx.Err() != nil {
				break
			}
		}
		if failed != nil || ctx.Err() != nil {
			break // they did answer; or there is no time to ask again
		}
	}
	if failed == nil {
		f.log.Debug("no upstream server answered", "name", k.name, "error", errors.Join(errs...))
		failed = &mdns.Msg{Question: []mdns.Question{{Name: k.name, Qtype: k.qtype, Qclass: mdns.ClassINET}}}
	}
	return &mdns.Msg{MsgHdr: mdns.MsgHdr{Rcode: mdns.RcodeServerFailure}, Question: failed.Question}, nil
}

// try asks one server, over TCP when UDP was too small.
func (f *forwarder) try(ctx context.Context, k cacheKey, s netip.AddrPort) (*mdns.Msg, error) {
	m := new(mdns.Msg).SetQuestion(k.name, k.qtype)
	m.CheckingDisabled = k.cd
	m.SetEdns0(ednsSize, k.do)
	r, err := f.ask(ctx, "udp", m, s)
	if err == nil && r.Truncated {
		r, err = f.ask(ctx, "tcp", m, s)
	}
	if err == nil && r.Rcode == mdns.RcodeFormatError {
		m.Extra = nil // a server from before EDNS (RFC 6891, section 7)
		r, err = f.ask(ctx, "udp", m, s)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s, err)
	}
	r.Extra = slices.DeleteFunc(r.Extra, func(rr mdns.RR) bool { return rr.Header().Rrtype == mdns.TypeOPT })
	return r, nil
}

// probeSuffix ends the names of loop probes. They reach the root's servers if
// nobody before knows better.
const probeSuffix = ".hansa-loop-probe."

// probe asks each server for a name that only this process knows. If the
// question comes back to us, the server forwards to us, and asking it would go
// in circles.
func (f *forwarder) probe(ctx context.Context) {
	f.mu.Lock()
	servers := slices.Clone(f.servers)
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range servers {
		var b [12]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		name := hex.EncodeToString(b[:]) + probeSuffix
		f.mu.Lock()
		f.probes[name] = s
		f.mu.Unlock()
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(ctx, allTime)
			defer cancel()
			_, _ = f.ask(ctx, "udp", new(mdns.Msg).SetQuestion(name, mdns.TypeHINFO), s)
			f.mu.Lock()
			delete(f.probes, name)
			f.mu.Unlock()
		}()
	}
	wg.Wait()
}

// sawProbe notes a question that came back; it reports whether name is one.
func (f *forwarder) sawProbe(name string) bool {
	if !strings.HasSuffix(name, probeSuffix) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.probes[name]
	if ok && !f.looped[s] {
		f.looped[s] = true
		f.log.Error("upstream DNS server forwards to this cluster's and is not used", "server", s)
	}
	return ok
}
