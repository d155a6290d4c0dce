package node_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/runtime/fake"
)

type rig struct {
	t      *testing.T
	client *direct.Client
	clock  *clocktesting.FakeClock
	ready  atomic.Pointer[error]
	keeper *node.Keeper
	nodes  *api.Resource
}

func newRig(t *testing.T) *rig { return newRigWith(t, func(*node.Config) {}) }

func newRigWith(t *testing.T, change func(*node.Config)) *rig {
	r := &rig{
		t: t, client: direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test"),
		clock: clocktesting.NewFakeClock(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)), nodes: kinds.Registry().Must("", "nodes"),
	}
	create(t, r.client, "namespaces", &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1.NamespaceNodeLease}})
	c := node.Config{
		Name: "n1", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Port: 10250, PodCIDR: "10.42.0.0/24", Version: "v1.37.2",
		RuntimeVersion: func(context.Context) (string, error) { return "fake://1", nil },
		Offers:         fake.New(clocktesting.NewFakeClock(time.Time{})).Offers,
		Labels:         map[string]string{"own": "yes"}, Taints: []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}},
		Capacity:    v1.ResourceList{v1.ResourceCPU: resource.MustParse("2")},
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")},
		Ready: func(context.Context) error {
			if err := r.ready.Load(); err != nil {
				return *err
			}
			return nil
		},
		Pressure:  func() []v1.NodeConditionType { return []v1.NodeConditionType{v1.NodeDiskPressure} },
		MaxImages: 50, Lease: 40 * time.Second, Look: 10 * time.Second,
		Images: func(context.Context) ([]v1.ContainerImage, error) {
			return []v1.ContainerImage{{Names: []string{"small"}, SizeBytes: 1}, {Names: []string{"large"}, SizeBytes: 2}}, nil
		},
		Client: r.client, Clock: r.clock, Events: events.Discard, Log: slog.Default(),
	}
	change(&c)
	r.keeper = node.New(c)
	return r
}

func create(t *testing.T, c *direct.Client, plural string, obj api.Object) {
	t.Helper()
	if _, err := c.Create(t.Context(), kinds.Registry().Must("", plural), obj, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.keeper.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	})
}

func (r *rig) wait(what string, ok func(*v1.Node) bool) *v1.Node {
	r.t.Helper()
	timeout := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		n, _ := r.client.View().Get(r.nodes, api.Key{Name: "n1"}).(*v1.Node)
		if n != nil && ok(n) {
			return n
		}
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited for %s in vain: %+v", what, n)
		}
	}
}

func condition(n *v1.Node, t v1.NodeConditionType) v1.NodeCondition {
	i := slices.IndexFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == t })
	if i < 0 {
		return v1.NodeCondition{}
	}
	return n.Status.Conditions[i]
}

func is(status v1.ConditionStatus) func(*v1.Node) bool {
	return func(n *v1.Node) bool { return condition(n, v1.NodeReady).Status == status }
}

