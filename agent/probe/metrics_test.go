package probe

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	m := NewMetrics(r)
	s := Subject{Kind: "Liveness", Container: "c", Pod: "p", Namespace: "ns", UID: "u"}
	m.Observe(s, Outcome{OK: true}, nil, time.Second)
	m.Observe(s, Outcome{}, nil, time.Second)
	m.Observe(s, Outcome{}, errors.New("unable"), time.Second)
	want := `
# HELP prober_probe_total Cumulative number of a liveness, readiness or startup probe for a container by result.
# TYPE prober_probe_total counter
prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="failed"} 1
prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="successful"} 1
prober_probe_total{container="c",namespace="ns",pod="p",pod_uid="u",probe_type="Liveness",result="unknown"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "prober_probe_total"); err != nil {
		t.Error(err)
	}
	m.Forget("ns", "p", "u")
	if n, err := testutil.GatherAndCount(r); n != 0 || err != nil {
		t.Errorf("%d series of a pod that is gone, %v", n, err)
	}
	var none *Metrics
	none.Observe(s, Outcome{}, nil, 0)
	none.Forget("ns", "p", "u")
}
