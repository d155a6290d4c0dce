package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/pod"
)

// kubeletMetrics are what a node runs, under the kubelet's names, counted when
// somebody asks.
type kubeletMetrics struct{ a *Agent }

var (
	nodeName      = prometheus.NewDesc("kubelet_node_name", "The node's name. The count is always 1.", []string{"node"}, nil)
	runningPods   = prometheus.NewDesc("kubelet_running_pods", "Number of pods that have a running pod sandbox", nil, nil)
	activePods    = prometheus.NewDesc("kubelet_active_pods", "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", []string{"static"}, nil)
	runningStates = prometheus.NewDesc("kubelet_running_containers", "Number of containers currently running", []string{"container_state"}, nil)
	certificates  = prometheus.NewDesc("kubelet_podcertificate_states", "Gauge vector reporting the number of pod certificate projected volume sources, faceted by signer_name and state.", []string{"signer_name", "state"}, nil)
	desiredPods   = prometheus.NewDesc("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", []string{"static"}, nil)
)

// Describe says which metrics there are.
func (m *kubeletMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodeName, runningPods, activePods, runningStates, certificates, desiredPods} {
		c <- d
	}
}

// Collect counts pods and containers.
func (m *kubeletMetrics) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	up := 0
	// By the label static, as the kubelet writes it.
	all, active := map[string]int{"": 0, "true": 0}, map[string]int{"": 0, "true": 0}
	states := map[string]int{"created": 0, "running": 0, "exited": 0, "unknown": 0}
	for _, p := range m.a.pods() {
		static := ""
		if pod.IsStatic(p) {
			static = "true"
		}
		all[static]++
		if pod.Terminal(p) {
			continue
		}
		active[static]++
		if p.Status.PodIP != "" {
			up++
		}
		for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
			for i := range list {
				switch s := &list[i].State; {
				case s.Running != nil:
					states["running"]++
				case s.Terminated != nil:
					states["exited"]++
				}
			}
		}
	}
	gauge(nodeName, 1, m.a.NodeName)
	gauge(runningPods, up)
	for static := range all {
		gauge(activePods, active[static], static)
		gauge(desiredPods, all[static], static)
	}
	for which, n := range m.a.volumes.CertificateStates() {
		gauge(certificates, n, which[0], which[1])
	}
	for state, n := range states {
		gauge(runningStates, n, state)
	}
}
