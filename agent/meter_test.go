package agent

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

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
