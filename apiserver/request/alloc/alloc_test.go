package alloc_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/store"
)

type cluster struct {
	*request.Handler
	t *testing.T
}

// newCluster gives addresses from 10.43.0.0/24 and ports from 30000 to 30099.
// The dynamic bands begin at .17 and at 30016; the first in them is chosen.
func newCluster(t *testing.T) cluster {
	t.Helper()
	h := requesttest.Handler(t, func(c *request.Config) {
		a, err := alloc.New(c.Store, c.Registry, alloc.Config{
			Families: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:    alloc.PortRange{First: 30000, Last: 30099},
			Random:   func(uint64) uint64 { return 0 },
			Clock:    clocktesting.NewFakeClock(epoch),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Allocators = map[schema.GroupResource]request.Allocator{{Resource: "services"}: a}
	})
	c := cluster{h, t}
	c.rangeOf("kubernetes", "10.43.0.0/24")
	return c
}

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// rangeOf makes a ServiceCIDR.
func (c cluster) rangeOf(name string, cidrs ...string) {
	c.t.Helper()
	r := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"example.com/kept"}}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs}}
	info := requesttest.Info("create", "networking.k8s.io/v1", "servicecidrs", "", "")
	if _, err := c.Create(c.t.Context(), info, request.Body{Object: r}, &metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// ready says whether a ServiceCIDR is ready.
func (c cluster) ready(name string, status metav1.ConditionStatus) {
	c.t.Helper()
	_, err := c.Store.Update(c.t.Context(), requesttest.Ref("networking.k8s.io", "servicecidrs", "", name), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		r := cur.DeepCopyObject().(*networkingv1.ServiceCIDR)
		r.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: status}}
		return store.Outcome{Object: r}, nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func service(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

func (c cluster) create(s *corev1.Service, dryRun ...string) (*corev1.Service, error) {
	out, err := c.Create(c.t.Context(), requesttest.Info("create", "v1", "services", "default", ""), request.Body{Object: s}, &metav1.CreateOptions{DryRun: dryRun})
	created, _ := out.(*corev1.Service)
	return created, err
}

func (c cluster) mustCreate(s *corev1.Service) *corev1.Service {
	c.t.Helper()
	out, err := c.create(s)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c cluster) patch(name, text string) *corev1.Service {
	c.t.Helper()
	out, _, err := c.Patch(c.t.Context(), requesttest.Info("patch", "v1", "services", "default", name), types.MergePatchType,
		func() ([]byte, error) { return []byte(text), nil }, &metav1.PatchOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return out.(*corev1.Service)
}

func (c cluster) delete(name string) {
	c.t.Helper()
	if _, _, err := c.Delete(c.t.Context(), requesttest.Info("delete", "v1", "services", "default", name), &metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// raw decodes a claim; it reports whether there is one.
func (c cluster) raw(key string, into interface{ Unmarshal([]byte) error }) bool {
	c.t.Helper()
	value, revision, err := c.Store.Raw(c.t.Context(), key)
	if err != nil {
		c.t.Fatal(err)
	}
	if revision == 0 {
		return false
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(value[4:]); err != nil {
		c.t.Fatal(err)
	}
	if err := into.Unmarshal(unknown.Raw); err != nil {
		c.t.Fatal(err)
	}
	return true
}

func (c cluster) claimed(ip string) bool {
	return c.raw("ipaddresses/"+ip, &networkingv1.IPAddress{})
}

// ports are the node ports that the bitmap has.
func (c cluster) ports() []int {
	var stored corev1.RangeAllocation
	var ports []int
	if !c.raw("ranges/servicenodeports", &stored) {
		return nil
	}
	n := len(stored.Data)
	for i, b := range stored.Data {
		for bit := range 8 {
			if b&(1<<bit) != 0 {
				ports = append(ports, 30000+(n-1-i)*8+bit)
			}
		}
	}
	slices.Sort(ports)
	return ports
}

func nodePort(spec *corev1.ServiceSpec) { spec.Type = corev1.ServiceTypeNodePort }

// https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/
func TestAddressesAreClaimedAndFreed(t *testing.T) {
	c := newCluster(t)
	a := c.mustCreate(service("a", nil))
	if a.Spec.ClusterIP != "10.43.0.17" || len(a.Spec.ClusterIPs) != 1 || a.Spec.IPFamilies[0] != corev1.IPv4Protocol {
		t.Fatalf("spec is %+v, want the first dynamic address", a.Spec)
	}
	var claim networkingv1.IPAddress
	if !c.raw("ipaddresses/10.43.0.17", &claim) {
		t.Fatal("the address is not claimed")
	}
	if p := claim.Spec.ParentRef; p.Resource != "services" || p.Namespace != "default" || p.Name != "a" ||
		claim.Labels["ipaddress.kubernetes.io/managed-by"] != "ipallocator.k8s.io" || claim.Labels["ipaddress.kubernetes.io/ip-family"] != "IPv4" {
		t.Errorf("claim is %+v", claim)
	}
	if b := c.mustCreate(service("b", nil)); b.Spec.ClusterIP != "10.43.0.18" {
		t.Errorf("second address is %s", b.Spec.ClusterIP)
	}
	// An ExternalName has no use for an address.
	c.patch("b", `{"spec":{"type":"ExternalName","externalName":"example.com"}}`)
	c.delete("a")
	for _, ip := range []string{"10.43.0.17", "10.43.0.18"} {
		if c.claimed(ip) {
			t.Errorf("%s is still claimed", ip)
		}
	}
	headless := c.mustCreate(service("h", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	if headless.Spec.ClusterIP != corev1.ClusterIPNone || c.claimed("10.43.0.17") {
		t.Errorf("headless service has %s", headless.Spec.ClusterIP)
	}
}

func TestChosenAddresses(t *testing.T) {
	c := newCluster(t)
	at := func(name, ip string) error {
		_, err := c.create(service(name, func(s *corev1.ServiceSpec) { s.ClusterIP = ip }))
		return err
	}
	if err := at("a", "10.43.0.10"); err != nil {
		t.Fatal(err)
	}
	for ip, want := range map[string]string{
		"10.43.0.10":  `spec.clusterIPs: Invalid value: ["10.43.0.10"]: failed to allocate IP 10.43.0.10: provided IP is already allocated`,
		"10.44.0.1":   `failed to allocate IP 10.44.0.1: the provided network does not match the current range`,
		"10.43.0.255": `failed to allocate IP 10.43.0.255: the provided network does not match the current range`,
	} {
		if err := at("b", ip); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v, want %s", ip, err, want)
		}
	}
}

// https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
func TestRanges(t *testing.T) {
	c := newCluster(t)
	c.rangeOf("a-second", "10.44.0.0/28")
	give := func(name, ip, want string) {
		t.Helper()
		s, err := c.create(service(name, func(s *corev1.ServiceSpec) { s.ClusterIP = ip }))
		switch {
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", name, err, want)
		case err == nil && s.Spec.ClusterIP != want:
			t.Errorf("%s got %s, want %s", name, s.Spec.ClusterIP, want)
		}
	}
	give("first", "", "10.43.0.17")
	give("chosen", "10.44.0.5", "10.44.0.5")
	c.ready("kubernetes", metav1.ConditionFalse)
	give("other", "", "10.44.0.1") // too small for a static band
	give("not-ready", "10.43.0.30", "the provided network does not match the current range")
	c.ready("kubernetes", metav1.ConditionTrue)
	give("again", "", "10.43.0.18")
	c.ready("kubernetes", metav1.ConditionFalse)
	for i := range 12 {
		c.mustCreate(service(fmt.Sprintf("fill%d", i), nil))
	}
	give("full", "", "range is full")
	c.rangeOf("third", "10.45.0.0/24")
	give("third", "", "10.45.0.17")
	if _, _, err := c.Delete(t.Context(), requesttest.Info("delete", "networking.k8s.io/v1", "servicecidrs", "", "third"), &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	give("going", "", "range is full")
	c.delete("third") // what is given is freed all the same
	if c.claimed("10.45.0.17") {
		t.Error("an address of a range that goes was not freed")
	}
}

// A claim looks as if it had been made through the API, and one that was made so
// holds its address.
func TestClaimsAreObjects(t *testing.T) {
	c := newCluster(t)
	s := c.mustCreate(service("a", nil))
	row := c.Registry.Must("networking.k8s.io", "ipaddresses")
	claim := c.Store.View().Get(row, api.Key{Name: s.Spec.ClusterIP}).(*networkingv1.IPAddress)
	made := &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: "10.43.0.18", Labels: claim.Labels},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "b"}},
	}
	info := requesttest.Info("create", "networking.k8s.io/v1", "ipaddresses", "", "")
	out, err := c.Create(t.Context(), info, request.Body{Object: made}, &metav1.CreateOptions{FieldManager: "kube-apiserver"})
	if err != nil {
		t.Fatal(err)
	}
	want, got := out.(*networkingv1.IPAddress).ManagedFields, claim.ManagedFields
	if len(got) != 1 || got[0].FieldsV1.String() != want[0].FieldsV1.String() || got[0].Manager != want[0].Manager || got[0].APIVersion != want[0].APIVersion {
		t.Errorf("managed fields are %v, want %v", got, want)
	}
	if !claim.CreationTimestamp.Time.Equal(epoch) || claim.UID == "" {
		t.Errorf("the claim is %+v", claim.ObjectMeta)
	}
	// It is taken over, since there is no service b; this one is not.
	own := &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: "10.43.0.19"}, Spec: made.Spec}
	if _, err := c.Create(t.Context(), info, request.Body{Object: own}, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := []string{c.mustCreate(service("c", nil)).Spec.ClusterIP, c.mustCreate(service("d", nil)).Spec.ClusterIP}; !slices.Equal(got, []string{"10.43.0.18", "10.43.0.20"}) {
		t.Errorf("services got %v", got)
	}
}

func TestPortsAreClaimedAndFreed(t *testing.T) {
	c := newCluster(t)
	want := func(ports ...int) {
		t.Helper()
		if got := c.ports(); !slices.Equal(got, ports) {
			t.Errorf("ports in use are %v, want %v", got, ports)
		}
	}
	a := c.mustCreate(service("a", nodePort))
	if a.Spec.Ports[0].NodePort != 30016 {
		t.Errorf("node port is %d, want the first dynamic one", a.Spec.Ports[0].NodePort)
	}
	want(30016)
	// One number serves both protocols of a port.
	b := c.mustCreate(service("b", func(s *corev1.ServiceSpec) {
		nodePort(s)
		s.Ports = []corev1.ServicePort{{Name: "t", Port: 53, Protocol: "TCP"}, {Name: "u", Port: 53, Protocol: "UDP"}}
	}))
	if x, y := b.Spec.Ports[0].NodePort, b.Spec.Ports[1].NodePort; x != 30017 || y != x {
		t.Errorf("ports are %d and %d", x, y)
	}
	want(30016, 30017)
	c.patch("a", `{"spec":{"type":"ClusterIP"}}`)
	want(30017)
	c.patch("b", `{"spec":{"ports":[{"name":"t","port":53,"protocol":"TCP","nodePort":30005}]}}`)
	want(30005)
	_, err := c.create(service("d", func(s *corev1.ServiceSpec) { nodePort(s); s.Ports[0].NodePort = 30005 }))
	if err == nil || !strings.Contains(err.Error(), `spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated`) {
		t.Errorf("taken port gave %v", err)
	}
	_, err = c.create(service("d", func(s *corev1.ServiceSpec) { nodePort(s); s.Ports[0].NodePort = 40000 }))
	if err == nil || !strings.Contains(err.Error(), `Invalid value: 40000: provided port is not in the valid range. The range of valid ports is 30000-30099`) {
		t.Errorf("port out of range gave %v", err)
	}
	c.delete("b")
	want()
}

// A service without node ports claims none, so that others need not wait for it.
func TestNoPorts(t *testing.T) {
	c := newCluster(t)
	c.mustCreate(service("a", nil))
	c.mustCreate(service("b", func(s *corev1.ServiceSpec) {
		s.Type, s.AllocateLoadBalancerNodePorts = corev1.ServiceTypeLoadBalancer, ptr.To(false)
	}))
	c.delete("a")
	c.delete("b")
	if c.raw("ranges/servicenodeports", &corev1.RangeAllocation{}) {
		t.Error("ports were claimed")
	}
}

// Who creates a service is told of a port that it has twice as of one that others
// have, who changes it as of a fault of the server; as in Kubernetes'
// pkg/registry/core/service/storage/alloc.go.
func TestRefusedPorts(t *testing.T) {
	c := newCluster(t)
	of := func(kind corev1.ServiceType, ports ...corev1.ServicePort) *corev1.Service {
		return service("b", func(s *corev1.ServiceSpec) { s.Type, s.Ports = kind, ports })
	}
	front := func(name string, port int32, protocol corev1.Protocol, node int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: port, Protocol: protocol, NodePort: node}
	}
	local := func(health int32) *corev1.Service {
		s := of(corev1.ServiceTypeLoadBalancer, front("a", 80, "TCP", 0))
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyLocal, health
		return s
	}
	taken := of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30005))
	taken.Name = "a"
	c.mustCreate(taken)

	create := func(s *corev1.Service) error { _, err := c.create(s); return err }
	dryRun := func(s *corev1.Service) error { _, err := c.create(s, metav1.DryRunAll); return err }
	update := func(s *corev1.Service) error {
		_, _, err := c.Update(t.Context(), requesttest.Info("update", "v1", "services", "default", "b"), request.Body{Object: s}, &metav1.UpdateOptions{})
		return err
	}
	for _, row := range []struct {
		name, want string
		code       int32
		do         func(*corev1.Service) error
		s          *corev1.Service
	}{
		{"twice", "spec.ports[1].nodePort: Invalid value: 30007: provided port is already allocated", 422, create,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 81, "TCP", 30007))},
		{"twice, of two protocols", "spec.ports[1].nodePort: Invalid value: 30007: provided port is already allocated", 422, create,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 81, "UDP", 30007))},
		{"twice, of one port", "spec.ports[1].nodePort: Duplicate value: 30007", 422, create,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 80, "TCP", 0))},
		{"health port of others", "Internal error occurred: failed to allocate requested HealthCheck NodePort 30005: provided port is already allocated", 500, create, local(30005)},
		{"health port out of range", "Internal error occurred: failed to allocate requested HealthCheck NodePort 5: provided port is not in the valid range. The range of valid ports is 30000-30099", 500, create, local(5)},
		{"none", "", 0, create, of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007))},
		{"the same once more", "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated", 422, create,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007))},
		{"the same once more, dry", "spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated", 422, dryRun,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007))},
		{"changed: twice", "duplicate nodePort: {TCP 30007}", 500, update,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 81, "TCP", 30007))},
		{"changed: twice, and new", "duplicate nodePort: {UDP 30008}", 500, update,
			of(corev1.ServiceTypeNodePort, front("a", 80, "UDP", 30008), front("b", 81, "UDP", 30008))},
		{"changed: of others", "spec.ports[1].nodePort: Invalid value: 30005: provided port is already allocated", 422, update,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 81, "TCP", 30005))},
		{"changed: health port of its own", "Internal error occurred: failed to allocate requested HealthCheck NodePort 30007: provided port is already allocated", 500, update, local(30007)},
		{"changed: of two protocols", "", 0, update,
			of(corev1.ServiceTypeNodePort, front("a", 80, "TCP", 30007), front("b", 81, "UDP", 30007))},
	} {
		err := row.do(row.s)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || request.StatusOf(err).Code != row.code):
			t.Errorf("%s: %v, want %d %s", row.name, err, row.code, row.want)
		}
	}
	if got := c.ports(); !slices.Equal(got, []int{30005, 30007}) {
		t.Errorf("ports in use are %v", got)
	}
}

