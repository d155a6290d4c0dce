package probe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count probes under upstream's names. A nil one counts nothing.
type Metrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics makes metrics that a registry collects.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "prober_probe_total", Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prober_probe_duration_seconds", Help: "Duration in seconds for a probe response.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
	}
	r.MustRegister(m.total, m.duration)
	return m
}

// Subject is what a probe is of: its kind is Liveness, Readiness or Startup.
type Subject struct{ Kind, Container, Pod, Namespace, UID string }

// Observe counts one probe, which took so long.
func (m *Metrics) Observe(s Subject, o Outcome, err error, took time.Duration) {
	if m == nil {
		return
	}
	result := "failed"
	switch {
	case err != nil:
		result = "unknown"
	case o.OK:
		result = "successful"
		m.duration.WithLabelValues(s.Kind, s.Container, s.Pod, s.Namespace).Observe(took.Seconds())
	}
	m.total.WithLabelValues(s.Kind, result, s.Container, s.Pod, s.Namespace, s.UID).Inc()
}

// Forget drops the counts of a pod that is gone.
func (m *Metrics) Forget(namespace, pod, uid string) {
	if m == nil {
		return
	}
	m.total.DeletePartialMatch(prometheus.Labels{"pod_uid": uid})
	m.duration.DeletePartialMatch(prometheus.Labels{"namespace": namespace, "pod": pod})
}
