package controller_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// oneKind is a view of one resource that the test writes to.
type oneKind struct {
	client.View
	mu   sync.Mutex
	objs []api.Object
	f    func(old, new api.Object)
}

func (v *oneKind) Subscribe(_ *api.Resource, f func(old, new api.Object)) (cancel func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.f = f
	for _, o := range v.objs {
		f(nil, o)
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.f = nil
	}
}

func (v *oneKind) WaitSynced(context.Context, ...*api.Resource) error { return nil }

func (v *oneKind) add(name string) {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.objs = append(v.objs, o)
	if v.f != nil {
		v.f(nil, o)
	}
}

// diary is a loop that notes when it was asked to look at what.
type diary struct {
	start time.Time
	step  func(n int) (time.Duration, error)

	mu    sync.Mutex
	notes []string
	at    map[string][]time.Duration
}

func (d *diary) Name() string { return "diary" }
func (d *diary) Sources() []controller.Source {
	return []controller.Source{{Resource: &api.Resource{}}}
}

func (d *diary) Step(_ context.Context, key api.Key, now time.Time) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes = append(d.notes, key.Name)
	d.at[key.Name] = append(d.at[key.Name], now.Sub(d.start))
	return d.step(len(d.at[key.Name]))
}

// watch runs the loop over a while of bubble time, and answers with when it
// looked at key a.
func watch(t *testing.T, while time.Duration, step func(n int) (time.Duration, error)) (at []time.Duration) {
	return watchWith(t, while, func(*controller.Runner) {}, step)
}

// watchWith prepares the runner before it runs.
func watchWith(t *testing.T, while time.Duration, prepare func(*controller.Runner), step func(n int) (time.Duration, error)) (at []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		view := &oneKind{}
		view.add("a")
		d := &diary{start: time.Now(), step: step, at: map[string][]time.Duration{}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		r := &controller.Runner{Loop: d, View: view, Clock: clock.RealClock{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Workers: 2}
		prepare(r)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		view.add("b")
		<-time.After(while)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the runner ended with %v", err)
		}
		if view.f != nil {
			t.Error("the subscription is left")
		}
		if len(d.at["b"]) == 0 {
			t.Error("what came later was not looked at")
		}
		at = d.at["a"]
	})
	return at
}

func TestRunner(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		step func(n int) (time.Duration, error)
		want []time.Duration
	}{
		{"once", func(int) (time.Duration, error) { return 0, nil }, []time.Duration{0}},
		{"again when it asks for it", func(n int) (time.Duration, error) {
			if n > 2 {
				return 0, nil
			}
			return 20 * ms, nil
		}, []time.Duration{0, 20 * ms, 40 * ms}},
		{"failures back off", func(n int) (time.Duration, error) {
			switch n {
			case 1:
				return 0, errors.New("no")
			case 2:
				return 0, apierrors.NewConflict(schema.GroupResource{}, "a", nil)
			case 3:
				panic("broken")
			}
			return 0, nil
		}, []time.Duration{0, 5 * ms, 15 * ms, 35 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := watch(t, 100*ms, c.step); !slices.Equal(got, c.want) {
				t.Errorf("looked at %v, want %v", got, c.want)
			}
		})
	}
}

// patient is a loop whose key waits until another kind is served.
type patient struct {
	diary
	row     api.Resource
	waiting bool // guarded by diary.mu
}

// Sources are the same each time: hearing of a again would wake it, too.
func (p *patient) Sources() []controller.Source { return []controller.Source{{Resource: &p.row}} }

func (p *patient) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	after, err := p.diary.Step(ctx, key, now)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = true
	return after, err
}

func (p *patient) Waiting() (keys []api.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		keys = append(keys, api.Key{Name: "a"})
	}
	p.waiting = false
	return keys
}

// A loop that waits for a kind is woken by the registry, and looks at nothing
// meanwhile.
func TestRunnerWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, err := api.NewRegistry(runtime.NewScheme(), nil)
		if err != nil {
			t.Fatal(err)
		}
		view := &oneKind{}
		view.add("a")
		p := &patient{diary: diary{start: time.Now(), at: map[string][]time.Duration{}, step: func(int) (time.Duration, error) { return 0, nil }}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		r := &controller.Runner{Loop: p, View: view, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Registry: registry}
		go func() { done <- r.Run(ctx) }()
		<-time.After(time.Hour)
		synctest.Wait()
		for range 2 {
			registry.Define(nil)
			<-time.After(time.Hour)
			synctest.Wait()
		}
		cancel()
		<-done
		if want := []time.Duration{0, time.Hour, 2 * time.Hour}; !slices.Equal(p.at["a"], want) {
			t.Errorf("looked after %v, want %v", p.at["a"], want)
		}
	})
}
