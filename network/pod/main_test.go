package pod

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"hansa.dev/hansa/network/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m, os.Args, os.Environ()) }

const instance = "0a1b2c3d"

func testConfig(t testing.TB) Config {
	t.Helper()
	run, err := os.MkdirTemp("", "hansa-pod-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	return Config{
		Instance:    instance,
		NodeCIDR:    netip.MustParsePrefix("10.42.0.0/24"),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		Dir:         filepath.Join(t.TempDir(), "cni"),
		Socket:      filepath.Join(run, "cni.sock"),
	}
}

// start starts a manager that is torn down with the test.
func start(t *testing.T, c Config) *Manager {
	t.Helper()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Teardown(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// call sends a request over the socket, as the plugin does.
func call(t *testing.T, c Config, q Request) Response {
	t.Helper()
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		t.Fatal(err)
	}
	var a Response
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func request(command, id string, ns *nettest.NS, ports ...portMapping) Request {
	conf := map[string]any{"cniVersion": "1.0.0", "name": "hansa", "runtimeConfig": map[string]any{"portMappings": ports}}
	b, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return Request{
		Command: command, ContainerID: id, Netns: ns.Path, IfName: "eth0",
		Args:   "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + id + ";K8S_POD_UID=uid-" + id,
		Config: b,
	}
}

// A testPod is a connected namespace.
type testPod struct {
	*nettest.NS
	ID string
	IP netip.Addr
}

// addPod connects a new namespace over the socket.
func addPod(t *testing.T, c Config, id string, ports ...portMapping) *testPod {
	t.Helper()
	p := &testPod{NS: nettest.New(t), ID: id}
	a := call(t, c, request("ADD", id, p.NS, ports...))
	if a.Error != nil {
		t.Fatalf("ADD %s: %v", id, a.Error)
	}
	p.IP = a.Result.IPs[0].Address.Addr()
	return p
}

func (p *testPod) addr(port int) string { return fmt.Sprintf("%s:%d", p.IP, port) }

// expect asks and compares the whole answer.
func expect(t *testing.T, from *nettest.NS, network, addr, want string) {
	t.Helper()
	got, err := from.Ask(network, addr)
	if err != nil || got != want {
		t.Errorf("%s %s answered %q, %v; want %q", network, addr, got, err, want)
	}
}

func tcp(host, container int) portMapping {
	return portMapping{HostPort: host, ContainerPort: container, Protocol: "tcp"}
}

func netipAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func netipPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
