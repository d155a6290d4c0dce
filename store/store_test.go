package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
	"hansa.dev/hansa/store/storetest"
)

var _ client.View = (*store.View)(nil)

var (
	registry   = storetest.Registry()
	configmaps = registry.Must("", "configmaps")
)

func open(t *testing.T, e store.Engine, opts store.Options) *store.Store {
	t.Helper()
	opts.DetectMutations = true
	s, err := store.Open(t.Context(), e, registry, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closing(t *testing.T, s *store.Store) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func ref(name string) api.Ref {
	return api.Ref{Resource: configmaps, Namespace: "default", Name: name}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Data:       map[string]string{"value": value},
	}
}

func create(t *testing.T, s *store.Store, name, value string) api.Object {
	t.Helper()
	obj, err := s.Create(t.Context(), configmaps, configMap(name, value), store.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

func set(value string) func(api.Object) (store.Outcome, error) {
	return func(cur api.Object) (store.Outcome, error) {
		cm := cur.DeepCopyObject().(*corev1.ConfigMap)
		cm.Data = map[string]string{"value": value}
		return store.Outcome{Object: cm}, nil
	}
}

// Whoever writes to a shared object is found out: when the object is replaced,
// deleted, or at the latest when the store is closed.
func TestMutationDetector(t *testing.T) {
	for name, found := range map[string]func(s *store.Store){
		"replaced": func(s *store.Store) { s.CheckMutations() },
		"closed": func(s *store.Store) {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		},
	} {
		for what, mutate := range map[string]func(*corev1.ConfigMap){
			"data":     func(cm *corev1.ConfigMap) { cm.Data["value"] = "mutated" },
			"metadata": func(cm *corev1.ConfigMap) { cm.Finalizers = append(cm.Finalizers, "x") },
			"kind":     func(cm *corev1.ConfigMap) { cm.Kind = "ConfigMap" },
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := open(t, memory.New(memory.Options{}), store.Options{})
				create(t, s, "innocent", "of its own")
				mutate(create(t, s, "victim", "").(*corev1.ConfigMap))
				defer func() {
					got := recover()
					if text := fmt.Sprint(got); !strings.Contains(text, "configmaps default/victim") {
						t.Errorf("panic %q, want the name of the object", text)
					}
				}()
				found(s)
			})
		}
	}
}

// flaky is an engine whose streams can be cut.
type flaky struct {
	*memory.Engine
	mu      sync.Mutex
	streams []store.Stream
	refuse  chan struct{} // while open, Watch waits
}

func (f *flaky) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	if f.refuse != nil {
		select {
		case <-f.refuse:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s, err := f.Engine.Watch(ctx, from, prev)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams = append(f.streams, s)
	return s, err
}

func (f *flaky) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.streams {
		s.Close()
	}
	f.streams = nil
}

// A store that loses its stream takes it up where it ended.
func TestStreamLost(t *testing.T) {
	f := &flaky{Engine: memory.New(memory.Options{})}
	s := open(t, f, store.Options{})
	closing(t, s)
	w, err := s.Watch(t.Context(), store.Query{Resource: configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 5 {
		f.cut()
		create(t, s, fmt.Sprint("cm-", i), "")
	}
	for seen := 0; seen < 5; {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			if want := fmt.Sprint("cm-", seen); ev.Object.GetName() != want {
				t.Errorf("event %d is of %s", seen, ev.Object.GetName())
			}
			seen++
		}
	}
}

// A store that was cut off for longer than the history lasts reads everything
// anew. Subscribers get the differences, watchers are told to start over.
func TestGapInHistory(t *testing.T) {
	f := &flaky{Engine: memory.New(memory.Options{})}
	s := open(t, f, store.Options{})
	closing(t, s)
	for _, name := range []string{"kept", "changed", "deleted"} {
		create(t, s, name, "1")
	}
	changes := make(chan string, 100)
	cancel := s.View().Subscribe(configmaps, func(old, new api.Object) {
		text := ""
		if old != nil {
			text += old.GetName()
		}
		text += ">"
		if new != nil {
			text += new.GetName() + "=" + new.(*corev1.ConfigMap).Data["value"]
		}
		changes <- text
	})
	defer cancel()
	w, err := s.Watch(t.Context(), store.Query{Resource: configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	f.mu.Lock()
	f.refuse = make(chan struct{})
	f.mu.Unlock()
	f.cut()

	// Meanwhile somebody else writes, and the history is forgotten.
	other := open(t, kept{f.Engine}, store.Options{})
	create(t, other, "added", "1")
	if _, err := other.Update(t.Context(), ref("changed"), store.WriteOptions{}, set("2")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Delete(t.Context(), ref("deleted"), store.WriteOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	revision, err := f.CurrentRevision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	close(f.refuse)

	want := map[string]bool{">kept=1": true, ">changed=1": true, ">deleted=1": true, ">added=1": true, "changed>changed=2": true, "deleted>": true}
	for len(want) > 0 {
		got := <-changes
		if !want[got] {
			t.Fatalf("told of %q; still to come: %v", got, want)
		}
		delete(want, got)
	}
	if _, err := w.Next(t.Context()); !apierrors.IsResourceExpired(err) {
		t.Errorf("the watch goes on with %v, want 410", err)
	}
	l, err := s.List(t.Context(), store.Query{Resource: configmaps}, store.ListOptions{})
	if err != nil || len(l.Items) != 3 {
		t.Errorf("%d objects, %v; want 3", len(l.Items), err)
	}
	create(t, s, "later", "")
}

type kept struct{ store.Engine }

func (kept) Close() error { return nil }

// A value that cannot be decoded stops the store: going on without the object
// would look as if it had been deleted.
func TestUnreadableValue(t *testing.T) {
	e := memory.New(memory.Options{})
	s := open(t, kept{e}, store.Options{})
	create(t, s, "a", "")
	write := []store.Step{{Then: []store.Put{{Key: "/registry/configmaps/default/bad", Value: []byte("rubbish")}}}}
	if _, err := e.Txn(t.Context(), write); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), ref("a"), "")
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "/registry/configmaps/default/bad") {
		t.Errorf("get: %v, want an internal error that names the key", err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("the store says that it is ready")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := store.Open(t.Context(), e, registry, store.Options{}); err == nil || !strings.Contains(err.Error(), "/registry/configmaps/default/bad") {
		t.Errorf("open: %v, want an error that names the key", err)
	}
}

// unreachable is an engine that has stopped to answer.
type unreachable struct {
	store.Engine
	away atomic.Bool
}

func (u *unreachable) CurrentRevision(ctx context.Context) (int64, error) {
	if u.away.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return u.Engine.CurrentRevision(ctx)
}

// A store whose database does not answer is not ready, though its watch says
// nothing of it.
func TestUnreachableDatabase(t *testing.T) {
	e := &unreachable{Engine: memory.New(memory.Options{})}
	s := open(t, e, store.Options{})
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	e.away.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ready: %v", err)
	}
	e.away.Store(false)
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, memory.New(memory.Options{}), store.Options{})
	w, err := s.Watch(t.Context(), store.Query{Resource: configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := w.Next(context.Background())
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !apierrors.IsServiceUnavailable(err) {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := s.Get(t.Context(), ref("a"), ""); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Create(t.Context(), configmaps, configMap("a", ""), store.WriteOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("create: %v", err)
	}
}

// running starts Run on a fake clock, and gives a function that lets time pass
// in steps of half a minute.
func running(t *testing.T, s *store.Store, clock *testingclock.FakeClock) (pass func(time.Duration)) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(d time.Duration) {
		for ; d > 0; d -= 30 * time.Second {
			eventually(t, clock.HasWaiters)
			clock.Step(30 * time.Second)
		}
	}
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !condition(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("the condition never came true")
		}
	}
}

// No revision is before the first, and the newest is not in its place.
func TestListBeforeTheFirstVersion(t *testing.T) {
	s := open(t, memory.New(memory.Options{}), store.Options{})
	closing(t, s)
	create(t, s, "a", "1")
	list, err := s.List(t.Context(), store.Query{Resource: configmaps},
		store.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("got %d items and %v, want an expired version", len(list.Items), err)
	}
}

// At any time the history of the last five minutes is there, and that of more
// than ten minutes ago is not.
func TestCompaction(t *testing.T) {
	clock := testingclock.NewFakeClock(time.Now())
	e := memory.New(memory.Options{Clock: clock})
	s := open(t, e, store.Options{Clock: clock})
	closing(t, s)
	pass := running(t, s, clock)
	past := func(rv string) error {
		_, err := s.List(t.Context(), store.Query{Resource: configmaps},
			store.ListOptions{ResourceVersion: rv, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		return err
	}
	first := create(t, s, "a", "1").GetResourceVersion()
	if _, err := s.Update(t.Context(), ref("a"), store.WriteOptions{}, set("2")); err != nil {
		t.Fatal(err)
	}
	pass(5 * time.Minute)
	if err := past(first); err != nil {
		t.Errorf("after 5 minutes: %v", err)
	}
	if _, err := s.Update(t.Context(), ref("a"), store.WriteOptions{}, set("3")); err != nil {
		t.Fatal(err)
	}
	pass(5 * time.Minute)
	// A ticker drops what nobody takes in time: some more may have to pass.
	eventually(t, func() bool {
		pass(30 * time.Second)
		return apierrors.IsResourceExpired(past(first))
	})
	// The recent events are gone too: whoever asks for them is told.
	eventually(t, func() bool {
		pass(30 * time.Second)
		w, err := s.Watch(t.Context(), store.Query{Resource: configmaps}, store.WatchOptions{ResourceVersion: first})
		if err == nil {
			w.Stop()
		}
		return apierrors.IsResourceExpired(err)
	})
}

func TestQuota(t *testing.T) {
	const quota = 100 << 10
	clock := testingclock.NewFakeClock(time.Now())
	told := make(chan store.Pressure, 1000)
	e := memory.New(memory.Options{Clock: clock, Quota: quota})
	s := open(t, e, store.Options{Clock: clock, OnPressure: func(p store.Pressure) { told <- p }})
	closing(t, s)
	pass := running(t, s, clock)
	state := func(warn, refuse bool) {
		t.Helper()
		for p := range told {
			if p.Warn == warn && p.Refuse == refuse {
				return
			}
			pass(30 * time.Second)
		}
	}
	state(false, false)
	create(t, s, "a", strings.Repeat("x", 82<<10))
	pass(30 * time.Second)
	state(true, false)
	create(t, s, "b", strings.Repeat("x", 14<<10))
	pass(30 * time.Second)
	state(true, true)

	_, err := s.Create(t.Context(), configmaps, configMap("c", ""), store.WriteOptions{})
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != http.StatusInsufficientStorage {
		t.Errorf("create: %v, want 507", err)
	}
	lease := registry.Must("coordination.k8s.io", "leases")
	if _, err := s.Create(t.Context(), lease, newLease(lease), store.WriteOptions{}); err != nil {
		t.Errorf("create of a lease: %v", err)
	}
	if _, err := s.Update(t.Context(), ref("b"), store.WriteOptions{}, set("small")); err != nil {
		t.Errorf("update: %v", err)
	}
	if _, err := s.Delete(t.Context(), ref("a"), store.WriteOptions{}, nil); err != nil {
		t.Errorf("delete: %v", err)
	}
	// The space is there again once the history is forgotten.
	pass(11 * time.Minute)
	state(false, false)
	create(t, s, "c", "")
}

func newLease(r *api.Resource) api.Object {
	obj := r.New()
	obj.SetNamespace("kube-node-lease")
	obj.SetName("node")
	return obj
}

// forgetful is an engine that has lost its leases: a transaction that uses one
// given before is refused.
type forgetful struct {
	*memory.Engine
	mu      sync.Mutex
	lost    int64 // leases up to this one
	granted int64
}

func (f *forgetful) Grant(ctx context.Context, ttl int64) (int64, error) {
	id, err := f.Engine.Grant(ctx, ttl)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.granted = id
	return id, err
}

func (f *forgetful) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	f.mu.Lock()
	lost := f.lost
	f.mu.Unlock()
	for _, s := range steps {
		for _, p := range s.Then {
			if p.Lease != 0 && p.Lease <= lost {
				return store.TxnResponse{}, store.ErrLeaseGone
			}
		}
	}
	return f.Engine.Txn(ctx, steps)
}

// A lease that has ended costs its writes another attempt, and others nothing.
func TestLeaseGone(t *testing.T) {
	f := &forgetful{Engine: memory.New(memory.Options{})}
	s := open(t, f, store.Options{})
	closing(t, s)
	brief := store.WriteOptions{TTL: time.Hour}
	if _, err := s.Create(t.Context(), configmaps, configMap("a", ""), brief); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.lost = f.granted
	f.mu.Unlock()
	ws := []store.Write{
		{Ref: ref("b"), Create: configMap("b", "")},
		{Ref: ref("c"), Create: configMap("c", ""), Options: brief},
		{Ref: ref("d"), Create: configMap("d", "")},
	}
	for i, r := range s.Batch(t.Context(), ws) {
		if r.Err != nil {
			t.Errorf("write %d: %v", i, r.Err)
		}
	}
}

// The index of labels finds what going through everything finds, whatever was
// written before.
func TestLabelIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, memory.New(memory.Options{}), store.Options{})
		defer s.Close()
		some := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"", "1", "2"}), 0, 2)
		labels := map[api.Key]map[string]string{} // the slow twin
		for range rapid.IntRange(1, 12).Draw(rt, "writes") {
			cm := configMap(rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "name"), "")
			cm.Namespace = rapid.SampledFrom([]string{"n1", "n2"}).Draw(rt, "namespace")
			cm.Labels = some.Draw(rt, "labels")
			at := api.RefTo(configmaps, cm)
			var err error
			switch _, there := labels[at.Key()]; {
			case !there:
				_, err = s.Create(t.Context(), configmaps, cm, store.WriteOptions{})
				labels[at.Key()] = cm.Labels
			case rapid.Bool().Draw(rt, "delete"):
				_, err = s.Delete(t.Context(), at, store.WriteOptions{}, nil)
				delete(labels, at.Key())
			default:
				_, err = s.Update(t.Context(), at, store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
					return store.Outcome{Object: cm}, nil
				})
				labels[at.Key()] = cm.Labels
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		for _, namespace := range []string{"", "n1", "n2"} {
			for _, value := range []string{"a=1", "a=", "b=2", "c=1"} {
				k, v, _ := strings.Cut(value, "=")
				want := 0
				for key, m := range labels {
					if got, ok := m[k]; ok && got == v && (namespace == "" || key.Namespace == namespace) {
						want++
					}
				}
				list, err := s.List(t.Context(), store.Query{Resource: configmaps, Namespace: namespace, Index: api.IndexLabel, Value: value}, store.ListOptions{})
				if err != nil || len(list.Items) != want {
					rt.Errorf("%q in %q finds %d objects, %v; want %d of %v", value, namespace, len(list.Items), err, want, labels)
				}
			}
		}
	})
}
