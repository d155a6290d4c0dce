package pod

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hansa.dev/hansa/network/internal/dump"
	"hansa.dev/hansa/network/internal/nettest"
)

// Kubernetes network model: every pod has an address of its own, and pods
// reach each other, the node and the world without translation among them.
func TestPodAddressesAndRoutes(t *testing.T) {
	outside := nettest.Uplink(t, 1450)
	c := testConfig(t)
	start(t, c)
	a, b := addPod(t, c, "a"), addPod(t, c, "b")
	host := nettest.Host(t)
	if a.IP == b.IP || !c.NodeCIDR.Contains(a.IP) || !c.NodeCIDR.Contains(b.IP) {
		t.Fatalf("addresses %s and %s", a.IP, b.IP)
	}
	b.Serve(80, "b")
	outside.Serve(80, "outside")
	host.Serve(8080, "host")

	for _, proto := range []string{"tcp4", "udp4"} {
		expect(t, a.NS, proto, b.addr(80), "b "+a.IP.String())
		expect(t, b.NS, proto, b.addr(80), "b "+b.IP.String())
		expect(t, host, proto, b.addr(80), "b 192.0.2.1")
		expect(t, a.NS, proto, "192.0.2.1:8080", "host "+a.IP.String())
		// The world sees the node's address (Kubernetes: masquerade).
		expect(t, a.NS, proto, "192.0.2.2:80", "outside 192.0.2.1")
	}
	expect(t, a.NS, "tcp4", NodeAddress(c.NodeCIDR).String()+":8080", "host "+a.IP.String())
	a.Serve(81, "self")
	expect(t, a.NS, "tcp4", "127.0.0.1:81", "self 127.0.0.1")

	a.Must(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil && l.Attrs().MTU != 1450 {
			t.Errorf("MTU of eth0 is %d, want the uplink's 1450", l.Attrs().MTU)
		}
		return err
	})
	_, err := a.Ask("tcp4", "10.42.0.200:80")
	if !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dial an address that no pod has: %v, want host unreachable at once", err)
	}
}

// A link's alias names instance and pod, so that an administrator can tell.
func TestLinksCarryOurName(t *testing.T) {
	c := testConfig(t)
	start(t, c)
	addPod(t, c, "web")
	all, err := dump.Whole(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	aliases := map[string]bool{}
	for _, l := range all {
		if l.Attrs().Name == "lo" {
			continue
		}
		if !strings.HasPrefix(l.Attrs().Name, "hansa") || len(l.Attrs().Name) > 15 {
			t.Errorf("link %s", l.Attrs().Name)
		}
		aliases[l.Attrs().Alias] = true
	}
	if !aliases["hansa-0a1b2c3d node"] || !aliases["hansa-0a1b2c3d default/web"] || len(aliases) != 2 {
		t.Errorf("aliases %v", aliases)
	}
}

// A pod cannot send with an address that is not its own (RFC 3704): of two
// packets, the one with a foreign source first, only the second arrives.
func TestSourceAddressesAreChecked(t *testing.T) {
	c := testConfig(t)
	start(t, c)
	a, b := addPod(t, c, "a"), addPod(t, c, "b")
	for _, foreign := range []netip.Addr{netipAddr("203.0.113.9"), b.IP} {
		a.Must(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(single(foreign))})
		})
		node := NodeAddress(c.NodeCIDR).String()
		l, err := net.ListenPacket("udp4", node+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, source := range []netip.Addr{foreign, a.IP} {
			a.Must(func() error {
				conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: source.AsSlice()}, l.LocalAddr().(*net.UDPAddr))
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("hello"))
				return err
			})
		}
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, from, err := l.ReadFrom(make([]byte, 16))
		if err != nil || netip.MustParseAddrPort(from.String()).Addr() != a.IP {
			t.Errorf("the first packet that arrived is from %v, %v; want %s", from, err, a.IP)
		}
	}
}

