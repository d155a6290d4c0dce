package agent

import (
	"math"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/agent/pod"
)

// kubeletMetrics are what a node runs, under the kubelet's names, counted when
// somebody asks.
type kubeletMetrics struct{ a *Agent }

func described(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	nodeName       = described("kubelet_node_name", "The node's name. The count is always 1.", "node")
	runningPods    = described("kubelet_running_pods", "Number of pods that have a running pod sandbox")
	activePods     = described("kubelet_active_pods", "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", "static")
	desiredPods    = described("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", "static")
	mirrorPods     = described("kubelet_mirror_pods", "The number of mirror pods the kubelet will try to create (one per admitted static pod)")
	runningStates  = described("kubelet_running_containers", "Number of containers currently running", "container_state")
	ephemerals     = described("kubelet_managed_ephemeral_containers", "Current number of ephemeral containers in pods managed by this kubelet.")
	logBytes       = described("kubelet_container_log_filesystem_used_bytes", "Bytes used by the container's logs on the filesystem.", "uid", "namespace", "pod", "container")
	volumes        = described("volume_manager_total_volumes", "Number of volumes in Volume Manager", "plugin_name", "state")
	pendingResizes = described("kubelet_pod_pending_resizes", "Number of pending resizes for pods. Label 'priority_bucket' classifies the pod priority (system-critical: >=2000000000, high: 100000..1999999999, medium: 1..99999, normal: 0/default, low: -999..-1, very-low: <=-1000, unknown: nil pod). Label 'reason' describes the state (deferred, infeasible).", "reason", "priority_bucket")
	resizesUnder   = described("kubelet_pod_in_progress_resizes", "Number of in-progress resizes for pods.")
	certificates   = described("kubelet_podcertificate_states", "Gauge vector reporting the number of pod certificate projected volume sources, faceted by signer_name and state.", "signer_name", "state")
	groupVersion   = described("kubelet_cgroup_version", "cgroup version on the hosts.")
	reservedMin    = described("kubelet_memory_qos_node_memory_min_bytes", "Total cgroup v2 memory.min in bytes for Guaranteed pods. This memory is hard-reserved and never reclaimed by the kernel.")
	reservedLow    = described("kubelet_memory_qos_node_memory_low_bytes", "Total cgroup v2 memory.low in bytes for Burstable pods. This memory is soft-reserved and may be reclaimed under extreme pressure.")
	clientTTL      = described("kubelet_certificate_manager_client_ttl_seconds", "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.")
	serverTTL      = described("kubelet_certificate_manager_server_ttl_seconds", "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.")
	startBefore    = described("kubelet_node_startup_pre_kubelet_duration_seconds", "Duration in seconds of node startup before kubelet starts.")
	startAsking    = described("kubelet_node_startup_pre_registration_duration_seconds", "Duration in seconds of node startup before registration.")
	startJoining   = described("kubelet_node_startup_registration_duration_seconds", "Duration in seconds of node startup during registration.")
	startJoined    = described("kubelet_node_startup_post_registration_duration_seconds", "Duration in seconds of node startup after registration.")
	startAll       = described("kubelet_node_startup_duration_seconds", "Duration in seconds of node startup in total.")
)

// Describe says which metrics there are.
func (m *kubeletMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		nodeName, runningPods, activePods, desiredPods, mirrorPods, runningStates, ephemerals, logBytes, volumes, pendingResizes, resizesUnder, certificates,
		groupVersion, reservedMin, reservedLow, clientTTL, serverTTL, startBefore, startAsking, startJoining, startJoined, startAll,
	} {
		c <- d
	}
}

// gauges are where samples go.
type gauges chan<- prometheus.Metric

