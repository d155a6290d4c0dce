package proxy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

var rewrite = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nrun with -update and review", path, got)
	}
}

func nodePort(n int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = n
	}
}

func localPolicy(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func affine(seconds int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

func all(fs ...func(*corev1.Service)) func(*corev1.Service) {
	return func(s *corev1.Service) {
		for _, f := range fs {
			f(s)
		}
	}
}

func balancer(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
	}
}

// A step is one change of a plan test.
type step struct {
	what string
	do   func(p *Proxy)
}

func set(s *corev1.Service) func(*Proxy) { return func(p *Proxy) { p.SetService(s) } }

// web sets the endpoints of service web.
func web(eps ...ep) func(*Proxy) {
	return func(p *Proxy) { p.SetSlice(slice("web", "web-1", 8080, corev1.ProtocolTCP, eps...)) }
}

// dns sets the endpoints of service dns.
func dns(eps ...ep) func(*Proxy) {
	return func(p *Proxy) { p.SetSlice(slice("dns", "dns-1", 5353, corev1.ProtocolUDP, eps...)) }
}

func internalLocal(s *corev1.Service) {
	l := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = &l
}

var udp53 = corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}

var planCases = []struct {
	name  string
	steps []step
}{
	{"clusterip", []step{
		{"a service without endpoints", set(service("web", "10.43.0.5", nil))},
		{"its first endpoints", web("10.42.0.2", "10.42.0.3", "10.42.0.4")},
		{"the first goes", web("10.42.0.3", "10.42.0.4")},
		{"another comes", web("10.42.0.3", "10.42.0.4", "10.42.0.9")},
		{"nothing changes", web("10.42.0.3", "10.42.0.4", "10.42.0.9")},
		{"one is not ready", web("10.42.0.3", "10.42.0.4 notready", "10.42.0.9")},
		{"all terminate, one still serves", web("10.42.0.3 terminating serving", "10.42.0.4 terminating notready")},
		{"all are gone", web()},
		{"the service goes", func(p *Proxy) { p.DeleteService(Key{Namespace: "default", Name: "web"}) }},
	}},
	{"nodeport", []step{
		{"policy Cluster", func(p *Proxy) {
			set(service("web", "10.43.0.5", nodePort(30080)))(p)
			web("10.42.0.2", "10.42.1.3 remote")(p)
		}},
		{"policy Local", set(service("web", "10.43.0.5", all(nodePort(30080), localPolicy)))},
		{"no local endpoint", web("10.42.1.3 remote")},
		{"no endpoint", web()},
	}},
	{"affinity", []step{
		{"an hour", func(p *Proxy) {
			set(service("web", "10.43.0.5", affine(3600)))(p)
			web("10.42.0.2", "10.42.0.3")(p)
		}},
		{"one endpoint less", web("10.42.0.3")},
		{"a minute", set(service("web", "10.43.0.5", affine(60)))},
		{"none", set(service("web", "10.43.0.5", nil))},
	}},
	{"internal-local", []step{
		{"both kinds of endpoints", func(p *Proxy) {
			set(service("web", "10.43.0.5", internalLocal))(p)
			web("10.42.0.2", "10.42.1.3 remote")(p)
		}},
		{"none here", web("10.42.1.3 remote")},
	}},
	{"loadbalancer", []step{
		{"two addresses, one external", func(p *Proxy) {
			set(service("web", "10.43.0.5", all(balancer("198.51.100.7", "198.51.100.8"), nodePort(30080), balancer(), func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"198.51.100.9"}
			})))(p)
			web("10.42.0.2")(p)
		}},
		{"source ranges, local, with health check", set(service("web", "10.43.0.5", all(nodePort(30080), balancer("198.51.100.7"), localPolicy, func(s *corev1.Service) {
			s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24", "192.0.2.1/32"}
			s.Spec.HealthCheckNodePort = 31000
		})))},
		{"a balancer that translates itself", set(service("web", "10.43.0.5", all(nodePort(30080), balancer("198.51.100.7"), func(s *corev1.Service) {
			mode := corev1.LoadBalancerIPModeProxy
			s.Status.LoadBalancer.Ingress[0].IPMode = &mode
		})))},
	}},
	{"udp", []step{
		{"without endpoints", set(service("dns", "10.43.0.10", nodePort(30053), udp53))},
		{"the first", dns("10.42.0.2", "10.42.0.3")},
		{"one goes", dns("10.42.0.3")},
		{"the service goes", func(p *Proxy) { p.DeleteService(Key{Namespace: "default", Name: "dns"}) }},
	}},
	{"not-ours", []step{
		{"headless, by name, and another proxy's", func(p *Proxy) {
			set(service("headless", corev1.ClusterIPNone, nil))(p)
			set(service("name", "", func(s *corev1.Service) {
				s.Spec.Type = corev1.ServiceTypeExternalName
				s.Spec.ExternalName = "example.com"
			}))(p)
			set(service("other", "10.43.0.7", func(s *corev1.Service) {
				s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"}
			}))(p)
			p.SetSlice(slice("headless", "h", 80, corev1.ProtocolTCP, "10.42.0.2"))
		}},
	}},
	{"conflict", []step{
		{"b has an external address", func(p *Proxy) {
			set(service("b", "10.43.0.6", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.9"} }))(p)
			p.SetSlice(slice("b", "b", 80, corev1.ProtocolTCP, "10.42.0.6"))
		}},
		{"a wants the same", func(p *Proxy) {
			set(service("a", "10.43.0.5", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.9"} }))(p)
			p.SetSlice(slice("a", "a", 80, corev1.ProtocolTCP, "10.42.0.5"))
		}},
		{"a goes", func(p *Proxy) { p.DeleteService(Key{Namespace: "default", Name: "a"}) }},
	}},
}

// What each kind of service becomes, and how little each change sends.
func TestPlans(t *testing.T) {
	for _, tc := range planCases {
		t.Run(tc.name, func(t *testing.T) {
			k := &fakeKernel{}
			p := New(testConfig(), k)
			flush := func() string {
				k.Log.Reset()
				if err := p.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				return k.Log.String()
			}
			out := flush()
			if tc.name == "clusterip" {
				out = "# empty\n" + out
			} else {
				out = ""
			}
			for _, s := range tc.steps {
				s.do(p)
				out += "\n# " + s.what + "\n" + flush()
			}
			golden(t, "testdata/"+tc.name+".golden", strings.TrimPrefix(out, "\n"))
		})
	}
}

// Which endpoints get packets (KEP-1669, Service.spec.trafficDistribution).
func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name       string
		eps        []ep
		all, local string
	}{
		{"ready ones", []ep{"10.0.0.1", "10.0.0.2 remote", "10.0.0.3 notready"}, "1 2", "1"},
		{"conditions default", []ep{"10.0.0.1"}, "1", "1"},
		{"terminating while none is ready", []ep{"10.0.0.1 terminating serving", "10.0.0.2 remote terminating serving", "10.0.0.3 notready"}, "1 2", "1"},
		{"terminating beside a ready one", []ep{"10.0.0.1 terminating serving", "10.0.0.2 remote"}, "2", "1"},
		{"terminating and not serving", []ep{"10.0.0.1 terminating notready"}, "", ""},
		{"zone hints", []ep{"10.0.0.1 zone=z1", "10.0.0.2 zone=z2 remote"}, "1", "1"},
		{"zone hints not on all", []ep{"10.0.0.1 zone=z1", "10.0.0.2 remote"}, "1 2", "1"},
		{"zone hints for others only", []ep{"10.0.0.1 zone=z2", "10.0.0.2 zone=z2 remote"}, "1 2", "1"},
		{"node hints", []ep{"10.0.0.1 node=here", "10.0.0.2 node=there remote"}, "1", "1"},
		{"twice", []ep{"10.0.0.1 notready", "10.0.0.1"}, "1", "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testConfig()
			s := slice("web", "web", 80, corev1.ProtocolTCP, tc.eps...)
			everywhere, here := choose(c, endpointsOf(c, &corev1.ServicePort{Protocol: corev1.ProtocolTCP}, ptr(s)))
			if short(everywhere) != tc.all || short(here) != tc.local {
				t.Errorf("all %q local %q, want %q and %q", short(everywhere), short(here), tc.all, tc.local)
			}
		})
	}
}