// Pod.spec.containers.ports.hostPort and hostIP.
func TestHostPorts(t *testing.T) {
	outside := nettest.Uplink(t, 1500)
	c := testConfig(t)
	start(t, c)
	host := nettest.Host(t)
	web := addPod(t, c, "web", tcp(8080, 80), portMapping{HostPort: 5353, ContainerPort: 53, Protocol: "udp"},
		portMapping{HostPort: 9090, ContainerPort: 80, Protocol: "TCP", HostIP: "127.0.0.1"})
	other := addPod(t, c, "other", portMapping{HostPort: 9090, ContainerPort: 80, Protocol: "TCP", HostIP: "192.0.2.1"})
	client := addPod(t, c, "client")
	web.Serve(80, "web")
	web.Serve(53, "dns")
	other.Serve(80, "other")

	expect(t, outside, "tcp4", "192.0.2.1:8080", "web 192.0.2.2")
	expect(t, outside, "udp4", "192.0.2.1:5353", "dns 192.0.2.2")
	expect(t, client.NS, "tcp4", "192.0.2.1:8080", "web "+client.IP.String())
	expect(t, host, "tcp4", "192.0.2.1:8080", "web 192.0.2.1")
	expect(t, host, "tcp4", "127.0.0.1:8080", "web 192.0.2.1")
	expect(t, host, "udp4", "127.0.0.1:5353", "dns 192.0.2.1")
	// Same port and protocol on two addresses, as Kubernetes' conformance has it.
	expect(t, host, "tcp4", "127.0.0.1:9090", "web 192.0.2.1")
	expect(t, host, "tcp4", "192.0.2.1:9090", "other 192.0.2.1")
	expect(t, outside, "tcp4", "192.0.2.1:9090", "other 192.0.2.2")

	// A port in use is refused, and free again after DEL.
	late := nettest.New(t)
	q := request("ADD", "late", late, tcp(8080, 80))
	if a := call(t, c, q); a.Error == nil || a.Error.Code != 11 || !strings.Contains(a.Error.Details, "host port 8080/tcp is in use by pod default/web") {
		t.Errorf("ADD with a port in use: %+v", a.Error)
	}
	if a := call(t, c, request("DEL", "web", web.NS)); a.Error != nil {
		t.Fatal(a.Error)
	}
	if got, err := outside.Ask("tcp4", "192.0.2.1:8080"); err == nil {
		t.Errorf("a closed host port answered %q", got)
	}
	if a := call(t, c, q); a.Error != nil {
		t.Fatal(a.Error)
	}
	late.Serve(80, "late")
	expect(t, outside, "tcp4", "192.0.2.1:8080", "late 192.0.2.2")
}

// A pod reaches itself through its host port, and is not sent redirects.
func TestHairpin(t *testing.T) {
	nettest.Uplink(t, 1500)
	c := testConfig(t)
	start(t, c)
	web := addPod(t, c, "web", tcp(8080, 80), portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "udp"})
	web.Serve(80, "web")
	node := NodeAddress(c.NodeCIDR).String()
	for _, proto := range []string{"tcp4", "udp4"} {
		expect(t, web.NS, proto, "192.0.2.1:8080", "web 192.0.2.1")
		expect(t, web.NS, proto, node+":8080", "web 192.0.2.1")
	}
}

// The host's loopback services stay the host's: route_localnet on pod links
// must not let a pod in (CVE-2020-8558).
func TestLoopbackIsOutOfReach(t *testing.T) {
	c := testConfig(t)
	start(t, c)
	a := addPod(t, c, "a")
	host := nettest.Host(t)
	host.Serve(8080, "host")
	a.Must(func() error { // send 127/8 by the link, as an attacker would
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := writeSysctl("net/ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, x := range addrs {
			if err := netlink.AddrDel(lo, &x); err != nil {
				return err
			}
		}
		return netlink.RouteReplace(&netlink.Route{
			LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice(), Dst: ipNet(netip.MustParsePrefix("127.0.0.0/8")),
		})
	})
	if err := a.Silent("127.0.0.1:8080"); err != nil {
		t.Errorf("a pod reached the host's loopback: %v", err)
	}
}

