package metrics

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
)

// requests are those to the node's API.
type requests struct {
	total  *prometheus.CounterVec
	took   *prometheus.HistogramVec
	flying *prometheus.GaugeVec
}

func newRequests(to maker) requests {
	labels := []string{"method", "path", "server_type", "long_running"}
	return requests{
		total:  to.counters("http_requests_total", "Number of the http requests received since the server started", labels...),
		took:   to.histograms("http_requests_duration_seconds", "Duration in seconds to serve http requests", prometheus.DefBuckets, labels...),
		flying: to.gauges("http_inflight_requests", "Number of the inflight http requests", labels...),
	}
}

// paths are those that are told apart, by their beginnings, and whether they last as
// long as their clients like.
var paths = map[string]bool{
	"attach": true, "exec": true, "portForward": true,
	"configz": false, "containerLogs": false, "flagz": false, "hansa": false, "healthz": false, "pods": false, "stats": false, "statusz": false,
	"metrics": false, "metrics/cadvisor": false, "metrics/probes": false, "metrics/resource": false, "metrics/slis": false,
}

// methods are those that are told apart.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "CONNECT": true, "OPTIONS": true, "TRACE": true, "PATCH": true}

const other = "other"

// path is what a request is counted as: there is no end of what clients ask for.
func path(of string) string {
	first, rest, _ := strings.Cut(strings.TrimPrefix(of, "/"), "/")
	if first == "metrics" && rest != "" {
		second, _, _ := strings.Cut(rest, "/")
		first += "/" + second
	}
	if _, ok := paths[first]; !ok {
		return other
	}
	return first
}

// Requests counts the requests that a handler serves.
func (m *Metrics) Requests(c clock.PassiveClock, next http.Handler) http.Handler {
	if m == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method, path := other, path(r.URL.Path)
		if methods[r.Method] {
			method = r.Method
		}
		labels := []string{method, path, "readwrite", strconv.FormatBool(paths[path])}
		m.requests.total.WithLabelValues(labels...).Inc()
		flying := m.requests.flying.WithLabelValues(labels...)
		flying.Inc()
		defer flying.Dec()
		began := c.Now()
		defer func() { m.requests.took.WithLabelValues(labels...).Observe(c.Since(began).Seconds()) }()
		next.ServeHTTP(w, r)
	})
}
