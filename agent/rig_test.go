package agent_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent"
	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/runtime/fake"
)

const image = "example.com/app:1"

// rig is an agent on a real host file system, between an API server in memory
// and a fake runtime.
type rig struct {
	t       *testing.T
	client  *direct.Client
	runtime *fake.Runtime
	dir     string
	base    string
	layout  cgroup.Layout
	agent   *agent.Agent
	api     *httptest.Server
	pods    *api.Resource
	stop    func()
	// settings of the node, and what stands between it and the API; may be nil.
	settings *settings.Settings
	door     func(client.Interface) client.Interface
	bus      string
	clock    *settable
	keep     time.Duration // logs of pods that are gone
	measured atomic.Int32  // how often the runtime was asked what a container uses
	cancel   func()        // asks the agent to stop
	// starting, when not nil, is called before a container is started, and may fail.
	starting func(ctx context.Context) error
}

// measured is a runtime that counts questions for what a container uses.
type measured struct {
	*fake.Runtime
	rig *rig
}

func (m measured) ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error) {
	m.rig.measured.Add(1)
	return m.Runtime.ContainerStats(ctx, id)
}

func (m measured) StartContainer(ctx context.Context, id string) error {
	if m.rig.starting != nil {
		if err := m.rig.starting(ctx); err != nil {
			m.Fail("StartContainer", err)
		}
	}
	return m.Runtime.StartContainer(ctx, id)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := configured(t, nil)
	r.start()
	return r
}

// configured is a rig whose node has the fields given; its agent does not run.
// What the machine is short of does not matter unless the fields say so.
func configured(t *testing.T, fields map[string]any) *rig {
	t.Helper()
	all := map[string]any{"evictionHard": map[string]any{"memory.available": "1Mi"}}
	maps.Copy(all, fields)
	set, err := settings.Parse(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newIdleRig(t)
	r.settings = set
	return r
}

// newIdleRig is a rig whose agent does not run yet.
func newIdleRig(t *testing.T) *rig {
	t.Helper()
	layout, err := cgroup.Detect("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, client: direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test"),
		runtime: fake.New(clock.RealClock{}), clock: &settable{}, dir: t.TempDir(),
		base: "/hansa-test-" + strings.ToLower(rand.Text()[:8]), layout: layout,
		pods: kinds.Registry().Must("", "pods"),
	}
	r.runtime.AddImage(image, nil)
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
		if err := agent.Cleanup(r.dir, layout, r.base); err != nil {
			t.Error(err)
		}
	})
	return r
}