// ADD, DEL and CHECK keep to the CNI specification: DEL and repeated ADD are
// idempotent, and missing things are no errors for DEL.
func TestCNI(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	a := addPod(t, c, "a")
	if r := call(t, c, request("CHECK", "a", a.NS)); r.Error != nil {
		t.Errorf("CHECK: %v", r.Error)
	}
	if r := call(t, c, request("ADD", "a", a.NS)); r.Error != nil {
		t.Errorf("repeated ADD: %v", r.Error)
	}
	rec := m.records["a"]
	if err := disconnect(rec.Link); err != nil {
		t.Fatal(err)
	}
	if r := call(t, c, request("CHECK", "a", a.NS)); r.Error == nil || !strings.Contains(r.Error.Details, rec.Link) {
		t.Errorf("CHECK without a link: %+v", r.Error)
	}
	for range 2 {
		if r := call(t, c, request("DEL", "a", a.NS)); r.Error != nil {
			t.Errorf("DEL: %v", r.Error)
		}
	}
	if _, err := os.Stat(filepath.Join(c.Dir, "a.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("record after DEL: %v", err)
	}
	if r := call(t, c, Request{Command: "DEL", ContainerID: "never", IfName: "eth0"}); r.Error != nil {
		t.Errorf("DEL of an unknown container without namespace: %v", r.Error)
	}
	// GC keeps what is named and removes the rest.
	addPod(t, c, "keep")
	addPod(t, c, "lose")
	gc := Request{Command: "GC", Config: json.RawMessage(`{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"}]}`)}
	if r := call(t, c, gc); r.Error != nil {
		t.Errorf("GC: %v", r.Error)
	}
	if m.records["keep"] == nil || m.records["lose"] != nil {
		t.Errorf("after GC: %v", m.records)
	}
}

// The answer to ADD is a CNI result of version 1.0.0.
func TestResult(t *testing.T) {
	c := testConfig(t)
	start(t, c)
	ns := nettest.New(t)
	r := call(t, c, request("ADD", "a", ns))
	b, err := json.Marshal(r.Result)
	if err != nil {
		t.Fatal(err)
	}
	link := linkName(instance, "a", "eth0")
	want := `{"cniVersion":"1.0.0","interfaces":[{"name":"` + link + `","mac":"ee:ee:ee:ee:ee:ee"},` +
		`{"name":"eth0","mac":"` + podMAC(link).String() + `","sandbox":"` + ns.Path + `"}],` +
		`"ips":[{"interface":1,"address":"10.42.0.2/32","gateway":"169.254.1.1"}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{}}`
	if string(b) != want {
		t.Errorf("result\n%s\nwant\n%s", b, want)
	}
}

// Requests that cannot be carried out get the code that the specification has
// for them, and leave nothing behind.
func TestRefusals(t *testing.T) {
	c := testConfig(t)
	start(t, c)
	ns := nettest.New(t)
	ok := request("ADD", "a", ns)
	for _, tc := range []struct {
		name   string
		change func(*Request)
		code   uint
		text   string
	}{
		{"command", func(q *Request) { q.Command = "FLY" }, 4, `CNI_COMMAND "FLY"`},
		{"container", func(q *Request) { q.ContainerID = "../x" }, 4, "CNI_CONTAINERID"},
		{"namespace gone", func(q *Request) { q.Netns = "/nowhere" }, 4, "/nowhere"},
		{"host's namespace", func(q *Request) { q.Netns = "/proc/self/ns/net" }, 4, "the host's own"},
		{"interface", func(q *Request) { q.IfName = "a/b" }, 4, "CNI_IFNAME"},
		{"interface lo", func(q *Request) { q.IfName = "lo" }, 4, "CNI_IFNAME"},
		{"configuration", func(q *Request) { q.Config = json.RawMessage(`[]`) }, 6, "cannot unmarshal"},
		{"version", func(q *Request) { q.Config = json.RawMessage(`{"cniVersion":"0.3.1"}`) }, 1, "0.3.1"},
		{"protocol", func(q *Request) { *q = request("ADD", "a", ns, portMapping{80, 80, "icmp", ""}) }, 7, "icmp"},
		{"port", func(q *Request) { *q = request("ADD", "a", ns, tcp(70000, 80)) }, 7, "70000"},
		{"host IP", func(q *Request) { *q = request("ADD", "a", ns, portMapping{80, 80, "tcp", "here"}) }, 7, "host IP"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := ok
			tc.change(&q)
			r := call(t, c, q)
			if r.Error == nil || r.Error.Code != tc.code || !strings.Contains(r.Error.Error(), tc.text) {
				t.Errorf("got %+v, want code %d and %q", r.Error, tc.code, tc.text)
			}
		})
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, "*.json"))
	if err != nil || len(left) > 0 {
		t.Errorf("records left: %v, %v", left, err)
	}
}

