package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/internal/podstate"
)

// bench is a scheduler at work on a cluster of its own, in which time passes
// only when everybody waits.
type bench struct {
	t      *testing.T
	client *flaky
	s      *Scheduler

	mu      sync.Mutex
	events  []string
	metrics *prometheus.Registry
}

// flaky is a client whose batches can be made to fail.
type flaky struct {
	client.Interface
	mu     sync.Mutex
	before func([]client.Write) error // fails the whole batch, before it is written
	after  func([]client.Write) error // ditto, after it was
}

func (f *flaky) Batch(ctx context.Context, writes []client.Write) []client.Result {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	all := func(err error) []client.Result {
		out := make([]client.Result, len(writes))
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	if before != nil {
		if err := before(writes); err != nil {
			return all(err)
		}
	}
	out := f.Interface.Batch(ctx, writes)
	if after != nil {
		if err := after(writes); err != nil {
			return all(err)
		}
	}
	return out
}

func (f *flaky) fail(before, after func([]client.Write) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// Event notes what is told to users.
func (b *bench) Event(about corev1.ObjectReference, kind, reason, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf("%s %s %s: %s", kind, reason, about.Name, message))
}

func (b *bench) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.events
	b.events = nil
	return out
}

// run runs a test in a bubble; the scheduler runs once start is called.
func run(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, client: &flaky{Interface: direct.New(requesttest.Handler(t, nil), requesttest.Admin, "kube-scheduler")}}
		test(b)
	})
}

func (b *bench) start() {
	ctx, stop := context.WithCancel(b.t.Context())
	b.metrics = prometheus.NewRegistry()
	b.s = New(Config{Client: b.client, Events: b, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Metrics: b.metrics})
	done := make(chan error)
	go func() { done <- b.s.Run(ctx) }()
	b.t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("Run gave %v", err)
		}
	})
	synctest.Wait()
}

// pass lets time pass, in the bubble's own time.
func (b *bench) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (b *bench) row(plural string) *api.Resource { return b.client.Registry().Must("", plural) }

func (b *bench) create(plural string, obj api.Object) {
	b.t.Helper()
	if _, err := b.client.Create(b.t.Context(), b.row(plural), obj, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) update(plural string, obj api.Object, subresource string) {
	b.t.Helper()
	if _, err := b.client.Update(b.t.Context(), b.row(plural), obj, subresource); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) delete(plural, namespace, name string) {
	b.t.Helper()
	now := int64(0)
	err := b.client.Delete(b.t.Context(), api.Ref{Resource: b.row(plural), Namespace: namespace, Name: name}, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// node makes a node with that many CPUs and 8 GiB.
func (b *bench) node(name string, cpus int64, change ...func(*corev1.Node)) {
	b.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(cpus, resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("8Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	n.Status.Capacity = n.Status.Allocatable
	for _, f := range change {
		f(n)
	}
	b.create("nodes", n)
}

func podOf(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	for _, f := range change {
		f(p)
	}
	return p
}

func (b *bench) pod(name, cpu string, change ...func(*corev1.Pod)) {
	b.t.Helper()
	b.create("pods", podOf(name, cpu, change...))
}

func prioritized(priority int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &priority }
}

func (b *bench) get(name string) *corev1.Pod {
	b.t.Helper()
	p, ok := b.client.View().Get(b.row("pods"), api.Key{Namespace: "default", Name: name}).(*corev1.Pod)
	if !ok {
		b.t.Fatalf("there is no pod %s", name)
	}
	return p
}

func (b *bench) wantNode(name, node string) {
	b.t.Helper()
	if got := b.get(name).Spec.NodeName; got != node {
		b.t.Errorf("pod %s is on %q, want %q", name, got, node)
	}
}

func (b *bench) wantCondition(name, reason, message string) {
	b.t.Helper()
	c := podstate.Condition(b.get(name), corev1.PodScheduled)
	if c == nil || c.Status != corev1.ConditionFalse || c.Reason != reason || c.Message != message {
		b.t.Errorf("pod %s has the condition %+v, want %s: %s", name, c, reason, message)
	}
}

func (b *bench) wantTold(want ...string) {
	b.t.Helper()
	if got := b.told(); !slices.Equal(got, want) {
		b.t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// wantAtOnce fails if time had to pass for what f does.
func (b *bench) wantAtOnce(f func()) {
	b.t.Helper()
	before := time.Now()
	f()
	if d := time.Since(before); d != 0 {
		b.t.Errorf("took %v of waiting", d)
	}
}