// make makes an agent that does not run.
func (r *rig) make() *agent.Agent {
	r.t.Helper()
	var recorded sync.Map
	var door client.Interface = r.client
	if r.door != nil {
		door = r.door(r.client)
	}
	a, err := agent.New(agent.Config{
		NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, DataDir: r.dir,
		Settings: r.settings, Bus: r.bus,
		Client: door, Runtime: measured{r.runtime, r}, Clock: r.clock, OnClockJump: r.clock.watch,
		Groups: cgroup.New(r.layout, r.base, func(kind, name string) error { recorded.Store(name, kind); return nil }),
		Ledger: func(kind, name string) error { recorded.Store(name, kind); return nil },
		DNS:    work.DNS{Servers: []string{"10.43.0.10"}, Domain: "cluster.local"},
		Host:   node.Host{Root: "/", DataDir: r.dir}, Port: 10250, Version: "v1.37.2", PodCIDR: "10.42.0.0/24",
		GoneLogs:  logs.Limits{For: r.keep, Bytes: 1 << 20},
		Authorize: func(h http.Handler) http.Handler { return h },
		Log:       slog.New(slog.NewTextHandler(testWriter{r.t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// start runs an agent; restart stops the one that runs first.
func (r *rig) start() {
	r.t.Helper()
	a := r.make()
	r.agent = a
	r.api = httptest.NewServer(a.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			r.t.Error(err)
		}
	}()
	r.cancel = cancel
	r.stop = func() {
		r.stop = nil
		r.api.Close()
		cancel()
		<-done
	}
}

// settable is a clock that can be set.
type settable struct {
	clock.RealClock
	mu     sync.Mutex
	ahead  time.Duration
	jumped func(by time.Duration)
}

func (c *settable) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead == 0 {
		return time.Now()
	}
	return time.Now().Round(0).Add(c.ahead)
}

func (c *settable) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func (c *settable) watch(jumped func(by time.Duration)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jumped = jumped
	return func() {}
}

// set puts the clock on, or back.
func (c *settable) set(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += by
}

// jump sets the clock, and tells of it.
func (c *settable) jump(by time.Duration) {
	c.set(by)
	c.mu.Lock()
	jumped := c.jumped
	c.mu.Unlock()
	jumped(by)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// pod makes a pod of one container; change may alter it.
func (r *rig) pod(name string, change func(*v1.Pod)) *v1.Pod {
	r.t.Helper()
	grace := int64(2)
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1.PodSpec{
			NodeName: "n1", TerminationGracePeriodSeconds: &grace,
			Containers: []v1.Container{{Name: "app", Image: image}},
		},
	}
	if change != nil {
		change(p)
	}
	return create[*v1.Pod](r, "pods", p)
}

func create[T api.Object](r *rig, plural string, obj T) T {
	r.t.Helper()
	out, err := r.client.Create(r.t.Context(), kinds.Registry().Must("", plural), obj, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.(T)
}

func (r *rig) get(name string) *v1.Pod {
	p, _ := r.client.View().Get(r.pods, api.Key{Namespace: "default", Name: name}).(*v1.Pod)
	return p
}

// deadline bounds each wait; it is far above what anything takes.
const deadline = 20 * time.Second

// wait returns the pod once ok says so; nil stands for no pod.
func (r *rig) wait(name, what string, ok func(*v1.Pod) bool) *v1.Pod {
	r.t.Helper()
	changed := make(chan struct{}, 1)
	cancel := r.client.View().Subscribe(r.pods, func(old, new api.Object) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer cancel()
	timeout := time.After(deadline)
	for {
		p := r.get(name)
		if ok(p) {
			return p
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatalf("pod %s: waited for %s in vain\nstatus: %s\ncalls:\n%s", name, what, describe(p), strings.Join(r.runtime.Calls(), "\n"))
		}
	}
}

// eventually polls a condition that no view tells of.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			r.t.Fatalf("waited for %s in vain; calls:\n%s", what, strings.Join(r.runtime.Calls(), "\n"))
		}
	}
}

func describe(p *v1.Pod) string {
	if p == nil {
		return "(no pod)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	for _, c := range p.Status.Conditions {
		fmt.Fprintf(&b, "\n  %s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, cs := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		fmt.Fprintf(&b, "\n  %s restarts=%d ready=%v %s last=%s", cs.Name, cs.RestartCount, cs.Ready, state(cs.State), state(cs.LastTerminationState))
	}
	return b.String()
}

func state(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return fmt.Sprintf("terminated(%s %d %q)", s.Terminated.Reason, s.Terminated.ExitCode, s.Terminated.Message)
	case s.Waiting != nil:
		return fmt.Sprintf("waiting(%s %q)", s.Waiting.Reason, s.Waiting.Message)
	}
	return "-"
}

func isReady(p *v1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func inPhase(phase v1.PodPhase) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool { return p != nil && p.Status.Phase == phase }
}

func gone(p *v1.Pod) bool { return p == nil }

func (r *rig) delete(name string) {
	r.t.Helper()
	err := r.client.Delete(r.t.Context(), api.Ref{Resource: r.pods, Namespace: "default", Name: name}, metav1.DeleteOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
}

// fetch reads from the node API.
func (r *rig) fetch(path string) (int, string) {
	r.t.Helper()
	resp, err := http.Get(r.api.URL + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// clean says that nothing of a pod is left on the host.
func (r *rig) clean(p *v1.Pod) {
	r.t.Helper()
	r.eventually("nothing of the pod to be left", func() bool {
		for _, dir := range []string{r.dir + "/pods/" + string(p.UID), r.dir + "/logs/default_" + p.Name + "_" + string(p.UID)} {
			if _, err := os.Stat(dir); err == nil {
				return false
			}
		}
		left, err := cgroup.New(r.layout, r.base, nil).Children("pods/besteffort")
		if err != nil {
			r.t.Fatal(err)
		}
		sandboxes, _ := r.runtime.Sandboxes(r.t.Context(), nil)
		return len(left) == 0 && len(sandboxes) == 0
	})
}
