package scheduler

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/internal/metricstest"
)

// Attempts and waiting pods are measured under upstream's names.
func TestMetrics(t *testing.T) {
	run(t, func(b *bench) {
		b.start()
		b.node("n", 2)
		b.create("pods", podOf("small", "1"))
		b.create("pods", podOf("large", "100"))
		gated := podOf("gated", "1")
		gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/g"}}
		b.create("pods", gated)
		want := map[string]float64{
			"scheduler_schedule_attempts_total{profile=default-scheduler,result=scheduled}":                 1,
			"scheduler_schedule_attempts_total{profile=default-scheduler,result=unschedulable}":             1,
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler,result=scheduled}":     1,
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler,result=unschedulable}": 1,
			"scheduler_scheduling_algorithm_duration_seconds{}":                                             1,
			"scheduler_pod_scheduling_sli_duration_seconds{attempts=1}":                                     1,
			"scheduler_pod_scheduling_attempts{}":                                                           1,
			"scheduler_preemption_attempts_total{}":                                                         1,
			"scheduler_pending_pods{queue=unschedulable}":                                                   1,
			"scheduler_pending_pods{queue=gated}":                                                           1,
		}
		if diff := cmp.Diff(want, metricstest.Values(t, b.metrics)); diff != "" {
			t.Error(diff)
		}

		// A pod that matters more takes the room of another.
		urgent := podOf("urgent", "2")
		urgent.Spec.Priority = ptr.To[int32](1000)
		b.create("pods", urgent)
		b.delete("pods", "default", "small") // its agent ends it
		b.delete("pods", "default", "gated")
		b.delete("pods", "default", "large")
		b.pass(mostBackoff)
		got := metricstest.Values(t, b.metrics)
		if got["scheduler_preemption_victims{}"] != 1 || got["scheduler_pod_scheduling_sli_duration_seconds{attempts=2}"] != 1 {
			t.Errorf("after an eviction: %v", got)
		}
		for queue := range map[string]bool{"active": true, "backoff": true, "unschedulable": true, "gated": true} {
			if n := got["scheduler_pending_pods{queue="+queue+"}"]; n != 0 {
				t.Errorf("%v pods wait in %s", n, queue)
			}
		}
	})
}
