package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/fake"
)

var start = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// value is that of a series, or the number and sum of what a histogram saw; -1 without
// it.
func value(t *testing.T, r *prometheus.Registry, name string, labels ...string) (value, sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var has []string
			for _, l := range m.Label {
				has = append(has, l.GetName()+"="+l.GetValue())
			}
			switch {
			case !slices.Equal(has, labels):
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount()), m.Histogram.GetSampleSum()
			case m.Gauge != nil:
				return m.Gauge.GetValue(), 0
			default:
				return m.Counter.GetValue(), 0
			}
		}
	}
	return -1, 0
}

// Operations of the runtime are counted, with their failures; an answer that a thing is
// not there is none, nor is a command's exit code.
func TestRuntime(t *testing.T) {
	registry, clk := prometheus.NewRegistry(), clocktesting.NewFakeClock(start)
	rt := fake.New(clk)
	rt.AddImage("img", nil)
	r := metrics.New(registry).Runtime(rt, clk)
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p"}}
	sandbox, err := r.RunSandbox(t.Context(), config, "")
	if err != nil {
		t.Fatal(err)
	}
	rt.Fail("RunSandbox", errors.New("no"))
	if _, err := r.RunSandbox(t.Context(), config, "other"); err == nil {
		t.Error("it did not fail")
	}
	id, err := r.CreateContainer(t.Context(), sandbox, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app"}, Image: &cri.ImageSpec{Image: "img"}}, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.StopSandbox(context.Background(), sandbox) }) // ends the program's goroutine
	if _, err := r.Image(t.Context(), "none"); !errors.Is(err, runtime.ErrNotFound) {
		t.Error(err)
	}
	rt.SetCommands(func(context.Context, string, []string, runtime.Streams) int { return 3 })
	var exit *runtime.ExitError
	if err := r.Exec(t.Context(), id, []string{"x"}, runtime.Streams{}); !errors.As(err, &exit) {
		t.Error(err)
	}
	rt.SetReady(&runtime.NotReady{Condition: "RuntimeReady"})
	if err := r.Ready(t.Context()); err == nil {
		t.Error("it is ready")
	}
	for operation, want := range map[string][2]float64{
		"run_podsandbox": {2, 1}, "create_container": {1, 0}, "start_container": {1, 0}, "image_status": {1, 0}, "exec": {1, 0}, "status": {1, 0}, "pull_image": {0, 0},
	} {
		total, _ := value(t, registry, "kubelet_runtime_operations_total", "operation_type="+operation)
		failed, _ := value(t, registry, "kubelet_runtime_operations_errors_total", "operation_type="+operation)
		if total != want[0] || failed != want[1] {
			t.Errorf("%s: %v with %v errors, want %v", operation, total, failed, want)
		}
	}
	took, _ := value(t, registry, "kubelet_run_podsandbox_duration_seconds", "runtime_handler=other")
	failed, _ := value(t, registry, "kubelet_run_podsandbox_errors_total", "runtime_handler=other")
	if took != 1 || failed != 1 {
		t.Errorf("of the other handler %v, %v errors", took, failed)
	}
	if n, _ := value(t, registry, "kubelet_runtime_operations_duration_seconds", "operation_type=exec"); n != 0 {
		t.Errorf("%v durations of what lasts as long as its client likes", n)
	}
}

// silent is a runtime that answers without doing anything.
type silent struct{ runtime.Runtime }

func (silent) StartContainer(context.Context, string) error { return nil }

// Counting costs the start of a pod no memory.
func TestCountingIsFree(t *testing.T) {
	m := metrics.New(prometheus.NewRegistry())
	r := m.Runtime(silent{}, clocktesting.NewFakeClock(start))
	if n := testing.AllocsPerRun(100, func() {
		if err := r.StartContainer(t.Context(), ""); err != nil {
			t.Error(err)
		}
		m.Worked(metrics.Create, time.Second)
		m.Sandbox(false, nil)
		m.Start(metrics.Container, "")
		m.Ran(time.Second)
		m.Started(time.Second, time.Second, false)
		m.Wrote(time.Second)
		m.Grouped("create", time.Second)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Requests are counted by the beginning of their path; what nobody knows is one.
func TestRequests(t *testing.T) {
	registry, clk := prometheus.NewRegistry(), clocktesting.NewFakeClock(start)
	h := metrics.New(registry).Requests(clk, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if n, _ := value(t, registry, "kubelet_http_inflight_requests", "long_running=true", "method=POST", "path=exec", "server_type=readwrite"); strings.HasPrefix(r.URL.Path, "/exec") && n != 1 {
			t.Errorf("%v are under way", n)
		}
		clk.Step(2 * time.Second)
	}))
	for _, r := range [][2]string{{"GET", "/pods"}, {"GET", "/metrics"}, {"GET", "/metrics/cadvisor"}, {"POST", "/exec/ns/p/c"}, {"GET", "/made/up"}, {"GET", "/made/up/too"}, {"BREW", "/metrics/made-up"}} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(r[0], r[1], nil))
	}
	for _, c := range []struct {
		method, path, long string
		want               float64
	}{{"GET", "pods", "false", 1}, {"GET", "metrics", "false", 1}, {"GET", "metrics/cadvisor", "false", 1}, {"POST", "exec", "true", 1}, {"GET", "other", "false", 2}, {"other", "other", "false", 1}} {
		labels := []string{"long_running=" + c.long, "method=" + c.method, "path=" + c.path, "server_type=readwrite"}
		n, _ := value(t, registry, "kubelet_http_requests_total", labels...)
		took, sum := value(t, registry, "kubelet_http_requests_duration_seconds", labels...)
		flying, _ := value(t, registry, "kubelet_http_inflight_requests", labels...)
		if n != c.want || took != c.want || sum != 2*c.want || flying != 0 {
			t.Errorf("%+v: %v, %v in %v s, %v under way", c, n, took, sum, flying)
		}
	}
}

