// Package metrics counts what a node does, under the kubelet's names and with its
// labels and buckets (kubernetes, pkg/kubelet/metrics). What can be counted when
// somebody asks is counted then, by package agent.
package metrics

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the counts of one node. A nil one counts nothing. The methods may be
// called from any goroutine.
type Metrics struct {
	worked                            *prometheus.HistogramVec
	started, total, sli, wrote, sizes prometheus.Histogram
	operations                        operations
	sandboxTook                       *prometheus.HistogramVec
	sandboxErrors                     *prometheus.CounterVec
	pods, podErrors                   prometheus.Counter
	ownUsers, ownUsersErrors          prometheus.Counter
	containers, containerErrors, ends *prometheus.CounterVec
	pulled                            *prometheus.HistogramVec
	collected, evicted, refused       *prometheus.CounterVec
	imageVolumes, imageVolumesMounted prometheus.Counter
	imageVolumeErrors, orphans        prometheus.Counter
	restarted                         *prometheus.CounterVec
	groups                            *prometheus.HistogramVec
	shutdownStart, shutdownEnd        prometheus.Gauge
	requests                          requests
}

// Buckets in seconds, as the kubelet has them.
var (
	startBuckets  = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}
	pullBuckets   = []float64{1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}
	statusBuckets = []float64{0.010, 0.050, 0.100, 0.500, 1, 5, 10, 20, 30, 45, 60}
)

// New makes metrics that a registry collects.
func New(r prometheus.Registerer) *Metrics {
	to := maker{r}
	m := &Metrics{
		worked:  to.histograms("pod_worker_duration_seconds", "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", prometheus.DefBuckets, "operation_type"),
		started: to.histogram("pod_start_duration_seconds", "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", startBuckets),
		total:   to.histogram("pod_start_total_duration_seconds", "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		sli:     to.histogram("pod_start_sli_duration_seconds", "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch", startBuckets),
		wrote:   to.histogram("pod_status_sync_duration_seconds", "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.", statusBuckets),
		sizes:   to.histogram("containers_per_pod_count", "The number of containers per pod.", prometheus.ExponentialBuckets(1, 2, 5)),

		sandboxTook:    to.histograms("run_podsandbox_duration_seconds", "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.", prometheus.DefBuckets, "runtime_handler"),
		sandboxErrors:  to.counters("run_podsandbox_errors_total", "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.", "runtime_handler"),
		pods:           to.counter("started_pods_total", "Cumulative number of pods started"),
		podErrors:      to.counter("started_pods_errors_total", "Cumulative number of errors when starting pods"),
		ownUsers:       to.counter("started_user_namespaced_pods_total", "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux."),
		ownUsersErrors: to.counter("started_user_namespaced_pods_errors_total", "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux."),

		containers:      to.counters("started_containers_total", "Cumulative number of containers started", "container_type"),
		containerErrors: to.counters("started_containers_errors_total", "Cumulative number of errors when starting containers", "container_type", "code"),
		ends:            to.counters("terminated_containers_total", "Cumulative number of container terminations.", "container_type", "exit_code", "reason"),

		pulled:              to.histograms("image_pull_duration_seconds", "Duration in seconds to pull an image.", pullBuckets, "image_size_in_bytes"),
		collected:           to.counters("image_garbage_collected_total", "Total number of images garbage collected by the kubelet, whether through disk usage or image age.", "reason"),
		imageVolumes:        to.counter("image_volume_requested_total", "Number of requested image volumes."),
		imageVolumesMounted: to.counter("image_volume_mounted_succeed_total", "Number of successful image volume mounts."),
		imageVolumeErrors:   to.counter("image_volume_mounted_errors_total", "Number of failed image volume mounts."),

		evicted:   to.counters("evictions", "Cumulative number of pod evictions by eviction signal", "eviction_signal"),
		refused:   to.counters("admission_rejections_total", "Cumulative number pod admission rejections by the Kubelet.", "reason"),
		orphans:   to.counter("orphaned_runtime_pods_total", "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual."),
		restarted: to.counters("restarted_pods_total", "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)", "static"),

		groups:        to.histograms("cgroup_manager_duration_seconds", "Duration in seconds for cgroup manager operations. Broken down by method.", prometheus.DefBuckets, "operation_type"),
		shutdownStart: to.gauge("graceful_shutdown_start_time_seconds", "Last graceful shutdown start time since unix epoch in seconds"),
		shutdownEnd:   to.gauge("graceful_shutdown_end_time_seconds", "Last graceful shutdown end time since unix epoch in seconds"),
	}
	m.operations = newOperations(to)
	m.requests = newRequests(to)
	for _, static := range []string{"", "true"} {
		m.restarted.WithLabelValues(static)
	}
	return m
}

// maker makes metrics of the kubelet and registers them.
type maker struct{ prometheus.Registerer }

const subsystem = "kubelet"

func (r maker) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help})
	r.MustRegister(c)
	return c
}

