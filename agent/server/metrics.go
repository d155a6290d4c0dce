package server

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// resourceMetrics answers with cpu and memory of node, pods and containers in
// the Prometheus text format, under the names that the metrics server reads.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	failed := 0.0
	sum, err := s.Node.Summary(r.Context())
	if err != nil {
		s.Log.Warn("node API: metrics lack all resources", "err", err)
		sum, failed = &statsv1alpha1.Summary{}, 1
	}
	var b bytes.Buffer
	// A value that is not of a certain time has the zero time.
	family := func(name, help, kind string, each func(emit func(labels string, value float64, at time.Time))) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		each(func(labels string, value float64, at time.Time) {
			if at.IsZero() {
				fmt.Fprintf(&b, "%s%s %g\n", name, labels, value)
				return
			}
			fmt.Fprintf(&b, "%s%s %g %d\n", name, labels, value, at.UnixMilli())
		})
	}
	type sample func(labels string, value float64, at time.Time)
	cpu := func(emit sample, labels string, c *statsv1alpha1.CPUStats) {
		if c != nil && c.UsageCoreNanoSeconds != nil {
			emit(labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.Time)
		}
	}
	memory := func(emit sample, labels string, m *statsv1alpha1.MemoryStats) {
		if m != nil && m.WorkingSetBytes != nil {
			emit(labels, float64(*m.WorkingSetBytes), m.Time.Time)
		}
	}
	containers := func(f func(labels string, c *statsv1alpha1.ContainerStats)) {
		for i := range sum.Pods {
			p := &sum.Pods[i]
			for j := range p.Containers {
				f(fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", p.Containers[j].Name, p.PodRef.Namespace, p.PodRef.Name), &p.Containers[j])
			}
		}
	}
	pods := func(f func(labels string, p *statsv1alpha1.PodStats)) {
		for i := range sum.Pods {
			f(fmt.Sprintf("{namespace=%q,pod=%q}", sum.Pods[i].PodRef.Namespace, sum.Pods[i].PodRef.Name), &sum.Pods[i])
		}
	}
	family("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", "counter", func(emit func(string, float64, time.Time)) {
		containers(func(l string, c *statsv1alpha1.ContainerStats) { cpu(emit, l, c.CPU) })
	})
	family("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge", func(emit func(string, float64, time.Time)) {
		containers(func(l string, c *statsv1alpha1.ContainerStats) { memory(emit, l, c.Memory) })
	})
	family("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge", func(emit func(string, float64, time.Time)) {
		containers(func(l string, c *statsv1alpha1.ContainerStats) {
			if c.StartTime.Unix() > 0 { // of the present: collectors refuse samples that are old
				emit(l, float64(c.StartTime.UnixNano())/1e9, time.Time{})
			}
		})
	})
	family("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", "counter", func(emit func(string, float64, time.Time)) {
		cpu(emit, "", sum.Node.CPU)
	})
	family("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge", func(emit func(string, float64, time.Time)) {
		memory(emit, "", sum.Node.Memory)
	})
	family("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter", func(emit func(string, float64, time.Time)) {
		pods(func(l string, p *statsv1alpha1.PodStats) { cpu(emit, l, p.CPU) })
	})
	family("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge", func(emit func(string, float64, time.Time)) {
		pods(func(l string, p *statsv1alpha1.PodStats) { memory(emit, l, p.Memory) })
	})
	family("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", "gauge", func(emit func(string, float64, time.Time)) {
		emit("", failed, time.Time{})
	})
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	s.write(w, b.Bytes())
}
