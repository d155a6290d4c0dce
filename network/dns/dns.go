package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/clock"
)

// A Config says what a Server is responsible for.
type Config struct {
	// Domain is the cluster's domain; empty is cluster.local.
	Domain string
	// Address is the one that clients have as their name server: the cluster
	// address of Service kube-system/kube-dns.
	Address netip.Addr
	// Ranges are the cluster's ranges of addresses, of pods and of services:
	// nobody else is asked about names of addresses in them.
	Ranges []netip.Prefix
	// Upstreams are asked, in this order, for names that are not the cluster's.
	Upstreams []netip.AddrPort
	// TTL is how many seconds clients may keep answers about the cluster;
	// 0 is 5.
	TTL uint32
	// Log is slog.Default() if nil.
	Log *slog.Logger
	// Clock ages cached answers; nil is the real one.
	Clock clock.Clock
}

// A Server answers DNS questions. It is told of namespaces, services and
// endpoints, and may be asked and told at the same time; objects given to it
// are read until they are replaced, and never written to.
type Server struct {
	cfg     Config
	log     *slog.Logger
	zone    *zone
	forward *forwarder
	suffix  string // "." + the zone's domain

	mu        sync.Mutex
	own       []netip.AddrPort // where it listens
	upstreams []netip.AddrPort
	probe     func() // while serving
}

// New returns a Server that knows no service yet.
func New(cfg Config) *Server {
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.TTL == 0 {
		cfg.TTL = 5
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	domain := mdns.CanonicalName(cfg.Domain)
	s := &Server{
		cfg: cfg, log: cfg.Log, zone: newZone(domain), suffix: "." + domain,
		forward: newForwarder(cfg.Clock, cfg.Log), upstreams: cfg.Upstreams,
	}
	s.useUpstreams()
	return s
}

// SetService adds or replaces a service.
func (s *Server) SetService(svc *corev1.Service) { s.zone.setService(svc) }

// DeleteService removes a service.
func (s *Server) DeleteService(k Key) { s.zone.deleteService(k) }

// SetSlice adds or replaces an endpoint slice.
func (s *Server) SetSlice(e *discoveryv1.EndpointSlice) { s.zone.setSlice(e) }

// DeleteSlice removes an endpoint slice.
func (s *Server) DeleteSlice(k Key) { s.zone.deleteSlice(k) }

// SetNamespace says that a namespace exists.
func (s *Server) SetNamespace(name string) { s.zone.setNamespace(name, true) }

// DeleteNamespace says that a namespace is gone.
func (s *Server) DeleteNamespace(name string) { s.zone.setNamespace(name, false) }

// SetSynced says that the Server was told everything there is. Until then it
// answers questions about the cluster with a failure, upon which clients ask
// again, since it cannot tell what does not exist.
func (s *Server) SetSynced() {
	s.zone.mu.Lock()
	defer s.zone.mu.Unlock()
	s.zone.synced = true
}

// SetUpstreams replaces the upstream servers. Addresses of this Server are
// left out.
func (s *Server) SetUpstreams(servers []netip.AddrPort) {
	s.mu.Lock()
	s.upstreams = slices.Clone(servers)
	s.mu.Unlock()
	s.useUpstreams()
}

// useUpstreams hands the usable upstream servers to the forwarder.
func (s *Server) useUpstreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var usable []netip.AddrPort
	for _, u := range s.upstreams {
		if u.Addr().Unmap() == s.cfg.Address || slices.Contains(s.own, u) {
			s.log.Error("upstream DNS server is this cluster's own and is not used", "server", u)
			continue
		}
		usable = append(usable, u)
	}
	s.forward.set(usable)
	if s.probe != nil {
		s.probe()
	}
}

