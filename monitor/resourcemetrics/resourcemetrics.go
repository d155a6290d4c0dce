// Package resourcemetrics says what nodes and pods use now: the metrics server of
// this cluster (documentation: "Resource metrics pipeline"), behind the API group
// metrics.k8s.io.
//
// Nodes are asked when somebody asks, and not otherwise: usage is what lies
// between the last two times. Who asks after a long pause waits for a second.
package resourcemetrics

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

const (
	// resolution is for how long an answer of the nodes is the newest.
	resolution = 10 * time.Second
	// longest is the time after which what was is no part of what is used now.
	longest = time.Minute
	// shortest is the least time that usage is measured over.
	shortest = time.Second - 50*time.Millisecond // of two clocks
	// pause is between two questions to a node that was not asked for long.
	pause = time.Second
	// patience is how long a node may take.
	patience = 10 * time.Second
)

// Config is what a Collector is made of.
type Config struct {
	View        client.View
	Nodes, Pods *api.Resource
	// Ask asks a node's own API what it and its containers have used.
	Ask   func(ctx context.Context, node *corev1.Node) (*statsv1alpha1.Summary, error)
	Clock clock.Clock
	Log   *slog.Logger
}

// Collector asks nodes. Its methods may be called from any goroutine; those who
// ask at the same time share the answer.
type Collector struct {
	Config
	turn chan struct{} // held by whoever asks the nodes

	mu    sync.RWMutex
	asked time.Time
	nodes map[string]*samples
}

// samples are the last two of a node. Immutable.
type samples struct {
	before, last *sample
	at           time.Time // when the last one was asked for
}

// New makes a collector that has asked nobody yet.
func New(c Config) *Collector {
	return &Collector{Config: c, turn: make(chan struct{}, 1), nodes: map[string]*samples{}}
}

// NodeMetrics are what nodes use, or the one of a name.
func (c *Collector) NodeMetrics(ctx context.Context, key api.Key) ([]api.Object, error) {
	now, err := c.collect(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for o := range c.View.List(c.Nodes, "") {
		n := o.(*corev1.Node)
		if key.Name != "" && key.Name != n.Name {
			continue
		}
		if m, ok := ofNode(n, c.of(n.Name), now); ok {
			out = append(out, m)
		}
	}
	if key.Name != "" && len(out) == 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: "nodemetrics"}, key.Name)
	}
	return out, nil
}

// PodMetrics are what the pods of a namespace or of all use, or the one of a name.
// Pods that do not run, or not for long enough, are left out.
func (c *Collector) PodMetrics(ctx context.Context, key api.Key) ([]api.Object, error) {
	now, err := c.collect(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for o := range c.View.List(c.Pods, key.Namespace) {
		p := o.(*corev1.Pod)
		if key.Name != "" && key.Name != p.Name || p.Spec.NodeName == "" {
			continue
		}
		if m, ok := ofPod(p, c.of(p.Spec.NodeName), now); ok {
			out = append(out, m)
		}
	}
	if key.Name != "" && len(out) == 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: metricsv1beta1.GroupName, Resource: "podmetrics"}, key.String())
	}
	return out, nil
}

func (c *Collector) of(node string) *samples {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.nodes[node]
}

// collect asks all nodes unless that was done just now, and answers with the
// time.
func (c *Collector) collect(ctx context.Context) (time.Time, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	defer func() { <-c.turn }()
	now := c.Clock.Now()
	if now.Sub(c.asked) < resolution {
		return now, nil
	}
	fresh := c.ask(ctx, func(string) bool { return true })
	if fresh {
		select {
		case <-c.Clock.After(pause):
		case <-ctx.Done():
			return now, ctx.Err()
		}
		c.ask(ctx, func(node string) bool { s := c.of(node); return s == nil || s.before == nil })
	}
	if ctx.Err() != nil {
		return now, ctx.Err() // who asks next asks anew
	}
	c.asked = now
	return c.Clock.Now(), nil
}

// ask asks some nodes, and says whether there is one of which nothing is known
// from before that could be compared. Those that do not answer are forgotten, as
// are those that are gone.
func (c *Collector) ask(ctx context.Context, which func(node string) bool) (fresh bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	now := c.Clock.Now()
	next := map[string]*samples{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for o := range c.View.List(c.Nodes, "") {
		n := o.(*corev1.Node)
		had := c.of(n.Name)
		if !which(n.Name) {
			mu.Lock()
			next[n.Name] = had
			mu.Unlock()
			continue
		}
		all.Go(func() {
			sum, err := c.Ask(ctx, n)
			if err != nil {
				c.Log.Debug("node does not say what it uses", "node", n.Name, "err", err)
				return
			}
			s := &samples{last: sampleOf(sum), at: now}
			if had != nil && now.Sub(had.at) <= longest {
				s.before = had.last
			}
			mu.Lock()
			defer mu.Unlock()
			next[n.Name] = s
			fresh = fresh || s.before == nil
		})
	}
	all.Wait()
	c.mu.Lock()
	c.nodes = next
	c.mu.Unlock()
	return fresh
}
