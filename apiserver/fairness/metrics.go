package fairness

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"hansa.dev/hansa/internal/librarymetrics"
)

// metricsPrefix is what the library's metrics have in common.
const metricsPrefix = "apiserver_flowcontrol_"

// ofExempt are the metrics in which the requests that pass beside the library
// are counted with those that it has seen.
const (
	dispatchedTotal = metricsPrefix + "dispatched_requests_total"
	executingNow    = metricsPrefix + "current_executing_requests"
	seatsNow        = metricsPrefix + "current_executing_seats"
)

var _ prometheus.Collector = (*Filter)(nil)

// Describe says nothing in advance: there are series only once there are levels.
func (f *Filter) Describe(chan<- *prometheus.Desc) {}

// Collect passes on the library's metrics.
func (f *Filter) Collect(out chan<- prometheus.Metric) {
	for family := range librarymetrics.Families(metricsPrefix) {
		f.exempt.addTo(family)
		librarymetrics.Send(family, out)
	}
}

// addTo adds what passed beside the library to one of its families.
func (e *exempt) addTo(family *dto.MetricFamily) {
	name := family.GetName()
	if name != dispatchedTotal && name != executingNow && name != seatsNow {
		return
	}
	i := slices.IndexFunc(family.Metric, func(m *dto.Metric) bool {
		return !slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetValue() != flowcontrolv1.FlowSchemaNameExempt })
	})
	if i < 0 {
		m := &dto.Metric{Label: []*dto.LabelPair{
			{Name: new("flow_schema"), Value: new(flowcontrolv1.FlowSchemaNameExempt)},
			{Name: new("priority_level"), Value: new(flowcontrolv1.PriorityLevelConfigurationNameExempt)},
		}}
		if name == dispatchedTotal {
			m.Counter = &dto.Counter{Value: new(float64)}
		} else {
			m.Gauge = &dto.Gauge{Value: new(float64)}
		}
		i, family.Metric = len(family.Metric), append(family.Metric, m)
	}
	if m := family.Metric[i]; name == dispatchedTotal {
		*m.Counter.Value += float64(e.dispatched.Load())
	} else {
		*m.Gauge.Value += float64(e.executing.Load())
	}
}
