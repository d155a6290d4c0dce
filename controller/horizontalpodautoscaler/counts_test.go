package horizontalpodautoscaler

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hansa.dev/hansa/api"
)

func TestCounts(t *testing.T) {
	r := prometheus.NewRegistry()
	c := newCounts(r)
	s := scene(autoscaler(1, 9, cpu(50)), 2, "1", "1")
	c.known(1)
	c.observe(s, plan(s).done(s), true)
	s.pods = nil
	c.observe(s, plan(s), false)
	want := `
# HELP horizontal_pod_autoscaler_controller_desired_replicas Current desired replica count for HPA objects.
# TYPE horizontal_pod_autoscaler_controller_desired_replicas gauge
horizontal_pod_autoscaler_controller_desired_replicas{hpa_name="web",namespace="ns"} 0
# HELP horizontal_pod_autoscaler_controller_metric_computation_total Number of metric computations.
# TYPE horizontal_pod_autoscaler_controller_metric_computation_total counter
horizontal_pod_autoscaler_controller_metric_computation_total{action="none",error="internal",metric_type="Resource"} 1
horizontal_pod_autoscaler_controller_metric_computation_total{action="scale_up",error="none",metric_type="Resource"} 1
# HELP horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers Current number of controlled HPA objects.
# TYPE horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers gauge
horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers 1
# HELP horizontal_pod_autoscaler_controller_reconciliations_total Number of reconciliations of HPA controller.
# TYPE horizontal_pod_autoscaler_controller_reconciliations_total counter
horizontal_pod_autoscaler_controller_reconciliations_total{action="none",error="internal"} 1
horizontal_pod_autoscaler_controller_reconciliations_total{action="scale_up",error="none"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	c.forget(api.Key{Namespace: "ns", Name: "web"})
	if n := testutil.CollectAndCount(c.desired); n != 0 {
		t.Errorf("%d sizes of an autoscaler that is gone", n)
	}
	newCounts(nil).observe(s, decision{}, false)
}
