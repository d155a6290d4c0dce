// Package librarymetrics shows what Kubernetes' libraries count. They keep it in
// a registry of their own, together with much that nobody asked them for.
package librarymetrics

import (
	"iter"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Families are the libraries' metrics whose names begin with one of the
// prefixes. They belong to the caller. What cannot be gathered is missing, as it
// would be from the libraries' own answer.
func Families(prefixes ...string) iter.Seq[*dto.MetricFamily] {
	return func(yield func(*dto.MetricFamily) bool) {
		families, _ := legacyregistry.DefaultGatherer.Gather() //nolint:errcheck // see above
		for _, family := range families {
			named := func(prefix string) bool { return strings.HasPrefix(family.GetName(), prefix) }
			if slices.ContainsFunc(prefixes, named) && !yield(family) {
				return
			}
		}
	}
}

// Send passes the metrics of a family on.
func Send(family *dto.MetricFamily, out chan<- prometheus.Metric) {
	for _, m := range family.GetMetric() {
		names := make([]string, len(m.GetLabel()))
		for i, label := range m.GetLabel() {
			names[i] = label.GetName()
		}
		out <- gathered{prometheus.NewDesc(family.GetName(), family.GetHelp(), names, nil), m}
	}
}

// Collector shows the metrics whose names begin with one of its prefixes.
type Collector []string

var _ prometheus.Collector = Collector(nil)

// Describe says nothing in advance: there are series only once there is
// something to count.
func (Collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c Collector) Collect(out chan<- prometheus.Metric) {
	for family := range Families(c...) {
		Send(family, out)
	}
}

// gathered is a metric as another registry had it.
type gathered struct {
	desc   *prometheus.Desc
	metric *dto.Metric
}

func (g gathered) Desc() *prometheus.Desc { return g.desc }

func (g gathered) Write(to *dto.Metric) error {
	to.Label, to.Gauge, to.Counter, to.Histogram = g.metric.Label, g.metric.Gauge, g.metric.Counter, g.metric.Histogram
	to.Summary, to.Untyped, to.TimestampMs = g.metric.Summary, g.metric.Untyped, g.metric.TimestampMs
	return nil
}
