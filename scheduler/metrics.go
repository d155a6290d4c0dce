package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of an attempt to schedule a pod, as metrics call them.
const (
	scheduled     = "scheduled"
	unschedulable = "unschedulable"
	failure       = "error"
)

// metrics are those of Kubernetes' scheduler, under its names.
type metrics struct {
	attempts        *prometheus.CounterVec
	attemptDuration *prometheus.HistogramVec
	decision        prometheus.Histogram
	sliDuration     *prometheus.HistogramVec
	podAttempts     prometheus.Histogram
	pending         *prometheus.GaugeVec
	preemptions     prometheus.Counter
	victims         prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	fromMillisecond := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "scheduler_schedule_attempts_total", Help: "Attempts to schedule pods, by their result.",
		}, []string{"result", "profile"}),
		attemptDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_scheduling_attempt_duration_seconds", Help: "How long attempts took, from the decision's begin to the end of the binding.", Buckets: fromMillisecond,
		}, []string{"result", "profile"}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "How long decisions for a node took.", Buckets: fromMillisecond,
		}),
		sliDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "scheduler_pod_scheduling_sli_duration_seconds", Help: "How long pods took from their arrival in the queue to their node, by the number of attempts.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20),
		}, []string{"attempts"}),
		podAttempts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_pod_scheduling_attempts", Help: "How many attempts pods took to their node.", Buckets: prometheus.ExponentialBuckets(1, 2, 5),
		}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "scheduler_pending_pods", Help: "Pods without a node, by what they wait for.",
		}, []string{"queue"}),
		preemptions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "scheduler_preemption_attempts_total", Help: "Attempts to make room for pods.",
		}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "scheduler_preemption_victims", Help: "How many pods were chosen to make room for one.", Buckets: prometheus.ExponentialBuckets(1, 2, 7),
		}),
	}
	r.MustRegister(m.attempts, m.attemptDuration, m.decision, m.sliDuration, m.podAttempts, m.pending, m.preemptions, m.victims)
	return m
}

// pendingBy are the gauges of the states in which a pod waits.
func (m *metrics) pendingBy() (by [states]prometheus.Gauge) {
	for state, queue := range map[state]string{active: "active", woken: "backoff", failed: "backoff", waiting: "unschedulable", gated: "gated"} {
		by[state] = m.pending.WithLabelValues(queue)
	}
	return by
}

// attempted notes how an attempt ended.
func (m *metrics) attempted(result string, took time.Duration) {
	m.attempts.WithLabelValues(result, Name).Inc()
	m.attemptDuration.WithLabelValues(result, Name).Observe(took.Seconds())
}

// mostAttempts bounds the values of a label.
const mostAttempts = 15

// placed notes that a pod has its node.
func (m *metrics) placed(attempts int, took time.Duration) {
	label := strconv.Itoa(min(attempts, mostAttempts))
	if attempts >= mostAttempts {
		label += "+"
	}
	m.sliDuration.WithLabelValues(label).Observe(took.Seconds())
	m.podAttempts.Observe(float64(attempts))
}
