// Package results counts and times what ends in one of a few ways.
package results

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counts are those of one kind of thing, by the label "result". They are looked
// up once: that costs more than to count.
type Counts struct {
	number *prometheus.CounterVec
	time   *prometheus.HistogramVec
	by     map[string]one
}

type one struct {
	number prometheus.Counter
	time   prometheus.Observer
}

// New makes the metrics, with the help of both.
func New(number, numberHelp, seconds, secondsHelp string, results ...string) *Counts {
	c := &Counts{
		number: prometheus.NewCounterVec(prometheus.CounterOpts{Name: number, Help: numberHelp}, []string{"result"}),
		time: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: seconds, Help: secondsHelp, Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"result"}),
		by: map[string]one{},
	}
	for _, result := range results {
		c.by[result] = one{c.number.WithLabelValues(result), c.time.WithLabelValues(result)}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Counts) Describe(out chan<- *prometheus.Desc) {
	c.number.Describe(out)
	c.time.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *Counts) Collect(out chan<- prometheus.Metric) {
	c.number.Collect(out)
	c.time.Collect(out)
}

// Add counts a thing with one of the results that New was given.
func (c *Counts) Add(result string, took time.Duration) {
	o := c.by[result]
	o.number.Inc()
	o.time.Observe(took.Seconds())
}
