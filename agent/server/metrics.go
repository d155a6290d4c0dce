package server

import (
	"net/http"
	"time"

	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

type emitter = func(value float64, at time.Time, labels ...label)

// resourceMetrics answers with cpu, memory and swap of node, pods and containers,
// under the names that the metrics server reads (documentation: "Node metrics
// data", "Resource metrics").
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	failed := 0.0
	sum, err := s.Node.Summary(r.Context(), true)
	if err != nil {
		s.Log.Warn("node API: metrics lack all resources", "err", err)
		sum, failed = &statsv1alpha1.Summary{}, 1
	}
	e := &exposition{}
	containers := func(f func(c *statsv1alpha1.ContainerStats, labels []label)) {
		for i := range sum.Pods {
			p := &sum.Pods[i]
			for j := range p.Containers {
				c := &p.Containers[j]
				f(c, []label{{"container", c.Name}, {"namespace", p.PodRef.Namespace}, {"pod", p.PodRef.Name}})
			}
		}
	}
	pods := func(f func(p *statsv1alpha1.PodStats, labels []label)) {
		for i := range sum.Pods {
			f(&sum.Pods[i], []label{{"namespace", sum.Pods[i].PodRef.Namespace}, {"pod", sum.Pods[i].PodRef.Name}})
		}
	}
	e.family("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", "counter", func(emit emitter) {
		containers(func(c *statsv1alpha1.ContainerStats, l []label) { cpuSample(emit, c.CPU, l) })
	})
	e.family("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge", func(emit emitter) {
		containers(func(c *statsv1alpha1.ContainerStats, l []label) { memorySample(emit, c.Memory, l) })
	})
	e.family("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge", func(emit emitter) {
		containers(func(c *statsv1alpha1.ContainerStats, l []label) {
			if c.StartTime.Unix() > 0 { // of the present: collectors refuse samples that are old
				emit(float64(c.StartTime.UnixNano())/1e9, time.Time{}, l...)
			}
		})
	})
	e.family("container_swap_limit_bytes", "Current amount of the container swap limit in bytes. Reported only on non-windows systems", "gauge", func(emit emitter) {
		containers(func(c *statsv1alpha1.ContainerStats, l []label) {
			if c.Swap != nil && c.Swap.SwapUsageBytes != nil && c.Swap.SwapAvailableBytes != nil {
				emit(float64(*c.Swap.SwapUsageBytes+*c.Swap.SwapAvailableBytes), c.Swap.Time.Time, l...)
			}
		})
	})
	e.family("container_swap_usage_bytes", "Current amount of the container swap usage in bytes. Reported only on non-windows systems", "gauge", func(emit emitter) {
		containers(func(c *statsv1alpha1.ContainerStats, l []label) { swapSample(emit, c.Swap, l) })
	})
	e.family("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", "counter", func(emit emitter) {
		cpuSample(emit, sum.Node.CPU, nil)
	})
	e.family("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge", func(emit emitter) {
		memorySample(emit, sum.Node.Memory, nil)
	})
	e.family("node_swap_usage_bytes", "Current swap usage of the node in bytes. Reported only on non-windows systems", "gauge", func(emit emitter) {
		swapSample(emit, sum.Node.Swap, nil)
	})
	e.family("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter", func(emit emitter) {
		pods(func(p *statsv1alpha1.PodStats, l []label) { cpuSample(emit, p.CPU, l) })
	})
	e.family("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge", func(emit emitter) {
		pods(func(p *statsv1alpha1.PodStats, l []label) { memorySample(emit, p.Memory, l) })
	})
	e.family("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems", "gauge", func(emit emitter) {
		pods(func(p *statsv1alpha1.PodStats, l []label) { swapSample(emit, p.Swap, l) })
	})
	e.family("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", "gauge", func(emit emitter) {
		emit(failed, time.Time{})
	})
	s.expose(w, e)
}

func cpuSample(emit emitter, c *statsv1alpha1.CPUStats, labels []label) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		emit(float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time, labels...)
	}
}

func memorySample(emit emitter, m *statsv1alpha1.MemoryStats, labels []label) {
	if m != nil && m.WorkingSetBytes != nil {
		emit(float64(*m.WorkingSetBytes), m.Time.Time, labels...)
	}
}

func swapSample(emit emitter, w *statsv1alpha1.SwapStats, labels []label) {
	if w != nil && w.SwapUsageBytes != nil {
		emit(float64(*w.SwapUsageBytes), w.Time.Time, labels...)
	}
}