// Listen opens the sockets for an address, of UDP and TCP.
func Listen(ctx context.Context, addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	var lc net.ListenConfig
	p, err := lc.ListenPacket(ctx, "udp", addr.String())
	if err != nil {
		return nil, nil, fmt.Errorf("listen for DNS: %w", err)
	}
	l, err := lc.Listen(ctx, "tcp", p.LocalAddr().String())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for DNS: %w", err), p.Close())
	}
	return p, l, nil
}

// Serve answers on the sockets, which it closes, until ctx ends or one of them
// fails. Questions under way are answered before it returns.
func (s *Server) Serve(ctx context.Context, packets []net.PacketConn, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) { s.serveDNS(ctx, w, r) })
	var servers []*mdns.Server
	var own []netip.AddrPort
	for _, p := range packets {
		servers = append(servers, &mdns.Server{PacketConn: p, Handler: handler, UDPSize: 4096})
		own = append(own, addrPort(p.LocalAddr()))
	}
	for _, l := range listeners {
		servers = append(servers, &mdns.Server{Listener: l, Handler: handler})
		own = append(own, addrPort(l.Addr()))
	}
	var started, running sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		started.Add(1)
		running.Add(1)
		srv.NotifyStartedFunc = started.Done
		go func() {
			defer running.Done()
			if err := srv.ActivateAndServe(); err != nil {
				failed <- fmt.Errorf("serve DNS: %w", err)
			}
		}()
	}
	started.Wait()
	var probing sync.WaitGroup
	s.mu.Lock()
	s.own = own
	s.probe = func() {
		probing.Add(1)
		go func() {
			defer probing.Done()
			s.forward.probe(ctx)
		}()
	}
	s.mu.Unlock()
	s.useUpstreams()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.mu.Lock()
	s.probe = nil
	s.mu.Unlock()
	for _, srv := range servers {
		_ = srv.Shutdown() // only fails if it is down
	}
	cancel()
	running.Wait()
	probing.Wait()
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serveDNS answers one question.
func (s *Server) serveDNS(ctx context.Context, w mdns.ResponseWriter, r *mdns.Msg) {
	m := s.answer(ctx, r)
	size := mdns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = mdns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), mdns.MinMsgSize), ednsSize)
		}
	}
	m.Truncate(size)
	_ = w.WriteMsg(m) // a client that cannot be reached asks again
}

// answer makes the whole answer to a message.
func (s *Server) answer(ctx context.Context, r *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg).SetReply(r)
	m.RecursionAvailable = true
	opt := r.IsEdns0()
	if opt != nil {
		m.SetEdns0(ednsSize, opt.Do())
	}
	switch {
	case r.Opcode != mdns.OpcodeQuery:
		m.Rcode = mdns.RcodeNotImplemented
		return m
	case len(r.Question) != 1:
		m.Rcode = mdns.RcodeFormatError
		return m
	case opt != nil && opt.Version() != 0:
		m.Rcode = mdns.RcodeBadVers
		return m
	}
	q := r.Question[0]
	if q.Qclass != mdns.ClassINET || q.Qtype == mdns.TypeAXFR || q.Qtype == mdns.TypeIXFR {
		m.Rcode = mdns.RcodeRefused
		return m
	}
	name := q.Name
	if strings.ContainsFunc(name, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		name = mdns.CanonicalName(name)
	}
	if zone, rep, ok := s.local(q, name); ok {
		s.authoritative(ctx, m, zone, rep, cacheKey{qtype: q.Qtype, do: opt != nil && opt.Do(), cd: r.CheckingDisabled})
		return m
	}
	if q.Qtype == mdns.TypeHINFO && s.forward.sawProbe(name) {
		m.Rcode = mdns.RcodeRefused
		return m
	}
	if !r.RecursionDesired {
		m.Rcode = mdns.RcodeRefused // we are nobody's authority but the cluster's
		return m
	}
	got, err := s.forward.resolve(ctx, cacheKey{name, q.Qtype, opt != nil && opt.Do(), r.CheckingDisabled})
	if err != nil {
		m.Rcode = mdns.RcodeServerFailure
		return m
	}
	m.Rcode, m.AuthenticatedData = got.Rcode, got.AuthenticatedData
	m.Answer, m.Ns = spell(got.Answer, name, q.Name), got.Ns
	m.Extra = append(got.Extra, m.Extra...)
	return m
}

