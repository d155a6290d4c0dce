// Package network_test puts the parts of one node's network together as the
// daemon does: pods, services and names.
package network_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/network/dns"
	"hansa.dev/hansa/network/internal/nettest"
	"hansa.dev/hansa/network/pod"
	"hansa.dev/hansa/network/proxy"
)

func TestMain(m *testing.M) { nettest.Main(m, os.Args, os.Environ()) }

const instance = "0a1b2c3d"

var (
	nodeCIDR    = netip.MustParsePrefix("10.42.0.0/24")
	clusterCIDR = netip.MustParsePrefix("10.42.0.0/16")
	serviceCIDR = netip.MustParsePrefix("10.43.0.0/16")
	dnsIP       = netip.MustParseAddr("10.43.0.10")
)

// A node is a host with everything of this folder running.
type node struct {
	t     *testing.T
	pods  *pod.Manager
	sock  string
	proxy *proxy.Proxy
	linux *proxy.Linux
	dns   *dns.Server
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "hansa-node-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{t: t, sock: filepath.Join(dir, "cni.sock")}
	n.pods, err = pod.New(pod.Config{
		Instance: instance, NodeCIDR: nodeCIDR, ClusterCIDR: clusterCIDR, ServiceCIDR: serviceCIDR,
		Dir: filepath.Join(dir, "cni"), Socket: n.sock,
	})
	if err == nil {
		err = n.pods.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	n.linux = proxy.NewLinux(instance)
	n.proxy = proxy.New(proxy.Config{
		Instance: instance, NodeName: "here", NodeCIDR: nodeCIDR, ClusterCIDR: clusterCIDR, ServiceCIDR: serviceCIDR,
	}, n.linux)
	n.dns = dns.New(dns.Config{Address: dnsIP, Ranges: []netip.Prefix{clusterCIDR, serviceCIDR}})
	packet, listener, err := dns.Listen(t.Context(), netip.AddrPortFrom(pod.NodeAddress(nodeCIDR), 53))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- n.dns.Serve(ctx, []net.PacketConn{packet}, []net.Listener{listener}) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, n.linux.Teardown(), n.pods.Teardown()); err != nil {
			t.Error(err)
		}
	})
	n.dns.SetNamespace("default")
	n.dns.SetNamespace("kube-system")
	n.service("kube-system", "kube-dns", dnsIP.String(), nil,
		corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, corev1.ServicePort{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP})
	n.slice("kube-system", "kube-dns", 53, pod.NodeAddress(nodeCIDR).String())
	n.dns.SetSynced()
	return n
}

func (n *node) service(ns, name, ip string, change func(*corev1.Service), ports ...corev1.ServicePort) {
	n.t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: ports},
	}
	if change != nil {
		change(s)
	}
	n.dns.SetService(s)
	n.proxy.SetService(s)
	n.flush()
}

// slice gives a service endpoints, for every port that it has.
func (n *node) slice(ns, name string, port int32, ips ...string) {
	n.t.Helper()
	ready, node := true, "here"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for portName, proto := range map[string]corev1.Protocol{"dns": corev1.ProtocolUDP, "dns-tcp": corev1.ProtocolTCP, "http": corev1.ProtocolTCP} {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &portName, Port: &port, Protocol: &proto})
	}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, NodeName: &node})
	}
	n.dns.SetSlice(s)
	n.proxy.SetSlice(s)
	n.flush()
}

func (n *node) flush() {
	n.t.Helper()
	if err := n.proxy.Flush(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// pod connects a namespace that answers on port 8080 with its name.
func (n *node) pod(name string) (*nettest.NS, string) {
	n.t.Helper()
	ns := nettest.New(n.t)
	conn, err := net.Dial("unix", n.sock)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	var a pod.Response
	err = errors.Join(
		json.NewEncoder(conn).Encode(pod.Request{Command: "ADD", ContainerID: name, Netns: ns.Path, IfName: "eth0", Args: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name}),
		json.NewDecoder(conn).Decode(&a))
	if err != nil || a.Error != nil {
		n.t.Fatal(err, a.Error)
	}
	ns.Serve(8080, name)
	return ns, a.Result.IPs[0].Address.Addr().String()
}

// resolve asks the cluster's name server from a namespace.
func resolve(from *nettest.NS, network, name string) ([]string, error) {
	conn, err := from.Dial(network+"4", dnsIP.String()+":53")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, _, err := new(mdns.Client).ExchangeWithConn(new(mdns.Msg).SetQuestion(name, mdns.TypeA), &mdns.Conn{Conn: conn})
	if err != nil {
		return nil, err
	}
	var ips []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*mdns.A); ok {
			ips = append(ips, a.A.String())
		}
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("no address: %s", mdns.RcodeToString[r.Rcode])
	}
	return ips, nil
}