// A dry run of what is there already says so, and not that its own address is
// taken, which the real thing does.
func TestCreatedOnceMore(t *testing.T) {
	c := newCluster(t)
	again := func() *corev1.Service {
		return service("a", func(s *corev1.ServiceSpec) { s.ClusterIP = "10.43.0.10" })
	}
	c.mustCreate(again())
	if _, err := c.create(again(), metav1.DryRunAll); !apierrors.IsAlreadyExists(err) {
		t.Errorf("a dry run gave %v", err)
	}
	if _, err := c.create(again()); !apierrors.IsInvalid(err) || !strings.HasSuffix(err.Error(), "failed to allocate IP 10.43.0.10: provided IP is already allocated") {
		t.Errorf("without one: %v", err)
	}
	if _, err := c.create(service("a", nil)); !apierrors.IsAlreadyExists(err) {
		t.Errorf("without an address: %v", err)
	}
}

// An address does not change, whoever else has the new one.
func TestChangedAddress(t *testing.T) {
	c := newCluster(t)
	c.mustCreate(service("a", func(s *corev1.ServiceSpec) { s.ClusterIP = "10.43.0.9" }))
	c.mustCreate(service("b", func(s *corev1.ServiceSpec) { s.ClusterIP = "10.43.0.10" }))
	s := service("b", func(s *corev1.ServiceSpec) { s.ClusterIP = "10.43.0.9" })
	_, _, err := c.Update(t.Context(), requesttest.Info("update", "v1", "services", "default", "b"), request.Body{Object: s}, &metav1.UpdateOptions{})
	const want = `Service "b" is invalid: spec.clusterIPs[0]: Invalid value: ["10.43.0.9"]: may not change once set`
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestFullRanges(t *testing.T) {
	c := newCluster(t)
	for i := range 100 {
		c.mustCreate(service(fmt.Sprintf("s%d", i), nodePort))
	}
	_, err := c.create(service("more", nodePort))
	if err == nil || !strings.Contains(err.Error(), "failed to allocate a nodePort: range is full") {
		t.Errorf("without ports: %v", err)
	}
	for i := range 154 {
		c.mustCreate(service(fmt.Sprintf("c%d", i), nil))
	}
	_, err = c.create(service("more", nil))
	if err == nil || !strings.Contains(err.Error(), "failed to allocate a serviceIP for Service \"more\": range is full") {
		t.Errorf("without addresses: %v", err)
	}
}

func TestDryRunClaimsNothing(t *testing.T) {
	c := newCluster(t)
	s, err := c.create(service("a", nodePort), metav1.DryRunAll)
	if err != nil || s.Spec.ClusterIP == "" || s.Spec.Ports[0].NodePort == 0 {
		t.Errorf("dry run gave %v, %v", s, err)
	}
	if c.claimed("10.43.0.17") || len(c.ports()) > 0 {
		t.Error("a dry run claimed something")
	}
}

// All choose the same address and port first: the losers of the race choose again.
func TestConcurrentCreates(t *testing.T) {
	c := newCluster(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := c.create(service(fmt.Sprintf("s%d", i), nodePort)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ips, ports := map[string]bool{}, map[int32]bool{}
	for obj := range c.Store.View().List(c.Registry.Must("", "services"), "") {
		s := obj.(*corev1.Service)
		ips[s.Spec.ClusterIP], ports[s.Spec.Ports[0].NodePort] = true, true
	}
	if len(ips) != 16 || len(ports) != 16 || len(c.ports()) != 16 {
		t.Errorf("16 services have %d addresses and %d ports, %d are claimed", len(ips), len(ports), len(c.ports()))
	}
}

func TestLeaksAreTakenOver(t *testing.T) {
	c := newCluster(t)
	c.mustCreate(service("a", func(s *corev1.ServiceSpec) { nodePort(s); s.ClusterIP = "10.43.0.9"; s.Ports[0].NodePort = 30003 }))
	// The service goes behind the server's back; its claims stay.
	_, err := c.Store.Update(t.Context(), requesttest.Ref("", "services", "default", "a"), store.WriteOptions{},
		func(api.Object) (store.Outcome, error) { return store.Outcome{Delete: true}, nil })
	if err != nil || !c.claimed("10.43.0.9") {
		t.Fatal("there is no leak", err)
	}
	b, err := c.create(service("b", func(s *corev1.ServiceSpec) { nodePort(s); s.ClusterIP = "10.43.0.9"; s.Ports[0].NodePort = 30003 }))
	if err != nil || b.Spec.ClusterIP != "10.43.0.9" || b.Spec.Ports[0].NodePort != 30003 {
		t.Errorf("taking over gave %v, %v", b, err)
	}
}

// Services restored without their claims keep what they have.
func TestServicesWithoutClaimsAreRespected(t *testing.T) {
	c := newCluster(t)
	row := c.Registry.Must("", "services")
	old := service("a", func(s *corev1.ServiceSpec) {
		nodePort(s)
		s.ClusterIP, s.ClusterIPs = "10.43.0.17", []string{"10.43.0.17"}
		s.Ports[0].NodePort = 30016
	})
	if _, err := c.Store.Create(t.Context(), row, old, store.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if b := c.mustCreate(service("b", nodePort)); b.Spec.ClusterIP == "10.43.0.17" || b.Spec.Ports[0].NodePort == 30016 {
		t.Errorf("another service was given the same: %+v", b.Spec)
	}
	for what, change := range map[string]func(*corev1.ServiceSpec){
		"provided IP is already allocated":   func(s *corev1.ServiceSpec) { s.ClusterIP = "10.43.0.17" },
		"provided port is already allocated": func(s *corev1.ServiceSpec) { nodePort(s); s.Ports[0].NodePort = 30016 },
	} {
		if _, err := c.create(service("d", change)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error is %v, want %s", err, what)
		}
	}
	// Whatever is written next claims for it as well.
	if got := c.ports(); !slices.Equal(got, []int{30016, 30017}) {
		t.Errorf("ports in use are %v", got)
	}
}