// "Node status": what a node reports, and that it keeps what others add.
func TestReport(t *testing.T) {
	r := newRig(t)
	r.run()
	n := r.wait("Ready", is(v1.ConditionTrue))
	if n.Labels["own"] != "yes" || n.Labels[v1.LabelHostname] != "n1" || n.Labels[v1.LabelOSStable] != "linux" ||
		n.Spec.PodCIDR != "10.42.0.0/24" || len(n.Spec.Taints) == 0 || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
		t.Errorf("node: %+v", n)
	}
	if c := condition(n, v1.NodeDiskPressure); c.Status != v1.ConditionTrue || c.Reason != "KubeletHasDiskPressure" {
		t.Errorf("disk pressure: %+v", c)
	}
	if c := condition(n, v1.NodeMemoryPressure); c.Status != v1.ConditionFalse || c.Reason != "KubeletHasSufficientMemory" {
		t.Errorf("memory pressure: %+v", c)
	}
	if h := n.Status.RuntimeHandlers; len(h) != 2 || h[0].Name != "" || h[1].Name != "runc" || !*h[1].Features.RecursiveReadOnlyMounts || !*h[1].Features.UserNamespaces {
		t.Errorf("runtime handlers: %+v", h)
	}
	if f := n.Status.Features; f == nil || !*f.SupplementalGroupsPolicy {
		t.Errorf("features: %+v", f)
	}
	if len(n.Status.Images) != 2 || n.Status.Images[0].Names[0] != "large" {
		t.Errorf("images: %v", n.Status.Images)
	}

	// Somebody announces a resource and a condition; the runtime goes away.
	other := n.DeepCopy()
	other.Status.Capacity["example.com/x"] = resource.MustParse("3")
	other.Status.Conditions = append(other.Status.Conditions, v1.NodeCondition{Type: "Other", Status: v1.ConditionTrue})
	if _, err := r.client.Update(t.Context(), r.nodes, other, "status"); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("container runtime is down")
	r.ready.Store(&gone)
	r.keeper.Poke()
	n = r.wait("NotReady", is(v1.ConditionFalse))
	if c := condition(n, v1.NodeReady); c.Reason != "KubeletNotReady" || c.Message != "container runtime is down" {
		t.Errorf("not ready: %+v", c)
	}
	if q := n.Status.Capacity["example.com/x"]; q.Value() != 3 || condition(n, "Other").Status != v1.ConditionTrue {
		t.Errorf("what others wrote is lost: %+v", n.Status)
	}
	r.ready.Store(nil)
	r.keeper.Poke()
	r.wait("Ready again", is(v1.ConditionTrue))
}

// leaseUntil waits for a time of renewal.
func (r *rig) leaseUntil(ok func(renewed time.Time) bool) *coordinationv1.Lease {
	r.t.Helper()
	leases := kinds.Registry().Must("coordination.k8s.io", "leases")
	timeout := time.After(20 * time.Second)
	for {
		l, _ := r.client.View().Get(leases, api.Key{Namespace: v1.NamespaceNodeLease, Name: "n1"}).(*coordinationv1.Lease)
		if l != nil && ok(l.Spec.RenewTime.Time) && r.clock.HasWaiters() {
			return l
		}
		select {
		case <-time.After(time.Millisecond):
		case <-timeout:
			r.t.Fatalf("the lease was not renewed: %+v", l)
		}
	}
}

// The clock jumps: the lease has the time of now at once, whichever way it went.
func TestLeaseAfterClockJump(t *testing.T) {
	r := newRig(t)
	r.run()
	r.wait("Ready", is(v1.ConditionTrue))
	r.leaseUntil(r.clock.Now().Equal)
	for _, jump := range []time.Duration{-2 * time.Hour, 2 * time.Hour, -time.Second} {
		r.clock.SetTime(r.clock.Now().Add(jump))
		r.keeper.Renew()
		r.leaseUntil(r.clock.Now().Equal)
	}
}

// deaf is an API that takes no lease while it is deaf.
type deaf struct {
	client.Interface
	deaf  atomic.Bool
	asked atomic.Int32
}

func (d *deaf) Update(ctx context.Context, r *api.Resource, obj api.Object, sub string) (api.Object, error) {
	if r.Plural == "leases" && d.deaf.Load() {
		d.asked.Add(1)
		return nil, errors.New("deaf")
	}
	return d.Interface.Update(ctx, r, obj, sub)
}

// A lease that is not taken is tried again, ever more seldom, and not only when
// the next renewal is due: also that after the clock was set.
func TestLeaseNotTaken(t *testing.T) {
	d := &deaf{}
	r := newRigWith(t, func(c *node.Config) { d.Interface, c.Client = c.Client, d })
	r.run()
	r.wait("Ready", is(v1.ConditionTrue))
	first := r.leaseUntil(func(time.Time) bool { return true }).Spec.RenewTime.Time
	d.deaf.Store(true)
	r.keeper.Renew()
	r.leaseUntil(func(time.Time) bool { return d.asked.Load() > 0 })
	for range 100 { // 5 s, by the shortest pause
		r.leaseUntil(first.Equal) // it waits
		r.clock.Step(50 * time.Millisecond)
	}
	if n := d.asked.Load(); n < 4 || n > 8 {
		t.Errorf("tried %d times in 5 s", n)
	}
	d.deaf.Store(false)
	r.leaseUntil(first.Equal)
	r.clock.Step(5 * time.Second)
	r.leaseUntil(r.clock.Now().Equal)
}