func (r maker) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: subsystem, Name: name, Help: help}, labels)
	r.MustRegister(c)
	return c
}

func (r maker) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Subsystem: subsystem, Name: name, Help: help})
	r.MustRegister(g)
	return g
}

func (r maker) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: subsystem, Name: name, Help: help}, labels)
	r.MustRegister(g)
	return g
}

func (r maker) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, Buckets: buckets})
	r.MustRegister(h)
	return h
}

func (r maker) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: subsystem, Name: name, Help: help, Buckets: buckets}, labels)
	r.MustRegister(h)
	return h
}

// What a pod's worker is at.
const (
	Create = "create"
	Update = "update"
	Sync   = "sync"
	Kill   = "kill"
)

// Worked notes how long a pod's worker was at one of these, from when there was
// something to do until there was nothing more.
func (m *Metrics) Worked(at string, took time.Duration) {
	if m != nil {
		m.worked.WithLabelValues(at).Observe(took.Seconds())
	}
}

// Admitted notes a pod with so many containers.
func (m *Metrics) Admitted(containers int) {
	if m != nil {
		m.sizes.Observe(float64(containers))
	}
}

// Ran notes when a pod began to run, after it was seen first.
func (m *Metrics) Ran(after time.Duration) {
	if m != nil {
		m.started.Observe(after.Seconds())
	}
}

// Started notes when all containers of a pod had started, after it was made: in all,
// and without the time for images and init containers. Of stateful pods, those with
// volumes that are more than secrets, config maps, downward values and empty
// directories, the latter says nothing ("Pod startup latency SLI/SLO details").
func (m *Metrics) Started(total, sli time.Duration, stateful bool) {
	if m == nil {
		return
	}
	m.total.Observe(total.Seconds())
	if !stateful {
		m.sli.Observe(sli.Seconds())
	}
}

// Wrote notes how long a status was on its way to the API.
func (m *Metrics) Wrote(took time.Duration) {
	if m != nil {
		m.wrote.Observe(took.Seconds())
	}
}

// Sandbox notes an attempt to make a pod's sandbox; own is with users of its own.
func (m *Metrics) Sandbox(own bool, err error) {
	if m == nil {
		return
	}
	m.pods.Inc()
	if own {
		m.ownUsers.Inc()
	}
	if err == nil {
		return
	}
	m.podErrors.Inc()
	if own {
		m.ownUsersErrors.Inc()
	}
}

// Types of containers.
const (
	Container          = "container"
	InitContainer      = "init_container"
	EphemeralContainer = "ephemeral_container"
)

// Start notes an attempt to start a container, with the reason for which it failed or
// "".
func (m *Metrics) Start(kind, failure string) {
	if m == nil {
		return
	}
	m.containers.WithLabelValues(kind).Inc()
	if failure != "" {
		m.containerErrors.WithLabelValues(kind, failure).Inc()
	}
}