// spell gives records of the name asked for the client's spelling, which it
// may check.
func spell(rrs []mdns.RR, name, asked string) []mdns.RR {
	if name == asked {
		return rrs
	}
	for _, rr := range rrs {
		if h := rr.Header(); strings.EqualFold(h.Name, name) {
			h.Name = asked
		}
	}
	return rrs
}

// local answers from the cluster's zones. zone is the one the name is in; ok
// is false if it is in none.
func (s *Server) local(q mdns.Question, name string) (zone string, r reply, ok bool) {
	ask := question{name: q.Name, qtype: q.Qtype, ttl: s.cfg.TTL}
	sub, ok := strings.CutSuffix(name, s.suffix)
	if !ok && name == s.zone.domain {
		sub, ok = "", true
	}
	if ok {
		if !s.synced() {
			return s.zone.domain, reply{rcode: mdns.RcodeServerFailure}, true
		}
		if q.Qtype == mdns.TypeANY {
			return s.zone.domain, anyReply(ask, s.zone.lookup(ask, sub, s.cfg.Address)), true
		}
		return s.zone.domain, s.zone.lookup(ask, sub, s.cfg.Address), true
	}
	ip, ok := parseReverse(name)
	if !ok {
		return "", reply{}, false
	}
	for _, p := range s.cfg.Ranges {
		if p.Contains(ip) {
			zone := reverseZone(ip, p.Bits())
			if !s.synced() {
				return zone, reply{rcode: mdns.RcodeServerFailure}, true
			}
			return zone, s.zone.reverseLookup(ask, ip), true
		}
	}
	return "", reply{}, false
}

func (s *Server) synced() bool {
	s.zone.mu.RLock()
	defer s.zone.mu.RUnlock()
	return s.zone.synced
}

// anyReply is the least answer to a question for everything (RFC 8482).
func anyReply(q question, r reply) reply {
	if r.rcode != mdns.RcodeSuccess {
		return r
	}
	return reply{answer: []mdns.RR{&mdns.HINFO{Hdr: q.header(q.name, mdns.TypeHINFO), Cpu: "RFC8482"}}}
}

// authoritative fills an answer from the cluster's zones, and follows a name
// that leads outside.
func (s *Server) authoritative(ctx context.Context, m *mdns.Msg, zone string, r reply, k cacheKey) {
	const maxAliases = 8 // services that name services
	m.Authoritative = true
	m.Rcode = r.rcode
	m.Answer = r.answer
	m.Extra = append(r.extra, m.Extra...)
	for range maxAliases {
		if r.alias == "" {
			break
		}
		k.name = mdns.CanonicalName(r.alias)
		q := mdns.Question{Name: r.alias, Qtype: k.qtype, Qclass: mdns.ClassINET}
		var inside bool
		if zone, r, inside = s.local(q, k.name); inside {
			m.Rcode = r.rcode
			m.Answer = append(m.Answer, r.answer...)
			continue
		}
		got, err := s.forward.resolve(ctx, k)
		if err != nil {
			m.Rcode = mdns.RcodeServerFailure
			return
		}
		m.Rcode = got.Rcode // the last name's (RFC 6604)
		m.Answer = append(m.Answer, spell(got.Answer, k.name, q.Name)...)
		m.Ns = got.Ns
		return
	}
	if r.alias != "" {
		m.Rcode = mdns.RcodeServerFailure // they go in circles
		return
	}
	if m.Rcode == mdns.RcodeNameError || m.Rcode == mdns.RcodeSuccess && len(r.answer) == 0 {
		m.Ns = []mdns.RR{s.zone.soa(zone, s.cfg.TTL)}
	}
}
