package health

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Results are what the checks of a component said when all of a root were asked,
// as metrics of Kubernetes' names ("Kubernetes Component SLI Metrics").
type Results struct {
	last     *prometheus.GaugeVec
	total    *prometheus.CounterVec
	registry *prometheus.Registry
}

// NewResults makes those of a component that nobody has asked yet.
func NewResults() *Results {
	r := &Results{
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubernetes_healthcheck", Help: "This metric records the result of a single healthcheck.",
		}, []string{"name", "type"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubernetes_healthchecks_total", Help: "This metric records the results of all healthcheck.",
		}, []string{"name", "status", "type"}),
		registry: prometheus.NewRegistry(),
	}
	r.registry.MustRegister(r.last, r.total, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler is that of /metrics/slis.
func (r *Results) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{})
}

// note counts what one check said. A nil receiver counts nothing.
func (r *Results) note(root, name string, err error) {
	if r == nil {
		return
	}
	value, status := 1.0, "success"
	if err != nil {
		value, status = 0, "error"
	}
	r.last.WithLabelValues(name, root).Set(value)
	r.total.WithLabelValues(name, status, root).Inc()
}
