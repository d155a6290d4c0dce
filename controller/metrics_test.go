package controller_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/metricstest"
)

// Queues are measured under upstream's names, also what is under way.
func TestMetricsOfQueues(t *testing.T) {
	registry := prometheus.NewRegistry()
	var busy chan struct{} // of the bubble
	var during map[string]float64
	watchWith(t, time.Second, func(r *controller.Runner) {
		r.Metrics, r.Queue, r.Workers = controller.NewMetrics(registry), "diary", 1
		busy = make(chan struct{})
		go func() {
			<-time.After(100 * time.Millisecond)
			synctest.Wait()
			during = metricstest.Values(t, registry)
			close(busy)
		}()
	}, func(n int) (time.Duration, error) {
		if n == 1 {
			return 0, errors.New("no")
		}
		<-busy
		return 0, nil
	})
	if got := during["workqueue_longest_running_processor_seconds{name=diary}"]; got != 0.095 {
		t.Errorf("longest under way: %v s", got)
	}
	if got := during["workqueue_unfinished_work_seconds{name=diary}"]; got != 0.095 {
		t.Errorf("under way: %v s", got)
	}
	if got := during["workqueue_depth{name=diary}"]; got != 1 {
		t.Errorf("%v keys wait", got)
	}
	want := map[string]float64{
		"workqueue_adds_total{name=diary}":             4,
		"workqueue_retries_total{name=diary}":          2,
		"workqueue_queue_duration_seconds{name=diary}": 4,
		"workqueue_work_duration_seconds{name=diary}":  4,
	}
	if diff := cmp.Diff(want, metricstest.Values(t, registry)); diff != "" {
		t.Error(diff)
	}
}