func ptr[T any](v ...T) []T { return v }

func short(eps []netip.AddrPort) string {
	var out []string
	for _, e := range eps {
		a := e.Addr().As4()
		out = append(out, fmt.Sprint(a[3]))
	}
	return strings.Join(out, " ")
}

// Endpoints keep their slots, and slots have no gaps.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfNDistinct(rapid.IntRange(1, 12), 0, 12, rapid.ID[int])
		toEps := func(ns []int) []netip.AddrPort {
			var out []netip.AddrPort
			for _, n := range ns {
				out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
			}
			return out
		}
		before, want := toEps(gen.Draw(t, "before")), toEps(gen.Draw(t, "want"))
		got := assign(before, want)
		sorted := func(l []netip.AddrPort) []netip.AddrPort {
			return slices.SortedFunc(slices.Values(l), netip.AddrPort.Compare)
		}
		if !slices.Equal(sorted(got), sorted(want)) {
			t.Fatalf("assign(%v, %v) = %v", before, want, got)
		}
		for i, b := range before {
			if i < len(got) && slices.Contains(want, b) && got[i] != b {
				t.Fatalf("%v moved from slot %d: %v", b, i, got)
			}
		}
	})
}

// Whatever comes in whatever order, with or without failures, the kernel holds
// what a proxy that was told only the end would write.
func TestIncrementalEqualsRebuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []string{"a", "b", "c"}
		k := &fakeKernel{}
		p := New(testConfig(), k)
		ctx := context.Background()
		flush := func() {
			if err := p.Flush(ctx); err != nil {
				if err = p.Flush(ctx); err != nil { // the failure was ours; a second is not
					t.Fatal(err)
				}
			}
			fresh := &fakeKernel{}
			q := New(testConfig(), fresh)
			for _, s := range p.services {
				q.SetService(s)
			}
			for _, name := range all {
				for _, s := range p.slices.Of(Key{Namespace: "default", Name: name}) {
					q.SetSlice(s)
				}
			}
			if err := q.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(canonical(fresh.State), canonical(k.State)); diff != "" {
				t.Fatalf("rebuilt (-) and incremental (+) differ:\n%s", diff)
			}
			if !p.Synced() {
				t.Fatal("not synced after a flush")
			}
			batches := k.batches
			if err := p.Flush(ctx); err != nil || k.batches != batches {
				t.Fatalf("a flush without changes sent something, %v", err)
			}
		}
		names := rapid.SampledFrom(all)
		t.Repeat(map[string]func(*rapid.T){
			"service": func(t *rapid.T) { p.SetService(drawService(t, names.Draw(t, "name"))) },
			"slice": func(t *rapid.T) {
				eps := rapid.SliceOfDistinct(rapid.SampledFrom([]ep{
					"10.42.0.2", "10.42.0.3", "10.42.0.3 notready", "10.42.1.4 remote", "10.42.0.5 terminating serving",
					"10.42.1.6 remote terminating serving", "10.42.0.7 zone=z1", "192.0.2.1",
				}), rapid.ID[ep]).Draw(t, "endpoints")
				proto := rapid.SampledFrom([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}).Draw(t, "protocol")
				p.SetSlice(slice(names.Draw(t, "of"), rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "slice"), 8080, proto, eps...))
			},
			"delete service": func(t *rapid.T) { p.DeleteService(Key{Namespace: "default", Name: names.Draw(t, "name")}) },
			"delete slice": func(t *rapid.T) {
				p.DeleteSlice(Key{Namespace: "default", Name: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "slice")})
			},
			"fail":        func(*rapid.T) { k.Fail = errors.New("made to fail") },
			"fail forget": func(*rapid.T) { k.forgetFails = errors.New("made to fail") },
			"resync":      func(*rapid.T) { p.Resync() },
			"": func(*rapid.T) {
				k.Fail, k.forgetFails = onlyIf(len(p.dirty) > 0, k.Fail), onlyIf(len(p.dirty) > 0, k.forgetFails)
				flush()
			},
		})
	})
}