var http = corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}

// Issue, network on one node: three pods answer by name from a fourth, by
// cluster address, node port and headless, with hairpin, beside a chain that
// drops what is forwarded.
func TestNetworkOnOneNode(t *testing.T) {
	outside := nettest.Uplink(t, 1500)
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	drop := nftables.ChainPolicyDrop
	filter := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	c.AddChain(&nftables.Chain{
		Name: "FORWARD", Table: filter, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.DelTable(filter); _ = c.Flush() })

	n := newNode(t)
	host := nettest.Host(t)
	ips := map[string]string{}
	spaces := map[string]*nettest.NS{}
	var all []string
	for _, name := range []string{"a", "b", "c", "client"} {
		spaces[name], ips[name] = n.pod(name)
		if name != "client" {
			all = append(all, ips[name])
		}
	}
	n.service("default", "web", "10.43.0.5", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30080
	}, http)
	n.slice("default", "web", 8080, all...)
	n.service("default", "pets", corev1.ClusterIPNone, nil, http)
	n.slice("default", "pets", 8080, all...)

	answers := func(from *nettest.NS, addr string) map[string]bool {
		t.Helper()
		seen := map[string]bool{}
		for range 40 {
			got, err := from.Ask("tcp4", addr)
			if err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			seen[strings.Fields(got)[0]] = true
		}
		return seen
	}
	client := spaces["client"]
	for _, network := range []string{"udp", "tcp"} {
		for _, from := range []*nettest.NS{client, host} {
			got, err := resolve(from, network, "web.default.svc.cluster.local.")
			if err != nil || len(got) != 1 || got[0] != "10.43.0.5" {
				t.Fatalf("web over %s: %v, %v", network, got, err)
			}
		}
	}
	if seen := answers(client, "10.43.0.5:80"); len(seen) != 3 {
		t.Errorf("web answered as %v", seen)
	}
	if seen := answers(spaces["a"], "10.43.0.5:80"); len(seen) != 3 {
		t.Errorf("web, asked by one of its pods, answered as %v", seen)
	}
	if seen := answers(outside, "192.0.2.1:30080"); len(seen) != 3 {
		t.Errorf("the node port answered as %v", seen)
	}
	if seen := answers(host, "127.0.0.1:30080"); len(seen) != 3 {
		t.Errorf("the node port on loopback answered as %v", seen)
	}
	pets, err := resolve(client, "udp", "pets.default.svc.cluster.local.")
	if err != nil || len(pets) != 3 {
		t.Fatalf("pets: %v, %v", pets, err)
	}
	for _, ip := range pets {
		if _, err := client.Ask("tcp4", ip+":8080"); err != nil {
			t.Errorf("pet %s: %v", ip, err)
		}
	}
}

// A host without any other network, as a laptop on a train: the host still
// reaches services and names.
func TestWithoutUplink(t *testing.T) {
	n := newNode(t)
	_, ip := n.pod("a")
	n.service("default", "web", "10.43.0.5", nil, http)
	n.slice("default", "web", 8080, ip)
	host := nettest.Host(t)
	if got, err := resolve(host, "udp", "web.default.svc.cluster.local."); err != nil || got[0] != "10.43.0.5" {
		t.Errorf("web: %v, %v", got, err)
	}
	if got, err := host.Ask("tcp4", "10.43.0.5:80"); err != nil || got != "a "+pod.NodeAddress(nodeCIDR).String() {
		t.Errorf("web answered %q, %v", got, err)
	}
}

// Taken down cleanly: nothing of the instance is left.
func TestTakenDownCleanly(t *testing.T) {
	n := newNode(t)
	_, ip := n.pod("a")
	n.service("default", "web", "10.43.0.5", nil, http)
	n.slice("default", "web", 8080, ip)
	if err := errors.Join(n.linux.Teardown(), n.pods.Teardown()); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) > 0 {
		t.Errorf("tables left: %v, %v", tables, err)
	}
	links, err := net.Interfaces()
	if err != nil || len(links) != 1 {
		t.Errorf("links left: %v, %v", links, err)
	}
}