// "Heartbeats": the lease every ten seconds, the status only when it changes:
// at rest nothing but leases is written.
func TestHeartbeat(t *testing.T) {
	r := newRig(t)
	r.run()
	renewed := func(after time.Time) *coordinationv1.Lease {
		t.Helper()
		return r.leaseUntil(func(at time.Time) bool { return at.After(after) })
	}
	first := renewed(time.Time{})
	if *first.Spec.LeaseDurationSeconds != 40 || *first.Spec.HolderIdentity != "n1" || len(first.OwnerReferences) != 1 {
		t.Errorf("lease: %+v", first)
	}
	version := r.wait("Ready", is(v1.ConditionTrue)).ResourceVersion
	last := first.Spec.RenewTime.Time
	for range 3 {
		r.clock.Step(10 * time.Second)
		last = renewed(last).Spec.RenewTime.Time
	}
	r.clock.Step(10 * time.Minute)
	renewed(last)
	n := r.wait("Ready", is(v1.ConditionTrue))
	if n.ResourceVersion != version {
		t.Errorf("the status was written without a change")
	}
}

// nodeLeaseDurationSeconds and nodeStatusUpdateFrequency: the lease is renewed every
// quarter of its time, the machine looked at as often as is said, whatever the other.
func TestFrequencies(t *testing.T) {
	for _, c := range []struct{ lease, look time.Duration }{{20 * time.Second, time.Minute}, {400 * time.Second, 3 * time.Second}} {
		var looks atomic.Int32
		r := newRigWith(t, func(config *node.Config) {
			config.Lease, config.Look = c.lease, c.look
			config.Ready = func(context.Context) error { looks.Add(1); return nil }
		})
		r.run()
		r.wait("Ready", is(v1.ConditionTrue))
		first := r.leaseUntil(r.clock.Now().Equal)
		if time.Duration(*first.Spec.LeaseDurationSeconds)*time.Second != c.lease {
			t.Errorf("lease: %+v", first)
		}
		seen, next := looks.Load(), min(c.look, c.lease/4)
		r.clock.Step(next - time.Millisecond)
		r.leaseUntil(first.Spec.RenewTime.Time.Equal)
		if n := looks.Load(); n != seen {
			t.Errorf("%+v: %d looks too early", c, n-seen)
		}
		r.clock.Step(time.Millisecond)
		r.leaseUntil(func(at time.Time) bool {
			return looks.Load() == seen+1 && at.Equal(r.clock.Now()) == (next == c.lease/4)
		})
	}
}

