package proxy

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/network/internal/nettest"
	"hansa.dev/hansa/network/internal/nft"
	"hansa.dev/hansa/network/internal/nft/nfttest"
)

func TestMain(m *testing.M) { nettest.Main(m, os.Args, os.Environ()) }

func testConfig() Config {
	return Config{
		Instance:    "0a1b2c3d",
		NodeName:    "here",
		Zone:        "z1",
		NodeCIDR:    netip.MustParsePrefix("10.42.0.0/24"),
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
	}
}

// fakeKernel keeps the table in memory and prints what it is told.
type fakeKernel struct {
	nfttest.Table
	forgetFails error
	health      string
	batches     int
}

func (k *fakeKernel) Apply(b nft.Batch) error {
	k.batches++
	return k.Table.Apply(b)
}

func (k *fakeKernel) Forget(flows []Flows) error {
	if err := k.forgetFails; err != nil {
		k.forgetFails = nil
		return err
	}
	for _, f := range flows {
		fmt.Fprintln(&k.Log, "forget", f)
	}
	return nil
}

func (k *fakeKernel) Check(h []HealthCheck) error {
	if s := fmt.Sprint(h); s != k.health {
		k.health = s
		if len(h) > 0 {
			fmt.Fprintln(&k.Log, "health checks", s)
		}
	}
	return nil
}

// service makes a service in namespace default; change may be nil.
func service(name, clusterIP string, change func(*corev1.Service), ports ...corev1.ServicePort) *corev1.Service {
	if len(ports) == 0 {
		ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	}
	cluster := corev1.ServiceInternalTrafficPolicyCluster
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, Ports: ports,
			SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: &cluster,
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

// An ep is an endpoint in short: an address, and words among notready,
// serving, terminating, remote, zone=Z, node=N.
type ep string

func (e ep) endpoint() discoveryv1.Endpoint {
	words := strings.Fields(string(e))
	has := func(w string) bool { return slices.Contains(words[1:], w) }
	yes, no, node := true, false, "here"
	out := discoveryv1.Endpoint{Addresses: words[:1], NodeName: &node}
	if has("notready") {
		out.Conditions.Ready, out.Conditions.Serving = &no, &no
	} else {
		out.Conditions.Ready, out.Conditions.Serving = &yes, &yes
	}
	if has("terminating") {
		out.Conditions.Ready, out.Conditions.Terminating = &no, &yes
	}
	if has("serving") {
		out.Conditions.Serving = &yes
	}
	if has("remote") {
		other := "there"
		out.NodeName = &other
	}
	for _, w := range words[1:] {
		if z, ok := strings.CutPrefix(w, "zone="); ok {
			out.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: z}}}
		}
		if n, ok := strings.CutPrefix(w, "node="); ok {
			out.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: n}}}
		}
	}
	return out
}

// slice makes an endpoint slice of the service for one port.
func slice(svc, name string, port int32, proto corev1.Protocol, eps ...ep) *discoveryv1.EndpointSlice {
	empty := ""
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &empty, Port: &port, Protocol: &proto}},
	}
	for _, e := range eps {
		s.Endpoints = append(s.Endpoints, e.endpoint())
	}
	return s
}

// canonical prints a table independent of which slot an endpoint has.
func canonical(s *nft.State) string {
	t := nft.NewState()
	maps.Copy(t.Chains, s.Chains)
	maps.Copy(t.Sets, s.Sets)
	var slots []string
	for name, es := range s.Elements {
		if !strings.HasPrefix(name, "ep") && !strings.HasPrefix(name, "sticky-") {
			t.Elements[name] = es
			continue
		}
		var data []string
		for k, d := range es {
			data = append(data, d.Text)
			if k.Text >= fmt.Sprint(len(es)) && len(es) < 10 {
				data = append(data, "slot "+k.Text+" is beyond the last")
			}
		}
		slices.Sort(data)
		slots = append(slots, name+": "+strings.Join(data, ", "))
	}
	slices.Sort(slots)
	return nfttest.Print(t) + strings.Join(slots, "\n")
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}
