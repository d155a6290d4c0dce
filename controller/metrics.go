package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of the loops' queues, under Kubernetes' names.
type Metrics struct {
	registry       prometheus.Registerer
	depth          *prometheus.GaugeVec
	adds, retries  *prometheus.CounterVec
	waited, worked *prometheus.HistogramVec
}

// NewMetrics registers the metrics; each queue has its name as a label.
func NewMetrics(r prometheus.Registerer) *Metrics {
	label := []string{"name"}
	buckets := prometheus.ExponentialBuckets(1e-8, 10, 12)
	m := &Metrics{
		registry: r,
		depth:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "workqueue_depth", Help: "Keys that wait to be looked at."}, label),
		adds:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_adds_total", Help: "Keys that were to be looked at so far."}, label),
		retries:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_retries_total", Help: "Keys that were to be looked at again after a failure."}, label),
		waited:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_queue_duration_seconds", Help: "How long keys waited.", Buckets: buckets}, label),
		worked:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_work_duration_seconds", Help: "How long it took to look at a key.", Buckets: buckets}, label),
	}
	r.MustRegister(m.depth, m.adds, m.retries, m.waited, m.worked)
	return m
}

// of are the metrics of one queue. What is under way is computed when somebody
// asks.
func (m *Metrics) of(name string, q *Queue) *queueMetrics {
	if m == nil {
		return nil
	}
	label := prometheus.Labels{"name": name}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "workqueue_unfinished_work_seconds", Help: "For how long the keys that are being looked at have been, in all.", ConstLabels: label,
		}, func() float64 { all, _ := q.underWay(); return all.Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "workqueue_longest_running_processor_seconds", Help: "For how long the key that has been looked at longest has been.", ConstLabels: label,
		}, func() float64 { _, longest := q.underWay(); return longest.Seconds() }),
	)
	return &queueMetrics{
		depth: m.depth.With(label), adds: m.adds.With(label), retries: m.retries.With(label),
		waited: m.waited.With(label), worked: m.worked.With(label),
	}
}

// queueMetrics are one queue's; nil ones measure nothing.
type queueMetrics struct {
	depth          prometheus.Gauge
	adds, retries  prometheus.Counter
	waited, worked prometheus.Observer
}

func (m *queueMetrics) added() {
	if m != nil {
		m.adds.Inc()
		m.depth.Inc()
	}
}

func (m *queueMetrics) given(waited time.Duration) {
	if m != nil {
		m.depth.Dec()
		m.waited.Observe(waited.Seconds())
	}
}

func (m *queueMetrics) done(worked time.Duration, failed bool) {
	if m == nil {
		return
	}
	m.worked.Observe(worked.Seconds())
	if failed {
		m.retries.Inc()
	}
}