// A restart keeps every pod connected under its address, removes those that
// are gone, and connects again whose link is gone.
func TestRestart(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	a := addPod(t, c, "a", tcp(8080, 80))
	gone := addPod(t, c, "gone")
	cut := addPod(t, c, "cut")
	a.Serve(80, "a")
	host := nettest.Host(t)
	conn, err := host.Dial("tcp4", a.addr(80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	gone.Remove()
	if err := disconnect(linkName(instance, "cut", "eth0")); err != nil {
		t.Fatal(err)
	}

	n := start(t, c)
	if got, err := nettest.AskOn(conn); err != nil || !strings.HasPrefix(got, "a ") {
		t.Errorf("connection over the restart: %q, %v", got, err)
	}
	cut.Serve(80, "cut")
	expect(t, host, "tcp4", cut.addr(80), "cut "+NodeAddress(c.NodeCIDR).String())
	expect(t, host, "tcp4", NodeAddress(c.NodeCIDR).String()+":8080", "a "+NodeAddress(c.NodeCIDR).String())
	if n.records["gone"] != nil || n.records["a"] == nil || n.records["cut"] == nil {
		t.Errorf("records after the restart: %v", n.records)
	}
	if b := addPod(t, c, "b"); b.IP == a.IP || b.IP == cut.IP {
		t.Errorf("address %s given twice", b.IP)
	}
}

// A repair does not bring back what a request has removed since it looked.
func TestRepairLeavesRemovedPods(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	addPod(t, c, "a")
	seen := m.records["a"]
	if err := m.remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := m.repairOne(seen); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName(seen.Link); !notFound(err) {
		t.Errorf("link %s of a removed pod: %v", seen.Link, err)
	}
}

// Pods that come and go at the same time do not disturb each other.
func TestManyAtOnce(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	const pods = 20
	spaces := make([]*nettest.NS, pods)
	for i := range spaces {
		spaces[i] = nettest.New(t)
	}
	var wg sync.WaitGroup
	for i, ns := range spaces {
		wg.Add(1)
		go func() {
			defer wg.Done()
			id := "p" + string(rune('a'+i))
			q := request("ADD", id, ns, tcp(9000+i, 80))
			if r := m.handle(t.Context(), &q); r.Error != nil {
				t.Errorf("ADD %s: %v", id, r.Error)
			}
			if i%2 == 0 {
				q.Command = "DEL"
				if r := m.handle(t.Context(), &q); r.Error != nil {
					t.Errorf("DEL %s: %v", id, r.Error)
				}
			}
		}()
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, r := range m.records {
		if seen[r.IPs[0]] {
			t.Errorf("address %s given twice", r.IPs[0])
		}
		seen[r.IPs[0]] = true
	}
	if len(seen) != pods/2 {
		t.Errorf("%d pods left, want %d", len(seen), pods/2)
	}
}