// A node that somebody deletes registers again.
func TestDeleted(t *testing.T) {
	r := newRig(t)
	r.run()
	before := r.wait("Ready", is(v1.ConditionTrue))
	if err := r.client.Delete(t.Context(), api.Ref{Resource: r.nodes, Name: "n1"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.keeper.Poke()
	r.wait("a new node", func(n *v1.Node) bool { r.keeper.Poke(); return n.UID != before.UID && is(v1.ConditionTrue)(n) })
}

// registerNode: false leaves the making of the node's object to somebody else,
// and then reports as ever; providerID is in the spec either way, unless
// somebody was first.
func TestRegisterNode(t *testing.T) {
	r := newRigWith(t, func(c *node.Config) { c.ProviderID = "cloud://zone/1" })
	r.run()
	if n := r.wait("Ready", is(v1.ConditionTrue)); n.Spec.ProviderID != "cloud://zone/1" {
		t.Errorf("provider %q", n.Spec.ProviderID)
	}
	r = newRigWith(t, func(c *node.Config) {
		c.Unregistered, c.ProviderID = true, "cloud://zone/1"
	})
	r.run()
	r.keeper.Poke()
	if n := r.client.View().Get(r.nodes, api.Key{Name: "n1"}); n != nil {
		t.Errorf("it was registered: %v", n)
	}
	create(t, r.client, "nodes", &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	n := r.wait("Ready", func(n *v1.Node) bool { r.keeper.Poke(); r.clock.Step(time.Second); return is(v1.ConditionTrue)(n) })
	if n.Spec.ProviderID != "cloud://zone/1" {
		t.Errorf("provider %q", n.Spec.ProviderID)
	}
}

// podsPerCore bounds maxPods.
func TestPodsPerCore(t *testing.T) {
	h := node.Host{Root: "/", DataDir: t.TempDir()}
	for _, c := range []struct{ most, perCore, want int32 }{
		{110, 0, 110}, {1 << 30, 3, 3 * int32(goruntime.NumCPU())}, {1, 3, 1},
	} {
		capacity, err := h.Capacity(c.most, c.perCore)
		if err != nil || capacity.Pods().Value() != int64(c.want) {
			t.Errorf("%+v: %v %v", c, capacity.Pods(), err)
		}
	}
}

func TestHost(t *testing.T) {
	h := node.Host{Root: "/", DataDir: t.TempDir()}
	capacity, err := h.Capacity(110, 0)
	if err != nil {
		t.Fatal(err)
	}
	left := node.Allocatable(capacity, v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")}, []evict.Threshold{{Signal: evict.Memory, Min: evict.Amount{Absolute: 100 << 20}}})
	cpu, memory := left[v1.ResourceCPU], left[v1.ResourceMemory]
	total, totalMemory := capacity[v1.ResourceCPU], capacity[v1.ResourceMemory]
	if total.MilliValue()-cpu.MilliValue() != 100 || totalMemory.Value()-memory.Value() < 100<<20 {
		t.Errorf("capacity %v, allocatable %v", capacity, left)
	}
	info := h.Info()
	if info.KernelVersion == "" || info.OSImage == "" || info.BootID == "" {
		t.Errorf("info: %+v", info)
	}
	if o, err := h.Observe(""); err != nil || o[evict.Memory].Capacity == 0 || o[evict.NodeFS].Capacity == 0 || o[evict.PIDs].Available == 0 || o[evict.ImageFS].Capacity != 0 {
		t.Errorf("%v %v", o, err)
	}
	if u, err := h.Usage(); err != nil || u.CPUNanos == 0 || u.WorkingSet == 0 {
		t.Errorf("usage: %+v %v", u, err)
	}
}

// What the machine uses, as the kernel's files have it.
func TestUsageOfRecordedHost(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"proc/meminfo":                "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nAnonPages: 50 kB\nSwapTotal: 80 kB\nSwapFree: 70 kB\n",
		"proc/stat":                   "cpu  100 1 50 9000 77 2 3 4 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nbtime 1700000000\n",
		"proc/vmstat":                 "pgfault 11\npgmajfault 12\n",
		"proc/cpuinfo":                "processor : 0\nphysical id : 0\ncore id : 0\n\nprocessor : 1\nphysical id : 0\ncore id : 0\n",
		"proc/loadavg":                "0.1 0.2 0.3 1/345 999\n",
		"proc/sys/kernel/pid_max":     "8192\n",
		"proc/sys/kernel/threads-max": "4096\n",
		"proc/7/net/dev":              "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := node.Host{Root: root}
	want := node.Usage{
		CPUNanos: 160 * 10_000_000, Memory: 800 << 10, Free: 200 << 10, WorkingSet: 400 << 10, Available: 600 << 10, RSS: 50 << 10, Swap: 10 << 10, SwapFree: 70 << 10,
		Faults: 11, MajorFaults: 12, Boot: time.Unix(1700000000, 0),
	}
	if u, err := h.Usage(); err != nil || u != want {
		t.Errorf("usage %+v, %v\nwant %+v", u, err, want)
	}
	if c := h.Cores(); c != (node.Cores{CPUs: 2, Cores: 1, Sockets: 1}) {
		t.Errorf("cores %+v", c)
	}
	if p := h.Processes(metav1.Time{}); *p.MaxPID != 4096 || *p.NumOfRunningProcesses != 345 {
		t.Errorf("processes %+v", p)
	}
	if i := h.InterfacesOf("7"); len(i) != 1 || i[0] != (node.Interface{Name: "eth0", RxBytes: 10, RxPackets: 11, RxErrors: 12, RxDropped: 13, TxBytes: 20, TxPackets: 21, TxErrors: 22, TxDropped: 23}) {
		t.Errorf("interfaces %+v", i)
	}
	if fs := h.FileSystem(root, metav1.Time{}); fs == nil || *fs.CapacityBytes == 0 || *fs.Inodes < *fs.InodesFree {
		t.Errorf("file system %+v", fs)
	}
}
