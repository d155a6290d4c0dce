package resourcemetrics

import (
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// point is what a node or a container had used at a time.
type point struct {
	at, start    time.Time // start: of the container or the machine
	cpu          uint64    // ns since the start
	memory, swap uint64    // bytes
	swaps        bool      // whether swap is known
}

// sample is what a node said of itself.
type sample struct {
	at   time.Time // by the node's clock
	node *point    // nil: not known
	pods map[types.UID]map[string]point
}

// sampleOf takes out of a summary what is counted here. Containers of which one
// value is missing have a point that gives no usage.
func sampleOf(s *statsv1alpha1.Summary) *sample {
	out := &sample{pods: map[types.UID]map[string]point{}}
	if p, ok := pointOf(s.Node.StartTime, s.Node.CPU, s.Node.Memory, s.Node.Swap); ok {
		out.node, out.at = &p, p.at
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		containers := map[string]point{}
		for j := range p.Containers {
			c := &p.Containers[j]
			containers[c.Name], _ = pointOf(c.StartTime, c.CPU, c.Memory, c.Swap)
		}
		out.pods[types.UID(p.PodRef.UID)] = containers
	}
	return out
}

func pointOf(start metav1.Time, c *statsv1alpha1.CPUStats, m *statsv1alpha1.MemoryStats, w *statsv1alpha1.SwapStats) (point, bool) {
	if c == nil || c.UsageCoreNanoSeconds == nil || m == nil || m.WorkingSetBytes == nil {
		return point{}, false
	}
	p := point{at: c.Time.Time, start: start.Time, cpu: *c.UsageCoreNanoSeconds, memory: *m.WorkingSetBytes}
	if w != nil && w.SwapUsageBytes != nil {
		p.swap, p.swaps = *w.SwapUsageBytes, true
	}
	return p, true
}

// usage is what was used over a time.
type usage struct {
	end    time.Time
	window time.Duration
	list   corev1.ResourceList
}

// between is what was used from one point to another. What began after the time
// of the first one counts from its own beginning. It is false for a time that is
// too short, and for counters that went back.
func between(first, last point, asked time.Time) (usage, bool) {
	if last.at.IsZero() {
		return usage{}, false
	}
	switch {
	case first.at.IsZero(), last.start.After(first.at):
		if asked.IsZero() || last.start.Before(asked) {
			return usage{}, false
		}
		first = point{at: last.start}
	case last.cpu < first.cpu:
		return usage{}, false
	}
	u := usage{end: last.at, window: last.at.Sub(first.at)}
	if u.window < shortest {
		return usage{}, false
	}
	nanocores := math.Ceil(float64(last.cpu-first.cpu) / u.window.Seconds())
	u.list = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewScaledQuantity(int64(nanocores), resource.Nano),
		corev1.ResourceMemory: *resource.NewQuantity(int64(last.memory), resource.BinarySI),
	}
	if last.swaps {
		u.list["swap"] = *resource.NewQuantity(int64(last.swap), resource.BinarySI)
	}
	return u, true
}

// ofNode is what a node used between two samples.
func ofNode(n *corev1.Node, s *samples, now time.Time) (*metricsv1beta1.NodeMetrics, bool) {
	if s == nil || s.last.node == nil || s.before == nil || s.before.node == nil {
		return nil, false
	}
	u, ok := between(*s.before.node, *s.last.node, s.before.at)
	if !ok {
		return nil, false
	}
	return &metricsv1beta1.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, CreationTimestamp: metav1.NewTime(now), Labels: n.Labels},
		Timestamp:  metav1.NewTime(u.end), Window: metav1.Duration{Duration: u.window}, Usage: u.list,
	}, true
}

// ofPod is what a pod's containers used between two samples: those that run, in
// the order of their names, or nothing while one of them is not known.
func ofPod(p *corev1.Pod, s *samples, now time.Time) (*metricsv1beta1.PodMetrics, bool) {
	if s == nil || s.before == nil {
		return nil, false
	}
	containers, before := s.last.pods[p.UID], s.before.pods[p.UID]
	out := &metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, CreationTimestamp: metav1.NewTime(now), Labels: p.Labels}}
	for name, last := range containers {
		u, ok := between(before[name], last, s.before.at)
		if !ok {
			return nil, false
		}
		if len(out.Containers) == 0 || u.end.Before(out.Timestamp.Time) {
			out.Timestamp, out.Window = metav1.NewTime(u.end), metav1.Duration{Duration: u.window}
		}
		out.Containers = append(out.Containers, metricsv1beta1.ContainerMetrics{Name: name, Usage: u.list})
	}
	slices.SortFunc(out.Containers, func(a, b metricsv1beta1.ContainerMetrics) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out, len(out.Containers) > 0
}