// End notes the end of a run of a container.
func (m *Metrics) End(kind string, code int32, reason string) {
	if m != nil {
		m.ends.WithLabelValues(kind, strconv.Itoa(int(code)), reason).Inc()
	}
}

// ImageVolumes notes a start of a container with so many of them.
func (m *Metrics) ImageVolumes(n int, err error) {
	if m == nil || n == 0 {
		return
	}
	m.imageVolumes.Add(float64(n))
	if err != nil {
		m.imageVolumeErrors.Add(float64(n))
		return
	}
	m.imageVolumesMounted.Add(float64(n))
}

// sizeClasses are those of images that image_pull_duration_seconds tells apart.
var sizeClasses = []struct {
	above uint64
	label string
}{
	{100 << 30, "GT100GB"}, {60 << 30, "60GB-100GB"}, {40 << 30, "40GB-60GB"}, {30 << 30, "30GB-40GB"}, {20 << 30, "20GB-30GB"}, {10 << 30, "10GB-20GB"},
	{5 << 30, "5GB-10GB"}, {1 << 30, "1GB-5GB"}, {500 << 20, "500MB-1GB"}, {100 << 20, "100MB-500MB"}, {10 << 20, "10MB-100MB"}, {0, "0-10MB"},
}

// Pulled notes a pull of an image of so many bytes, with the time that it waited.
func (m *Metrics) Pulled(size uint64, took time.Duration) {
	if m == nil {
		return
	}
	label := "N/A"
	for _, c := range sizeClasses {
		if size > c.above {
			label = c.label
			break
		}
	}
	m.pulled.WithLabelValues(label).Observe(took.Seconds())
}

// Why images are collected.
const (
	ForSpace = "space"
	ForAge   = "age"
)

// Collected notes an image that was removed, for space or for its age.
func (m *Metrics) Collected(why string) {
	if m != nil {
		m.collected.WithLabelValues(why).Inc()
	}
}

// Evicted notes the eviction of a pod for a signal.
func (m *Metrics) Evicted(signal string) {
	if m != nil {
		m.evicted.WithLabelValues(signal).Inc()
	}
}

// refusals are the reasons that are told apart: there is no end of others.
var refusals = map[string]bool{
	"AppArmor": true, "PodOSNotSupported": true, "OutOfcpu": true, "OutOfmemory": true, "OutOfephemeral-storage": true, "OutOfpods": true,
	"Evicted": true, "SysctlForbidden": true, "NodeShutdown": true, "UnexpectedAdmissionError": true,
}

// Refused notes a pod that the node does not admit.
func (m *Metrics) Refused(reason string) {
	switch {
	case m == nil:
		return
	case refusals[reason]:
	case strings.HasPrefix(reason, "OutOf"):
		reason = "OutOfExtendedResources"
	default:
		reason = "Other"
	}
	m.refused.WithLabelValues(reason).Inc()
}

// Orphan notes remains of a pod that nobody knows.
func (m *Metrics) Orphan() {
	if m != nil {
		m.orphans.Inc()
	}
}

// Restarted notes a static pod that came again before it was gone.
func (m *Metrics) Restarted() {
	if m != nil {
		m.restarted.WithLabelValues("true").Inc()
	}
}

// Grouped notes how long it took to create, update or destroy a pod's control group.
func (m *Metrics) Grouped(operation string, took time.Duration) {
	if m != nil {
		m.groups.WithLabelValues(operation).Observe(took.Seconds())
	}
}

// ShutdownBegan and ShutdownEnded note when pods are ended with the machine.
func (m *Metrics) ShutdownBegan(at time.Time) {
	if m != nil {
		m.shutdownStart.Set(float64(at.UnixNano()) / 1e9)
		m.shutdownEnd.Set(0)
	}
}

func (m *Metrics) ShutdownEnded(at time.Time) {
	if m != nil {
		m.shutdownEnd.Set(float64(at.UnixNano()) / 1e9)
	}
}
