package horizontalpodautoscaler

import (
	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"hansa.dev/hansa/api"
)

// counts are the loop's metrics, under upstream's names. How long steps take is
// told by the metrics of its queue. Nil counts nothing.
type counts struct {
	steps, computed *prometheus.CounterVec
	desired         *prometheus.GaugeVec
	autoscalers     prometheus.Gauge
}

func newCounts(r prometheus.Registerer) *counts {
	if r == nil {
		return nil
	}
	const part = "horizontal_pod_autoscaler_controller"
	c := &counts{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Subsystem: part, Name: "reconciliations_total", Help: "Number of reconciliations of HPA controller.",
		}, []string{"action", "error"}),
		computed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Subsystem: part, Name: "metric_computation_total", Help: "Number of metric computations.",
		}, []string{"action", "error", "metric_type"}),
		desired: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Subsystem: part, Name: "desired_replicas", Help: "Current desired replica count for HPA objects.",
		}, []string{"namespace", "hpa_name"}),
		autoscalers: prometheus.NewGauge(prometheus.GaugeOpts{
			Subsystem: part, Name: "num_horizontal_pod_autoscalers", Help: "Current number of controlled HPA objects.",
		}),
	}
	r.MustRegister(c.steps, c.computed, c.desired, c.autoscalers)
	return c
}

// observe counts what was decided about an autoscaler, and what came of it.
func (c *counts) observe(s snapshot, d decision, done bool) {
	if c == nil {
		return
	}
	h := s.autoscaler
	failed := "none"
	for _, e := range d.events {
		if e.kind == "Warning" {
			failed = "internal"
		}
	}
	c.steps.WithLabelValues(action(s.target.replicas, d, done), failed).Inc()
	c.desired.WithLabelValues(h.Namespace, h.Name).Set(float64(d.status.DesiredReplicas))
	if !measures(h, s.target) || len(d.status.CurrentMetrics) != len(h.Spec.Metrics) {
		return
	}
	for i, m := range h.Spec.Metrics {
		failed := "none"
		if d.status.CurrentMetrics[i] == (autoscalingv2.MetricStatus{}) {
			failed = "internal"
		}
		c.computed.WithLabelValues(action(s.target.replicas, d, done), failed, string(m.Type)).Inc()
	}
}

func action(was int32, d decision, done bool) string {
	switch {
	case !done || d.size == was:
		return "none"
	case d.size > was:
		return "scale_up"
	}
	return "scale_down"
}

// known says how many autoscalers there are; forget drops one that is gone.
func (c *counts) known(n int) {
	if c != nil {
		c.autoscalers.Set(float64(n))
	}
}

func (c *counts) forget(key api.Key) {
	if c != nil {
		c.desired.DeleteLabelValues(key.Namespace, key.Name)
	}
}