// Labels whose values others choose have few of them.
func TestLabels(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	for _, reason := range []string{"OutOfcpu", "OutOfexample.com/dongle", "OutOfhugepages-2Mi", "NodeAffinity"} {
		m.Refused(reason)
	}
	for reason, want := range map[string]float64{"OutOfcpu": 1, "OutOfExtendedResources": 2, "Other": 1, "NodeAffinity": -1} {
		if n, _ := value(t, registry, "kubelet_admission_rejections_total", "reason="+reason); n != want {
			t.Errorf("%s: %v, want %v", reason, n, want)
		}
	}
	for size, label := range map[uint64]string{0: "N/A", 1: "0-10MB", 10 << 20: "0-10MB", 10<<20 + 1: "10MB-100MB", 2 << 30: "1GB-5GB", 200 << 30: "GT100GB"} {
		before, _ := value(t, registry, "kubelet_image_pull_duration_seconds", "image_size_in_bytes="+label)
		m.Pulled(size, time.Second)
		if n, _ := value(t, registry, "kubelet_image_pull_duration_seconds", "image_size_in_bytes="+label); n != max(before, 0)+1 {
			t.Errorf("%d bytes are not %s", size, label)
		}
	}
	m.ImageVolumes(2, nil)
	m.ImageVolumes(1, errors.New("no"))
	asked, _ := value(t, registry, "kubelet_image_volume_requested_total")
	mounted, _ := value(t, registry, "kubelet_image_volume_mounted_succeed_total")
	failed, _ := value(t, registry, "kubelet_image_volume_mounted_errors_total")
	if asked != 3 || mounted != 2 || failed != 1 {
		t.Errorf("image volumes: %v asked for, %v mounted, %v failed", asked, mounted, failed)
	}
}

// Without metrics nothing is counted, and nothing else is different.
func TestNone(t *testing.T) {
	var m *metrics.Metrics
	m.Worked(metrics.Sync, 1)
	m.Start(metrics.Container, "x")
	m.End(metrics.Container, 1, "Error")
	m.Refused("x")
	m.Pulled(1, 1)
	m.ShutdownBegan(start)
	if rt := fake.New(clocktesting.NewFakeClock(start)); m.Runtime(rt, nil) != runtime.Runtime(rt) {
		t.Error("another runtime")
	}
}
