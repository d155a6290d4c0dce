package agent

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/node"
)

func TestRates(t *testing.T) {
	m, at := newMeter(), time.Unix(1000, 0)
	if !m.stale("g", at) || m.note("g", at, 1e9) != nil {
		t.Error("a rate of one measurement")
	}
	if m.note("g", at.Add(rateLeast/2), 2e9) != nil {
		t.Error("a rate of no time")
	}
	at = at.Add(2 * time.Second)
	if rate := m.note("g", at, 2e9); rate == nil || *rate != 5e8 {
		t.Errorf("rate %v, want half a core", rate)
	}
	if rate := m.note("g", at.Add(rateLeast/2), 3e9); rate == nil || *rate != 5e8 {
		t.Errorf("rate %v shortly after, want the same", rate)
	}
	if m.stale("g", at.Add(time.Second)) || !m.stale("g", at.Add(2*rateMost)) {
		t.Error("stale at the wrong time")
	}
	if m.note("g", at.Add(time.Second), 1) != nil {
		t.Error("a rate of a counter that went back")
	}
	m.tidy(at.Add(time.Hour))
	if len(m.cpu) != 0 {
		t.Error("what is old is kept")
	}
}

// Disk space is measured now and then, however often somebody asks.
func TestSpaces(t *testing.T) {
	m, at, n := newMeter(), time.Unix(1000, 0), 0
	measure := func() spaces { n++; return spaces{rootfs: &statsv1alpha1.FsStats{}} }
	for range 3 {
		if m.space("c", at, measure).rootfs == nil {
			t.Error("nothing measured")
		}
	}
	m.space("c", at.Add(diskEvery), measure)
	if n != 2 {
		t.Errorf("measured %d times, want 2", n)
	}
}

// "Understanding Pressure Stall Information (PSI) Metrics": what the kernel counts is
// shown, and nothing where it does not.
func TestPressureStats(t *testing.T) {
	a, at := &Agent{meter: newMeter()}, time.Unix(1000, 0)
	s := cgroup.Stat{Pressure: cgroup.Pressures{
		Counted: true, CPU: cgroup.Pressure{Some: cgroup.Stall{Micros: 5, Avg10: 1.5, Avg60: 0.5, Avg300: 0.25}},
		Memory: cgroup.Pressure{Full: cgroup.Stall{Micros: 6}}, IO: cgroup.Pressure{Full: cgroup.Stall{Micros: 7}},
	}}
	cpu, memory, _ := a.groupStats("g", s, at)
	if want := (statsv1alpha1.PSIData{Total: 5, Avg10: 1.5, Avg60: 0.5, Avg300: 0.25}); cpu.PSI.Some != want || memory.PSI.Full.Total != 6 {
		t.Errorf("cpu %+v, memory %+v", cpu.PSI, memory.PSI)
	}
	if io := ioStats(s.Pressure, metav1.NewTime(at)); io.PSI.Full.Total != 7 || !io.Time.Time.Equal(at) {
		t.Errorf("io %+v", io)
	}
	cpu, memory, _ = a.groupStats("g", cgroup.Stat{}, at)
	if cpu.PSI != nil || memory.PSI != nil || ioStats(cgroup.Pressures{}, metav1.NewTime(at)) != nil {
		t.Errorf("where nothing is counted: cpu %+v, memory %+v", cpu.PSI, memory.PSI)
	}
}

func TestNetworkStats(t *testing.T) {
	at := metav1.NewTime(time.Unix(1000, 0))
	s := networkStats([]node.Interface{{Name: "lan", RxBytes: 1}, {Name: "eth0", RxBytes: 2, TxErrors: 3}}, at)
	if s.Name != "eth0" || *s.RxBytes != 2 || *s.TxErrors != 3 || len(s.Interfaces) != 2 {
		t.Errorf("stats %+v", s)
	}
	if networkStats(nil, at) != nil {
		t.Error("stats of no interface")
	}
}
