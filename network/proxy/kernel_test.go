package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/network/internal/nettest"
)

// A world is a host with an uplink and three pods, a, b and c, that answer
// with their names on TCP and UDP port 8080.
type world struct {
	t       *testing.T
	p       *Proxy
	linux   *Linux
	host    *nettest.NS
	outside *nettest.NS
	pod     map[string]*nettest.NS
	stop    map[string]func()
}

const (
	aIP, bIP, cIP = "10.42.0.2", "10.42.0.3", "10.42.0.4"
	hostIP        = "192.0.2.1" // of the uplink
	outsideIP     = "192.0.2.2"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, outside: nettest.Uplink(t, 1500), pod: map[string]*nettest.NS{}, stop: map[string]func(){}}
	nettest.Forwarding(t)
	for name, ip := range map[string]string{"a": aIP, "b": bIP, "c": cIP} {
		w.pod[name] = nettest.Pod(t, ip)
		w.stop[name] = w.pod[name].Serve(8080, name)
	}
	w.host = nettest.Host(t)
	// Packets for addresses that nobody has go back where they came from; the
	// redirects that the host sends then would use up its allowance of ICMP.
	for _, link := range []string{"all", "up0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/send_redirects", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	// Service and pod addresses lead to the host, as under a cloud's routes.
	w.outside.Must(func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(hostIP)})
	})
	w.linux = NewLinux(testConfig().Instance)
	w.p = New(testConfig(), w.linux)
	t.Cleanup(func() {
		if err := w.linux.Teardown(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) flush() {
	w.t.Helper()
	if err := w.p.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// web sets service web at 10.43.0.5:80 with these endpoints.
func (w *world) web(change func(*corev1.Service), eps ...ep) {
	w.t.Helper()
	w.p.SetService(service("web", "10.43.0.5", change))
	w.p.SetSlice(slice("web", "web-1", 8080, corev1.ProtocolTCP, eps...))
	w.flush()
}

// dns sets service dns at 10.43.0.10:53/UDP with these endpoints.
func (w *world) dns(change func(*corev1.Service), eps ...ep) {
	w.t.Helper()
	w.p.SetService(service("dns", "10.43.0.10", change, corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}))
	w.p.SetSlice(slice("dns", "dns-1", 8080, corev1.ProtocolUDP, eps...))
	w.flush()
}

// expect asks and compares the whole answer: the endpoint and the source that
// it saw.
func (w *world) expect(from *nettest.NS, network, addr, want string) {
	w.t.Helper()
	if got, err := from.Ask(network, addr); err != nil || got != want {
		w.t.Errorf("%s %s answered %q, %v; want %q", network, addr, got, err, want)
	}
}

func (w *world) refused(from *nettest.NS, addr string) {
	w.t.Helper()
	if got, err := from.Ask("tcp4", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Errorf("%s answered %q, %v; want connection refused", addr, got, err)
	}
}

// spread asks many times and returns how often each endpoint answered.
func (w *world) spread(from *nettest.NS, addr string, times int) map[string]int {
	w.t.Helper()
	seen := map[string]int{}
	for range times {
		got, err := from.Ask("tcp4", addr)
		if err != nil {
			w.t.Fatal(err)
		}
		seen[strings.Fields(got)[0]]++
	}
	return seen
}

// Service.spec.clusterIP: pods and the host reach every endpoint, and pods are
// seen with their own address.
func TestClusterIP(t *testing.T) {
	w := newWorld(t)
	w.web(nil, aIP, bIP)
	seen := w.spread(w.pod["c"], "10.43.0.5:80", 60)
	if seen["a"] < 10 || seen["b"] < 10 || len(seen) != 2 {
		t.Errorf("60 connections went to %v", seen)
	}
	if seen := w.spread(w.host, "10.43.0.5:80", 30); len(seen) != 2 {
		t.Errorf("the host's connections went to %v", seen)
	}
	got, err := w.pod["c"].Ask("tcp4", "10.43.0.5:80")
	if err != nil || got != "a "+cIP && got != "b "+cIP {
		t.Errorf("answered %q, %v; want the pod's own address as the source", got, err)
	}
	w.dns(nil, aIP)
	w.expect(w.pod["c"], "udp4", "10.43.0.10:53", "a "+cIP)
	w.expect(w.host, "udp4", "10.43.0.10:53", "a "+hostIP)
	// A port that the service does not have, and an address no service has.
	w.refused(w.pod["c"], "10.43.0.5:81")
	w.refused(w.pod["c"], "10.43.0.99:80")
	w.refused(w.host, "10.43.0.5:81")
	// From outside, the source is replaced.
	w.web(nil, aIP)
	w.expect(w.outside, "tcp4", "10.43.0.5:80", "a "+hostIP)
}

// Service.spec.ports.nodePort: at every address of the node, from everywhere.
func TestNodePort(t *testing.T) {
	w := newWorld(t)
	w.web(nodePort(30080), aIP)
	for _, from := range []*nettest.NS{w.outside, w.pod["c"], w.host} {
		w.expect(from, "tcp4", hostIP+":30080", "a "+hostIP)
	}
	w.expect(w.host, "tcp4", "127.0.0.1:30080", "a "+hostIP)
	w.refused(w.outside, hostIP+":30081")
	// externalTrafficPolicy Local keeps the source.
	w.web(all(nodePort(30080), localPolicy), aIP, "10.42.1.9 remote")
	w.expect(w.outside, "tcp4", hostIP+":30080", "a "+outsideIP)
	// … and drops without a local endpoint.
	w.web(all(nodePort(30080), localPolicy), "10.42.1.9 remote")
	if err := w.outside.Silent(hostIP + ":30080"); err != nil {
		t.Errorf("no local endpoint: %v", err)
	}
}

// A pod reaches itself through its service; it sees the node as the source.
func TestHairpin(t *testing.T) {
	w := newWorld(t)
	w.web(nodePort(30080), aIP)
	w.expect(w.pod["a"], "tcp4", "10.43.0.5:80", "a "+hostIP)
	w.expect(w.pod["a"], "tcp4", hostIP+":30080", "a "+hostIP)
	w.dns(nil, aIP)
	w.expect(w.pod["a"], "udp4", "10.43.0.10:53", "a "+hostIP)
}

// Service.spec.sessionAffinity ClientIP.
func TestSessionAffinity(t *testing.T) {
	w := newWorld(t)
	w.web(affine(3600), aIP, bIP, cIP)
	first := map[string]string{}
	for _, client := range []string{"a", "b", "c"} {
		seen := w.spread(w.pod[client], "10.43.0.5:80", 20)
		if len(seen) != 1 {
			t.Errorf("client %s was sent to %v", client, seen)
		}
		for name := range seen {
			first[client] = name
		}
	}
	// An endpoint that goes takes nobody else's along.
	gone := first["a"]
	var left []ep
	for name, ip := range map[string]ep{"a": aIP, "b": bIP, "c": cIP} {
		if name != gone {
			left = append(left, ip)
		}
	}
	w.web(affine(3600), left...)
	for client, before := range first {
		seen := w.spread(w.pod[client], "10.43.0.5:80", 20)
		if len(seen) != 1 || seen[gone] > 0 || before != gone && seen[before] == 0 {
			t.Errorf("client %s, at %s before %s went, was sent to %v", client, before, gone, seen)
		}
	}
	// Other clients are spread all the same: the host's affinity is its own.
	if seen := w.spread(w.host, "10.43.0.5:80", 20); len(seen) != 1 {
		t.Errorf("the host was sent to %v", seen)
	}
}

// A service without endpoints is refused with an ICMP port unreachable.
func TestNoEndpoints(t *testing.T) {
	w := newWorld(t)
	w.web(all(nodePort(30080), func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.9"} }))
	for _, from := range []*nettest.NS{w.pod["c"], w.host, w.outside} {
		w.refused(from, "10.43.0.5:80")
		w.refused(from, hostIP+":30080")
		w.refused(from, "198.51.100.9:80")
	}
	w.web(nodePort(30080), aIP)
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
	w.web(nodePort(30080), aIP+" notready")
	w.refused(w.pod["c"], "10.43.0.5:80")
}

// Service.spec.externalIPs and status.loadBalancer, with source ranges.
func TestExternalAddresses(t *testing.T) {
	w := newWorld(t)
	external := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.9"} }
	w.web(all(balancer("198.51.100.7"), external), aIP)
	for _, addr := range []string{"198.51.100.7:80", "198.51.100.9:80"} {
		w.expect(w.outside, "tcp4", addr, "a "+hostIP)
		w.expect(w.pod["c"], "tcp4", addr, "a "+hostIP)
		w.expect(w.host, "tcp4", addr, "a "+hostIP)
	}
	ranges := func(r ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = r }
	}
	w.web(all(balancer("198.51.100.7"), external, ranges("203.0.113.0/24", outsideIP+"/32")), aIP)
	w.expect(w.outside, "tcp4", "198.51.100.7:80", "a "+hostIP)
	w.web(all(balancer("198.51.100.7"), external, ranges("203.0.113.0/24")), aIP)
	if err := w.outside.Silent("198.51.100.7:80"); err != nil {
		t.Errorf("a source that is not allowed: %v", err)
	}
	w.expect(w.outside, "tcp4", "198.51.100.9:80", "a "+hostIP) // ranges are the balancer's
}

// Service.spec.internalTrafficPolicy Local.
func TestInternalTrafficPolicyLocal(t *testing.T) {
	w := newWorld(t)
	w.web(internalLocal, aIP, bIP+" remote")
	if seen := w.spread(w.pod["c"], "10.43.0.5:80", 20); seen["a"] != 20 {
		t.Errorf("connections went to %v", seen)
	}
	w.web(internalLocal, bIP+" remote")
	if err := w.pod["c"].Silent("10.43.0.5:80"); err != nil {
		t.Errorf("no local endpoint: %v", err)
	}
}

// While no endpoint is ready, those that terminate and still serve are used.
func TestTerminatingEndpoints(t *testing.T) {
	w := newWorld(t)
	w.web(nil, aIP+" terminating serving", bIP)
	if seen := w.spread(w.pod["c"], "10.43.0.5:80", 20); seen["b"] != 20 {
		t.Errorf("connections went to %v", seen)
	}
	w.web(nil, aIP+" terminating serving")
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
}

// Connections under way survive the removal of their endpoint, of the service,
// a resync, and a restart.
func TestConnectionsSurvive(t *testing.T) {
	w := newWorld(t)
	w.web(nodePort(30080), aIP)
	inside, err := w.pod["c"].Dial("tcp4", "10.43.0.5:80")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	outer, err := w.outside.Dial("tcp4", hostIP+":30080")
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	still := func(what string) {
		t.Helper()
		for _, c := range []net.Conn{inside, outer} {
			if got, err := nettest.AskOn(c); err != nil || !strings.HasPrefix(got, "a ") {
				t.Errorf("%s: %q, %v", what, got, err)
			}
		}
	}
	still("at first")
	w.web(nodePort(30080), bIP)
	still("after the endpoint was replaced")
	w.p.Resync()
	w.flush()
	still("after a resync")
	w.p = New(testConfig(), NewLinux(testConfig().Instance))
	w.web(nodePort(30080), bIP)
	still("after a restart")
	w.p.DeleteService(Key{Namespace: "default", Name: "web"})
	w.flush()
	still("after the service went")
}

// UDP clients that keep their port are sent elsewhere when their endpoint
// goes, or when the first one comes.
func TestUDPFollowsEndpoints(t *testing.T) {
	w := newWorld(t)
	w.dns(nodePort(30053))
	clients := map[string]net.Conn{}
	for addr, from := range map[string]*nettest.NS{"10.43.0.10:53": w.pod["c"], hostIP + ":30053": w.outside} {
		c, err := from.Dial("udp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[addr] = c
		if got, err := nettest.AskOn(c); err == nil {
			t.Errorf("%s: no endpoint, and %q", addr, got)
		}
	}
	answer := func(name string) {
		t.Helper()
		for addr, c := range clients {
			if got, err := nettest.AskOn(c); err != nil || !strings.HasPrefix(got, name+" ") {
				t.Errorf("%s answered %q, %v; want %s", addr, got, err, name)
			}
		}
	}
	w.dns(nodePort(30053), aIP)
	answer("a")
	w.dns(nodePort(30053), bIP)
	answer("b")
	// A restart finds flows of which it was not told.
	w.p = New(testConfig(), NewLinux(testConfig().Instance))
	w.dns(nodePort(30053), cIP)
	answer("c")
}

// No connection fails while endpoints come and go, as long as each is there
// until its packets have stopped.
func TestEndpointsChangeUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.web(nil, aIP, bIP, cIP)
	stop := make(chan struct{})
	failed := make(chan error, 1)
	asked := make(chan struct{}, 1024)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := w.host.Ask("tcp4", "10.43.0.5:80"); err != nil {
				failed <- err
				return
			}
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}()
	// Fewer at once, too: a choice of the past may then find no slot.
	sets := [][]ep{{aIP}, {aIP, bIP}, {bIP}, {bIP, cIP, aIP}, {cIP}}
	for i := range 100 {
		w.web(nil, sets[i%len(sets)]...)
		if i%20 == 0 {
			w.p.Resync()
			w.flush()
		}
		<-asked
	}
	close(stop)
	for err := range failed {
		t.Error(err)
	}
}

// Service.spec.healthCheckNodePort.
func TestHealthCheckNodePort(t *testing.T) {
	w := newWorld(t)
	check := func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 31000 }
	get := func() (int, string) {
		t.Helper()
		resp, err := http.Get("http://127.0.0.1:31000/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.TrimSpace(string(b))
	}
	w.web(all(balancer("198.51.100.7"), localPolicy, check), aIP, bIP, "10.42.1.9 remote")
	if code, body := get(); code != 200 || !strings.Contains(body, `"localEndpoints":2`) || !strings.Contains(body, `{"name":"web","namespace":"default"}`) {
		t.Errorf("%d %s", code, body)
	}
	w.web(all(balancer("198.51.100.7"), localPolicy, check), "10.42.1.9 remote")
	if code, body := get(); code != 503 || !strings.Contains(body, `"localEndpoints":0`) {
		t.Errorf("%d %s", code, body)
	}
	w.web(balancer("198.51.100.7"), aIP)
	if c, err := net.Dial("tcp4", "127.0.0.1:31000"); err == nil {
		c.Close()
		t.Error("the health check outlived its policy")
	}
}

// Beside Docker: another table's translation and its policy drop at input do
// not keep services from working. (Forwarding is network/pod's to allow.)
func TestBesideDocker(t *testing.T) {
	w := newWorld(t)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	nat := c.AddTable(&nftables.Table{Name: "nat", Family: nftables.TableFamilyIPv4})
	t.Cleanup(func() { c.DelTable(nat); _ = c.Flush() })
	for name, hook := range map[string]*nftables.ChainHook{"PREROUTING": nftables.ChainHookPrerouting, "OUTPUT": nftables.ChainHookOutput} {
		c.AddChain(&nftables.Chain{Name: name, Table: nat, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
	}
	post := c.AddChain(&nftables.Chain{
		Name: "POSTROUTING", Table: nat, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	// -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE, as Docker has it.
	c.AddRule(&nftables.Rule{Table: nat, Chain: post, Exprs: []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{172, 17}},
		&expr.Masq{},
	}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	w.web(nodePort(30080), aIP)
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
	w.expect(w.pod["a"], "tcp4", "10.43.0.5:80", "a "+hostIP)
	w.expect(w.outside, "tcp4", hostIP+":30080", "a "+hostIP)
}

// Beside another Hansa in another network namespace: this test binary again,
// in its own namespace, with the same addresses.
func TestBesideAnotherInstance(t *testing.T) {
	const other = "HANSA_TEST_OTHER_INSTANCE"
	w := newWorld(t)
	w.web(nodePort(30080), aIP)
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
	if os.Getenv(other) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBesideAnotherInstance$", "-test.v")
	cmd.Env = append(os.Environ(), other+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("the other instance: %v\n%s", err, out)
	}
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
}

// Run keeps the kernel up to date, and restores the table if somebody deletes
// it.
func TestRun(t *testing.T) {
	w := newWorld(t)
	done := make(chan error, 1)
	ctx, cancel := contextWithCancel(t)
	go func() { done <- w.p.Run(ctx) }()
	w.p.SetService(service("web", "10.43.0.5", nil))
	w.p.SetSlice(slice("web", "web-1", 8080, corev1.ProtocolTCP, aIP))
	works := func() error {
		got, err := w.pod["c"].Ask("tcp4", "10.43.0.5:80")
		if err == nil && got != "a "+cIP {
			err = fmt.Errorf("answered %q", got)
		}
		return err
	}
	nettest.Eventually(t, "service after a change", works)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	nettest.Eventually(t, "service after the ruleset was flushed", works)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Taken down cleanly: the table goes, however often it is asked to.
func TestTakenDownCleanly(t *testing.T) {
	w := newWorld(t)
	w.web(affine(60), aIP)
	for range 2 {
		if err := w.linux.Teardown(); err != nil {
			t.Fatal(err)
		}
		if ok, err := w.linux.Exists(); ok || err != nil {
			t.Errorf("table: %v, %v", ok, err)
		}
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) > 0 {
		t.Errorf("tables left: %v, %v", tables, err)
	}
}

// Thousands of services fit one transaction.
func TestManyServices(t *testing.T) {
	w := newWorld(t)
	const n = 3000
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		ip := netip.AddrFrom4([4]byte{10, 43, byte(16 + i/250), byte(1 + i%250)}).String()
		w.p.SetService(service(name, ip, nil))
		w.p.SetSlice(slice(name, name, 8080, corev1.ProtocolTCP, aIP, bIP))
	}
	w.flush()
	w.web(nil, aIP)
	w.expect(w.pod["c"], "tcp4", "10.43.0.5:80", "a "+cIP)
	if seen := w.spread(w.pod["c"], "10.43.27.250:80", 20); len(seen) != 2 {
		t.Errorf("the last service went to %v", seen)
	}
}
