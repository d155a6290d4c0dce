package processmetrics_test

import (
	"net/http/httptest"
	"regexp"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hansa.dev/hansa/internal/processmetrics"
	"hansa.dev/hansa/internal/version"
)

// k8s.io/component-base/metrics/version.go and prometheus/compatversion have the
// names and labels; two components may be in one process.
func TestCollectors(t *testing.T) {
	for range 2 {
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(append(processmetrics.Collectors(), processmetrics.Compatibility())...)
		w := httptest.NewRecorder()
		promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		for _, line := range []string{
			`kubernetes_build_info\{build_date="[^"]+",compiler="gc",git_commit="[^"]+",git_tree_state="[^"]+",git_version="` + regexp.QuoteMeta(version.GitVersion) + `",go_version="` + runtime.Version() + `",major="1",minor="37",platform="linux/` + runtime.GOARCH + `"\} 1`,
			`version_info\{binary="1\.37\.2",component="kube",emulation="1\.37",min_compat="1\.36"\} 1`,
			`go_goroutines \d+`, `go_sched_latencies_seconds_count \d+`, `process_start_time_seconds \S+`,
		} {
			if !regexp.MustCompile("(?m)^" + line + "$").MatchString(w.Body.String()) {
				t.Errorf("no %s", line)
			}
		}
	}
}
