package resourcemetrics

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// cluster has nodes and pods, each with a container that uses half a CPU and 10
// MiB; nodes use one and 100 MiB.
type cluster struct {
	client.View
	nodes, pods map[string]api.Object
	asked       atomic.Int32
	started     time.Time // all containers
	down        map[string]bool
}

var rowOfNodes, rowOfPods = &api.Resource{Plural: "nodes"}, &api.Resource{Plural: "pods"}

func (c *cluster) List(r *api.Resource, namespace string) iter.Seq[api.Object] {
	return func(yield func(api.Object) bool) {
		from := c.pods
		if r == rowOfNodes {
			from = c.nodes
		}
		for _, o := range from {
			if (namespace == "" || o.GetNamespace() == namespace) && !yield(o) {
				return
			}
		}
	}
}

func (c *cluster) add(node, pod string) {
	c.nodes[node] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{"zone": "a"}}}
	c.pods[pod] = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pod, UID: types.UID("uid-" + pod), Labels: map[string]string{"app": pod}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

func (c *cluster) ask(_ context.Context, n *corev1.Node) (*statsv1alpha1.Summary, error) {
	c.asked.Add(1)
	if c.down[n.Name] {
		return nil, errors.New("down")
	}
	now := time.Now()
	used := func(since time.Time, cores float64, mib uint64) (*statsv1alpha1.CPUStats, *statsv1alpha1.MemoryStats) {
		return &statsv1alpha1.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: ptr.To(uint64(cores * float64(now.Sub(since))))},
			&statsv1alpha1.MemoryStats{WorkingSetBytes: ptr.To(mib << 20)}
	}
	s := &statsv1alpha1.Summary{}
	s.Node.StartTime = metav1.NewTime(boot)
	s.Node.CPU, s.Node.Memory = used(boot, 1, 100)
	for _, o := range c.pods {
		p := o.(*corev1.Pod)
		if p.Spec.NodeName != n.Name {
			continue
		}
		one := statsv1alpha1.ContainerStats{Name: "main", StartTime: metav1.NewTime(c.started)}
		one.CPU, one.Memory = used(c.started, 0.5, 10)
		s.Pods = append(s.Pods, statsv1alpha1.PodStats{PodRef: statsv1alpha1.PodReference{UID: string(p.UID)}, Containers: []statsv1alpha1.ContainerStats{one}})
	}
	return s, nil
}

var boot = time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC) // before the time of synctest

func newCluster() (*cluster, *Collector) {
	c := &cluster{nodes: map[string]api.Object{}, pods: map[string]api.Object{}, down: map[string]bool{}, started: boot}
	return c, New(Config{View: c, Nodes: rowOfNodes, Pods: rowOfPods, Ask: c.ask, Clock: clock.RealClock{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// Nodes are asked twice when nobody asked for long, else at most every ten
// seconds, and not at all when nobody does.
func TestNodesAreAskedWhenSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCluster()
		c.add("n1", "web")
		for _, step := range []struct {
			after  time.Duration
			asked  int32
			window time.Duration
		}{
			{0, 2, pause},
			{5 * time.Second, 2, pause},
			{10 * time.Second, 3, 15 * time.Second}, // 16 s after the first, 15 after the second
			{time.Hour, 5, pause},
			{15 * time.Second, 6, 15 * time.Second},
		} {
			<-time.After(step.after)
			list, err := m.NodeMetrics(t.Context(), api.Key{})
			if err != nil || len(list) != 1 {
				t.Fatalf("%d nodes, %v", len(list), err)
			}
			n := list[0].(*metricsv1beta1.NodeMetrics)
			if n.Name != "n1" || n.Labels["zone"] != "a" || n.Usage.Cpu().MilliValue() != 1000 || n.Usage.Memory().String() != "100Mi" {
				t.Errorf("metrics %+v", n)
			}
			if got := c.asked.Load(); got != step.asked || n.Window.Duration != step.window {
				t.Errorf("after %s more: asked %d times, window %s; want %d, %s", step.after, got, n.Window.Duration, step.asked, step.window)
			}
		}
	})
}

func TestPodMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, m := newCluster()
		c.add("n1", "web")
		c.add("n2", "db")
		list, err := m.PodMetrics(t.Context(), api.Key{Namespace: "ns"})
		if err != nil || len(list) != 2 {
			t.Fatalf("%d pods, %v", len(list), err)
		}
		list, err = m.PodMetrics(t.Context(), api.Key{Namespace: "ns", Name: "web"})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d pods, %v", len(list), err)
		}
		p := list[0].(*metricsv1beta1.PodMetrics)
		if p.Namespace != "ns" || p.Labels["app"] != "web" || len(p.Containers) != 1 || p.Containers[0].Name != "main" || p.Containers[0].Usage.Cpu().String() != "500m" {
			t.Errorf("metrics %+v", p)
		}
		_, err = m.PodMetrics(t.Context(), api.Key{Namespace: "ns", Name: "gone"})
		if !apierrors.IsNotFound(err) || err.Error() != `podmetrics.metrics.k8s.io "ns/gone" not found` {
			t.Errorf("error %v", err)
		}
		if _, err := m.NodeMetrics(t.Context(), api.Key{Name: "gone"}); !apierrors.IsNotFound(err) || err.Error() != `nodemetrics.metrics.k8s.io "gone" not found` {
			t.Errorf("error %v", err)
		}
		// A container that began since counts from then.
		<-time.After(resolution)
		c.started = time.Now().Add(-4 * time.Second)
		list, err = m.PodMetrics(t.Context(), api.Key{Namespace: "ns", Name: "db"})
		if err != nil || list[0].(*metricsv1beta1.PodMetrics).Window.Duration != 4*time.Second {
			t.Errorf("metrics of a new container: %+v, %v", list, err)
		}
		// A node that does not answer does not hold up the others.
		<-time.After(resolution)
		c.down["n2"] = true
		if list, err := m.PodMetrics(t.Context(), api.Key{}); err != nil || len(list) != 1 || list[0].GetName() != "web" {
			t.Errorf("with a node down: %+v, %v", list, err)
		}
	})
}

func TestBetween(t *testing.T) {
	at := func(s int) time.Time { return boot.Add(time.Duration(s) * time.Second) }
	for _, c := range []struct {
		name        string
		first, last point
		asked       time.Time
		cpu         string
		known       bool
	}{
		{"two points", point{at: at(10), cpu: 1e9}, point{at: at(20), cpu: 2e9}, at(10), "100m", true},
		{"too short", point{at: at(10), cpu: 1e9}, point{at: at(10).Add(time.Millisecond), cpu: 2e9}, at(10), "", false},
		{"a counter that went back", point{at: at(10), cpu: 2e9}, point{at: at(20), cpu: 1e9}, at(10), "", false},
		{"started again", point{at: at(10), cpu: 2e9}, point{at: at(20), start: at(15), cpu: 1e9}, at(10), "200m", true},
		{"new", point{}, point{at: at(20), start: at(18), cpu: 1e9}, at(10), "500m", true},
		{"of old, and never seen", point{}, point{at: at(20), start: at(5), cpu: 1e9}, at(10), "", false},
		{"nothing to compare with", point{}, point{at: at(20), start: at(18), cpu: 1e9}, time.Time{}, "", false},
		{"not measured", point{at: at(10)}, point{}, at(10), "", false},
	} {
		u, known := between(c.first, c.last, c.asked)
		if known != c.known || known && u.list.Cpu().String() != c.cpu {
			t.Errorf("%s: %v, known %v; want %s", c.name, u.list, known, c.cpu)
		}
	}
}