func (c gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// Collect counts.
func (m *kubeletMetrics) Collect(to chan<- prometheus.Metric) {
	c, all := gauges(to), m.a.pods()
	c.set(nodeName, 1, m.a.NodeName)
	m.pods(c, all)
	m.containers(c, all)
	m.volumes(c, all)
	m.machine(c, all)
	m.startup(c)
}

// pods counts those of the API and the node's own ones.
func (m *kubeletMetrics) pods(c gauges, all []*v1.Pod) {
	var up, under, debuggers int
	desired, active, pending := map[bool]int{}, map[bool]int{}, map[[2]string]int{}
	for _, p := range all {
		own := pod.IsStatic(p)
		desired[own]++
		debuggers += len(p.Spec.EphemeralContainers)
		if pod.Terminal(p) {
			continue
		}
		active[own]++
		if p.Status.PodIP != "" {
			up++
		}
		for i := range p.Status.Conditions {
			switch s := &p.Status.Conditions[i]; {
			case s.Status != v1.ConditionTrue:
			case s.Type == v1.PodResizeInProgress:
				under++
			case s.Type == v1.PodResizePending:
				reason := map[string]string{v1.PodReasonDeferred: "deferred", v1.PodReasonInfeasible: "infeasible"}[s.Reason]
				pending[[2]string{reason, priorityClass(p)}]++
			}
		}
	}
	c.set(runningPods, float64(up))
	for own, label := range map[bool]string{false: "", true: "true"} {
		c.set(desiredPods, float64(desired[own]), label)
		c.set(activePods, float64(active[own]), label)
	}
	c.set(mirrorPods, float64(desired[true]))
	c.set(ephemerals, float64(debuggers))
	c.set(resizesUnder, float64(under))
	for of, n := range pending {
		c.set(pendingResizes, float64(n), of[0], of[1])
	}
}

// priorityClass is a pod's priority as metrics tell it.
func priorityClass(p *v1.Pod) string {
	var n int32
	if p.Spec.Priority != nil {
		n = *p.Spec.Priority
	}
	switch {
	case n >= 2_000_000_000:
		return "system-critical"
	case n >= 100_000:
		return "high"
	case n > 0:
		return "medium"
	case n == 0:
		return "normal"
	case n > -1000:
		return "low"
	}
	return "very-low"
}

// containers counts them by state, and what those that run have logged.
func (m *kubeletMetrics) containers(c gauges, all []*v1.Pod) {
	states := map[string]int{"created": 0, "running": 0, "exited": 0, "unknown": 0}
	for _, p := range all {
		if pod.Terminal(p) {
			continue
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
		dir := logs.PodDir(m.a.node.LogsDir, p.Namespace, p.Name, string(p.UID))
		for _, cs := range running(p) {
			c.set(logBytes, float64(sizes(filepath.Join(dir, cs.Name))), string(p.UID), p.Namespace, p.Name, cs.Name)
		}
	}
	for state, n := range states {
		c.set(runningStates, float64(n), state)
	}
}

// volumes counts those that there are to be, and are.
func (m *kubeletMetrics) volumes(c gauges, all []*v1.Pod) {
	var active []*v1.Pod
	for _, p := range all {
		if !pod.Terminal(p) {
			active = append(active, p)
		}
	}
	wanted, made := m.a.volumes.Counts(active)
	for state, counts := range map[string]map[string]int{"desired_state_of_world": wanted, "actual_state_of_world": made} {
		for plugin, n := range counts {
			c.set(volumes, float64(n), plugin, state)
		}
	}
	for which, n := range m.a.volumes.CertificateStates() {
		c.set(certificates, float64(n), which[0], which[1])
	}
}

// machine tells of control groups and certificates. The node acts in the API by no
// certificate.
func (m *kubeletMetrics) machine(c gauges, all []*v1.Pod) {
	version := 1.0
	if m.a.Groups.Name() == "v2" {
		version = 2
	}
	c.set(groupVersion, version)
	var least, low int64
	for _, p := range all {
		if m.a.node.Rules.Reserve && !pod.Terminal(p) {
			requests := pod.Requests(p)
			a, b := cgroup.Reservation(pod.QOS(p), requests.Memory().Value())
			least, low = least+a, low+b
		}
	}
	c.set(reservedMin, float64(least))
	c.set(reservedLow, float64(low))
	c.set(clientTTL, math.Inf(1))
	left := math.Inf(1)
	if m.a.Certificate != nil {
		if expires, err := m.a.Certificate(); err == nil {
			left = math.Trunc(expires.Sub(m.a.Clock.Now()).Seconds())
		}
	}
	c.set(serverTTL, left)
}

// startup tells how long a node that is new to the cluster took to join it.
func (m *kubeletMetrics) startup(c gauges) {
	s := m.a.keeper.Startup()
	if s.Registered.IsZero() {
		return
	}
	use, err := m.a.Host.Usage()
	if err == nil {
		c.set(startBefore, m.a.began.Sub(use.Boot).Seconds())
	}
	c.set(startAsking, s.Asked.Sub(m.a.began).Seconds())
	c.set(startJoining, s.Registered.Sub(s.Asked).Seconds())
	if s.Ready.IsZero() {
		return
	}
	c.set(startJoined, s.Ready.Sub(s.Registered).Seconds())
	if err == nil {
		c.set(startAll, s.Ready.Sub(use.Boot).Seconds())
	}
}

// countedGroups are control groups of pods whose making is measured.
type countedGroups struct {
	*cgroup.Tree
	counts *metrics.Metrics
	clock  clock.PassiveClock
}

func (g countedGroups) Ensure(group string, l cgroup.Limits) error {
	defer g.did("create", g.clock.Now())
	return g.Tree.Ensure(group, l)
}

func (g countedGroups) Set(group string, l cgroup.Limits) error {
	defer g.did("update", g.clock.Now())
	return g.Tree.Set(group, l)
}

func (g countedGroups) Remove(group string) error {
	defer g.did("destroy", g.clock.Now())
	return g.Tree.Remove(group)
}

func (g countedGroups) did(what string, began time.Time) {
	g.counts.Grouped(what, g.clock.Since(began))
}
