package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func testConfig() Config {
	return Config{
		Address: netip.MustParseAddr("10.43.0.10"),
		Ranges:  []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16"), netip.MustParsePrefix("fd00:42::/56")},
	}
}

func newSvc(ns, name, clusterIP string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, Ports: ports},
	}
}

func external(ns, name, target string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: target},
	}
}

// slice makes an endpoint slice; endpoints are "ADDRESS [HOSTNAME] [notready]".
func slice(ns, svc, name string, port string, number int32, eps ...string) *discoveryv1.EndpointSlice {
	tcp := corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &tcp}},
	}
	for _, e := range eps {
		words := strings.Fields(e)
		ready := !slices.Contains(words, "notready")
		ep := discoveryv1.Endpoint{Addresses: words[:1], Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
		if len(words) > 1 && words[1] != "notready" {
			ep.Hostname = &words[1]
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

// cluster is a server that knows the objects of the specification's examples.
func cluster() *Server {
	s := New(testConfig())
	for _, ns := range []string{"default", "kube-system", "empty"} {
		s.SetNamespace(ns)
	}
	s.SetService(newSvc("default", "kubernetes", "10.43.0.1", corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}))
	s.SetService(newSvc("kube-system", "kube-dns", "10.43.0.10",
		corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP}))
	s.SetService(newSvc("default", "plain", "10.43.0.7", corev1.ServicePort{Port: 80}))
	dual := newSvc("default", "dual", "10.43.0.8")
	dual.Spec.ClusterIPs = []string{"10.43.0.8", "fd00:42::8"}
	s.SetService(dual)
	s.SetService(newSvc("default", "pets", corev1.ClusterIPNone))
	s.SetSlice(slice("default", "pets", "pets-1", "http", 8080, "10.42.0.3 my-pet", "10.42.0.4", "10.42.0.5 sick notready"))
	s.SetSlice(slice("default", "pets", "pets-2", "http", 8080, "10.42.0.6 my-pet-2"))
	s.SetService(newSvc("default", "idle", corev1.ClusterIPNone))
	s.SetSlice(slice("default", "idle", "idle-1", "http", 80, "10.42.0.9 notready"))
	s.SetService(external("default", "www", "www.example.com"))
	s.SetService(external("default", "alias", "kubernetes.default.svc.cluster.local"))
	s.SetService(external("default", "ring", "ring.default.svc.cluster.local"))
	s.SetSynced()
	return s
}

// ask asks without a network and prints the answer, its records sorted.
func ask(t testing.TB, s *Server, name string, qtype uint16) string {
	t.Helper()
	return show(s.answer(context.Background(), new(mdns.Msg).SetQuestion(name, qtype)))
}

func show(m *mdns.Msg) string {
	out := []string{mdns.RcodeToString[m.Rcode]}
	for _, section := range []struct {
		prefix string
		rrs    []mdns.RR
	}{{"", m.Answer}, {"authority ", m.Ns}, {"additional ", m.Extra}} {
		var lines []string
		for _, rr := range section.rrs {
			if rr.Header().Rrtype != mdns.TypeOPT {
				lines = append(lines, section.prefix+strings.ReplaceAll(rr.String(), "\t", " "))
			}
		}
		slices.Sort(lines)
		out = append(out, lines...)
	}
	return strings.Join(out, "\n")
}

const soa = "authority cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"

// Kubernetes DNS specification 1.1.0, by section.
func TestSpecification(t *testing.T) {
	s := cluster()
	noName, noData := "NXDOMAIN\n"+soa, "NOERROR\n"+soa
	for _, tc := range []struct {
		rule, name string
		qtype      uint16
		want       string
	}{
		{"2.2", "dns-version.cluster.local.", mdns.TypeTXT, `NOERROR` + "\n" + `dns-version.cluster.local. 5 IN TXT "1.1.0"`},
		{"2.3.1", "kubernetes.default.svc.cluster.local.", mdns.TypeA, "NOERROR\nkubernetes.default.svc.cluster.local. 5 IN A 10.43.0.1"},
		{"2.3.1 no AAAA", "kubernetes.default.svc.cluster.local.", mdns.TypeAAAA, noData},
		{"2.3.1 dual A", "dual.default.svc.cluster.local.", mdns.TypeA, "NOERROR\ndual.default.svc.cluster.local. 5 IN A 10.43.0.8"},
		{"2.3.1 dual AAAA", "dual.default.svc.cluster.local.", mdns.TypeAAAA, "NOERROR\ndual.default.svc.cluster.local. 5 IN AAAA fd00:42::8"},
		{"2.1 case", "Kubernetes.DEFAULT.svc.Cluster.local.", mdns.TypeA, "NOERROR\nKubernetes.DEFAULT.svc.Cluster.local. 5 IN A 10.43.0.1"},
		{"2.3.2", "_https._tcp.kubernetes.default.svc.cluster.local.", mdns.TypeSRV,
			"NOERROR\n_https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.\n" +
				"additional kubernetes.default.svc.cluster.local. 5 IN A 10.43.0.1"},
		{"2.3.2 udp", "_dns._udp.kube-dns.kube-system.svc.cluster.local.", mdns.TypeSRV,
			"NOERROR\n_dns._udp.kube-dns.kube-system.svc.cluster.local. 5 IN SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.\n" +
				"additional kube-dns.kube-system.svc.cluster.local. 5 IN A 10.43.0.10"},
		{"2.3.2 other protocol", "_dns._tcp.kube-dns.kube-system.svc.cluster.local.", mdns.TypeSRV, noName},
		{"2.3.2 unnamed port", "_80._tcp.plain.default.svc.cluster.local.", mdns.TypeSRV, noName},
		{"2.3.2 not SRV", "_https._tcp.kubernetes.default.svc.cluster.local.", mdns.TypeA, noData},
		{"empty non-terminal", "_tcp.kubernetes.default.svc.cluster.local.", mdns.TypeA, noData},
		{"no such non-terminal", "_sctp.kubernetes.default.svc.cluster.local.", mdns.TypeA, noName},
		{"2.3.3", "1.0.43.10.in-addr.arpa.", mdns.TypePTR, "NOERROR\n1.0.43.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local."},
		{"2.3.3 AAAA", "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.4.0.0.0.0.d.f.ip6.arpa.", mdns.TypePTR,
			"NOERROR\n8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.4.0.0.0.0.d.f.ip6.arpa. 5 IN PTR dual.default.svc.cluster.local."},
		{"2.4.1", "pets.default.svc.cluster.local.", mdns.TypeA,
			"NOERROR\npets.default.svc.cluster.local. 5 IN A 10.42.0.3\npets.default.svc.cluster.local. 5 IN A 10.42.0.4\npets.default.svc.cluster.local. 5 IN A 10.42.0.6"},
		{"2.4.1 hostname", "my-pet.pets.default.svc.cluster.local.", mdns.TypeA, "NOERROR\nmy-pet.pets.default.svc.cluster.local. 5 IN A 10.42.0.3"},
		{"2.4.1 assigned hostname", "10-42-0-4.pets.default.svc.cluster.local.", mdns.TypeA, "NOERROR\n10-42-0-4.pets.default.svc.cluster.local. 5 IN A 10.42.0.4"},
		{"2.4.1 not ready", "sick.pets.default.svc.cluster.local.", mdns.TypeA, noName},
		{"2.4.1 none ready", "idle.default.svc.cluster.local.", mdns.TypeA, noName},
		{"2.4.2", "_http._tcp.pets.default.svc.cluster.local.", mdns.TypeSRV,
			"NOERROR\n_http._tcp.pets.default.svc.cluster.local. 5 IN SRV 0 100 8080 10-42-0-4.pets.default.svc.cluster.local.\n" +
				"_http._tcp.pets.default.svc.cluster.local. 5 IN SRV 0 100 8080 my-pet-2.pets.default.svc.cluster.local.\n" +
				"_http._tcp.pets.default.svc.cluster.local. 5 IN SRV 0 100 8080 my-pet.pets.default.svc.cluster.local.\n" +
				"additional 10-42-0-4.pets.default.svc.cluster.local. 5 IN A 10.42.0.4\n" +
				"additional my-pet-2.pets.default.svc.cluster.local. 5 IN A 10.42.0.6\n" +
				"additional my-pet.pets.default.svc.cluster.local. 5 IN A 10.42.0.3"},
		{"2.4.3", "3.0.42.10.in-addr.arpa.", mdns.TypePTR, "NOERROR\n3.0.42.10.in-addr.arpa. 5 IN PTR my-pet.pets.default.svc.cluster.local."},
		{"2.5 CNAME", "www.default.svc.cluster.local.", mdns.TypeCNAME, "NOERROR\nwww.default.svc.cluster.local. 5 IN CNAME www.example.com."},
		{"2.5 inside", "alias.default.svc.cluster.local.", mdns.TypeA,
			"NOERROR\nalias.default.svc.cluster.local. 5 IN CNAME kubernetes.default.svc.cluster.local.\nkubernetes.default.svc.cluster.local. 5 IN A 10.43.0.1"},
		{"2.6", "10-42-0-77.default.pod.cluster.local.", mdns.TypeA, "NOERROR\n10-42-0-77.default.pod.cluster.local. 5 IN A 10.42.0.77"},
		{"2.6 IPv6", "fd00--7.default.pod.cluster.local.", mdns.TypeAAAA, "NOERROR\nfd00--7.default.pod.cluster.local. 5 IN AAAA fd00::7"},
		{"2.6 no address", "10-42-0.default.pod.cluster.local.", mdns.TypeA, noName},
		{"2.6 no namespace", "10-42-0-77.nowhere.pod.cluster.local.", mdns.TypeA, noName},
		{"namespace", "empty.svc.cluster.local.", mdns.TypeA, noData},
		{"namespace below pod", "empty.pod.cluster.local.", mdns.TypeA, noData},
		{"no namespace", "nowhere.svc.cluster.local.", mdns.TypeA, noName},
		{"no service", "nothing.default.svc.cluster.local.", mdns.TypeA, noName},
		{"below a service", "x.kubernetes.default.svc.cluster.local.", mdns.TypeA, noName},
		{"below a name elsewhere", "x.www.default.svc.cluster.local.", mdns.TypeA, noName},
		{"deep", "a.b.c.pets.default.svc.cluster.local.", mdns.TypeA, noName},
		{"svc", "svc.cluster.local.", mdns.TypeA, noData},
		{"nothing", "nothing.cluster.local.", mdns.TypeA, noName},
		{"search path, ndots 5", "example.com.default.svc.cluster.local.", mdns.TypeA, noName},
		{"search path, ndots 5", "example.com.svc.cluster.local.", mdns.TypeA, noName},
		{"search path, ndots 5", "example.com.cluster.local.", mdns.TypeA, noName},
		{"SOA", "cluster.local.", mdns.TypeSOA, "NOERROR\n" + strings.TrimPrefix(soa, "authority ")},
		{"NS", "cluster.local.", mdns.TypeNS, "NOERROR\ncluster.local. 5 IN NS ns.dns.cluster.local.\nadditional ns.dns.cluster.local. 5 IN A 10.43.0.10"},
		{"NS's address", "ns.dns.cluster.local.", mdns.TypeA, "NOERROR\nns.dns.cluster.local. 5 IN A 10.43.0.10"},
		{"RFC 8482", "kubernetes.default.svc.cluster.local.", mdns.TypeANY, "NOERROR\nkubernetes.default.svc.cluster.local. 5 IN HINFO \"RFC8482\" \"\""},
		{"an address of ours that nobody has", "99.0.42.10.in-addr.arpa.", mdns.TypePTR,
			"NXDOMAIN\nauthority 42.10.in-addr.arpa. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"},
		{"aliases in a ring", "ring.default.svc.cluster.local.", mdns.TypeA,
			"SERVFAIL\n" + strings.TrimSuffix(strings.Repeat("ring.default.svc.cluster.local. 5 IN CNAME ring.default.svc.cluster.local.\n", 9), "\n")},
	} {
		t.Run(tc.rule+" "+tc.name, func(t *testing.T) {
			if diff := gocmp.Diff(tc.want, ask(t, s, tc.name, tc.qtype)); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

// Changes show at once, and what is gone is gone.
func TestChanges(t *testing.T) {
	s := cluster()
	pets := func(want string) {
		t.Helper()
		if got := ask(t, s, "my-pet.pets.default.svc.cluster.local.", mdns.TypeA); !strings.Contains(got, want) {
			t.Errorf("my-pet is %q, want %q", got, want)
		}
	}
	pets("10.42.0.3")
	s.SetSlice(slice("default", "pets", "pets-1", "http", 8080, "10.42.0.33 my-pet"))
	pets("10.42.0.33")
	if got := ask(t, s, "3.0.42.10.in-addr.arpa.", mdns.TypePTR); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("the former address has a name: %s", got)
	}
	s.SetSlice(slice("default", "other", "pets-1", "http", 8080, "10.42.0.33 my-pet")) // another service's now
	pets("NXDOMAIN")
	s.DeleteSlice(Key{Namespace: "default", Name: "pets-2"})
	if got := ask(t, s, "pets.default.svc.cluster.local.", mdns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("pets without endpoints: %s", got)
	}
	s.DeleteService(Key{Namespace: "default", Name: "kubernetes"})
	if got := ask(t, s, "kubernetes.default.svc.cluster.local.", mdns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("a service that is gone: %s", got)
	}
	s.DeleteNamespace("empty")
	if got := ask(t, s, "empty.svc.cluster.local.", mdns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("a namespace that is gone: %s", got)
	}
}

// Before it knows everything, the server says so instead of no.
func TestNotSynced(t *testing.T) {
	s := New(testConfig())
	for _, name := range []string{"kubernetes.default.svc.cluster.local.", "1.0.43.10.in-addr.arpa."} {
		if got := ask(t, s, name, mdns.TypeA); got != "SERVFAIL" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Whatever comes in whatever order, the zone is what a zone that was told only
// the end would be.
func TestIncrementalEqualsRebuild(t *testing.T) {
	print := func(z *zone) string {
		var out []string
		for label, s := range z.services {
			out = append(out, fmt.Sprintf("%s %s %v %v %v %v %v", label, s.external, s.ips, s.ports, s.headless, s.hosts, s.targets))
		}
		for ip, names := range z.names {
			out = append(out, fmt.Sprint(ip, names))
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	rapid.Check(t, func(t *rapid.T) {
		z := newZone("cluster.local.")
		all := []string{"a", "b", "c"}
		names := rapid.SampledFrom(all)
		slicesOf := rapid.SampledFrom([]string{"x", "y", "z"})
		t.Repeat(map[string]func(*rapid.T){
			"service": func(t *rapid.T) {
				ip := rapid.SampledFrom([]string{"None", "10.43.0.1", "10.43.0.2"}).Draw(t, "ip")
				z.setService(newSvc("default", names.Draw(t, "name"), ip, corev1.ServicePort{Name: "http", Port: 80}))
			},
			"external": func(t *rapid.T) { z.setService(external("default", names.Draw(t, "name"), "example.com")) },
			"slice": func(t *rapid.T) {
				eps := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"10.42.0.1", "10.42.0.1 h", "10.42.0.2 h", "10.42.0.3 i", "10.42.0.4 notready"}), rapid.ID[string]).Draw(t, "eps")
				z.setSlice(slice("default", names.Draw(t, "of"), slicesOf.Draw(t, "slice"), "http", 80, eps...))
			},
			"delete service": func(t *rapid.T) { z.deleteService(Key{Namespace: "default", Name: names.Draw(t, "name")}) },
			"delete slice":   func(t *rapid.T) { z.deleteSlice(Key{Namespace: "default", Name: slicesOf.Draw(t, "slice")}) },
			"": func(t *rapid.T) {
				fresh := newZone("cluster.local.")
				for _, s := range z.objects {
					fresh.setService(s)
				}
				for _, name := range all {
					for _, s := range z.slices.Of(Key{Namespace: "default", Name: name}) {
						fresh.setSlice(s)
					}
				}
				if diff := gocmp.Diff(print(fresh), print(z)); diff != "" {
					t.Fatalf("rebuilt (-) and incremental (+) differ:\n%s", diff)
				}
			},
		})
	})
}

// What is not a plain question gets the code that the RFCs have for it.
func TestRefusals(t *testing.T) {
	s := cluster()
	q := func(change func(*mdns.Msg)) *mdns.Msg {
		m := new(mdns.Msg).SetQuestion("kubernetes.default.svc.cluster.local.", mdns.TypeA)
		change(m)
		return m
	}
	for _, tc := range []struct {
		name string
		m    *mdns.Msg
		want int
	}{
		{"notify", q(func(m *mdns.Msg) { m.Opcode = mdns.OpcodeNotify }), mdns.RcodeNotImplemented},
		{"no question", q(func(m *mdns.Msg) { m.Question = nil }), mdns.RcodeFormatError},
		{"EDNS 1", q(func(m *mdns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), mdns.RcodeBadVers},
		{"class CH", q(func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }), mdns.RcodeRefused},
		{"transfer", q(func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeAXFR }), mdns.RcodeRefused},
		{"no recursion", q(func(m *mdns.Msg) { m.Question[0].Name = "example.com."; m.RecursionDesired = false }), mdns.RcodeRefused},
	} {
		if got := s.answer(t.Context(), tc.m); got.Rcode != tc.want || got.Id != tc.m.Id || !got.Response {
			t.Errorf("%s: %s", tc.name, mdns.RcodeToString[got.Rcode])
		}
	}
}

// Over real sockets: both transports, EDNS, truncation, and the end.
func TestServe(t *testing.T) {
	s := cluster()
	var eps []string
	for i := range 100 {
		eps = append(eps, fmt.Sprintf("10.42.7.%d", i+1))
	}
	s.SetService(newSvc("default", "many", corev1.ClusterIPNone))
	s.SetSlice(slice("default", "many", "many-1", "http", 80, eps...))
	p, l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := p.LocalAddr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, []net.PacketConn{p}, []net.Listener{l}) }()
	exchange := func(network, name string, edns uint16) *mdns.Msg {
		t.Helper()
		m := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		if edns > 0 {
			m.SetEdns0(edns, false)
		}
		c := mdns.Client{Net: network, UDPSize: 4096}
		r, _, err := c.ExchangeContext(t.Context(), m, addr)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, network := range []string{"udp", "tcp"} {
		r := exchange(network, "kubernetes.default.svc.cluster.local.", 0)
		if len(r.Answer) != 1 || !r.Authoritative || !r.RecursionAvailable || !r.RecursionDesired || r.IsEdns0() != nil {
			t.Errorf("%s: %s", network, r)
		}
	}
	for _, tc := range []struct {
		network string
		edns    uint16
		limit   int
		whole   bool
	}{{"udp", 0, 512, false}, {"udp", 100, 512, false}, {"udp", 4096, 1232, false}, {"tcp", 0, 65535, true}} {
		r := exchange(tc.network, "many.default.svc.cluster.local.", tc.edns)
		r.Compress = true // for the length, as it came
		if r.Truncated == tc.whole || (len(r.Answer) == 100) != tc.whole || r.Len() > tc.limit || len(r.Answer) == 0 {
			t.Errorf("%s with EDNS %d: %d records in %d bytes, truncated %t", tc.network, tc.edns, len(r.Answer), r.Len(), r.Truncated)
		}
		if (r.IsEdns0() != nil) != (tc.edns > 0) {
			t.Errorf("%s with EDNS %d: answered with %v", tc.network, tc.edns, r.IsEdns0())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, _, err := Listen(t.Context(), netip.MustParseAddrPort(addr)); err != nil {
		t.Errorf("the sockets are still open: %v", err)
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := cluster()
	m := new(mdns.Msg).SetQuestion("kubernetes.default.svc.cluster.local.", mdns.TypeA)
	b.ReportAllocs()
	for b.Loop() {
		s.answer(b.Context(), m)
	}
}