// onlyIf keeps a failure for a flush that has something to do.
func onlyIf(ok bool, err error) error {
	if ok {
		return err
	}
	return nil
}

func drawService(t *rapid.T, name string) *corev1.Service {
	port := rapid.SampledFrom([]corev1.ServicePort{
		{Port: 80, Protocol: corev1.ProtocolTCP}, {Port: 53, Protocol: corev1.ProtocolUDP},
	}).Draw(t, "port")
	s := service(name, rapid.SampledFrom([]string{"10.43.0.1", "10.43.0.2", corev1.ClusterIPNone}).Draw(t, "ip"), nil, port)
	flip := rapid.Bool()
	if flip.Draw(t, "nodeport") {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = rapid.SampledFrom([]int32{30001, 30002}).Draw(t, "node port")
	}
	if flip.Draw(t, "balancer") {
		balancer("198.51.100.7")(s)
	}
	if flip.Draw(t, "ranges") {
		s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"}
	}
	if flip.Draw(t, "external") {
		s.Spec.ExternalIPs = []string{"198.51.100.7", "198.51.100.8"}
	}
	if flip.Draw(t, "local") {
		localPolicy(s)
	}
	if flip.Draw(t, "internal local") {
		l := corev1.ServiceInternalTrafficPolicyLocal
		s.Spec.InternalTrafficPolicy = &l
	}
	if flip.Draw(t, "affinity") {
		affine(rapid.SampledFrom([]int32{60, 120}).Draw(t, "seconds"))(s)
	}
	return s
}
