package controller_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	testclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/dependencies"
	"hansa.dev/hansa/apiserver/admission/namespacelifecycle"
	"hansa.dev/hansa/apiserver/admission/priority"
	"hansa.dev/hansa/apiserver/auth"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/apiserver/auth/rbac"
	"hansa.dev/hansa/apiserver/auth/review"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/ipaddress"
	"hansa.dev/hansa/controller/servicecidr"
)

// world is a cluster without nodes: the real API with its real roles over a
// store in memory, loops that are stepped one key at a time, and a clock that
// the test moves.
type world struct {
	tester
	h     *request.Handler
	api   client.Interface // everything is allowed
	clock *testclock.FakeClock
	loops []*driver
	// events are told from several goroutines.
	telling sync.Mutex
	events  []string
	// pick chooses among n loops with work; the first when nil.
	pick func(n int) int
}

// driver steps one loop, as a runner would.
type driver struct {
	world  *world
	build  func(client.Interface, events.Recorder) controller.Loop
	client *flaky
	loop   controller.Loop
	ready  []api.Key
	later  map[api.Key]time.Time
	tries  map[api.Key]int
}

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// tester is a test, or one example of a property.
type tester interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

func newWorld(t *testing.T) *world { return newWorldIn(t, t) }

// example is the test of a property while it checks one example, at whose end things
// are cleaned up: a hundred worlds at once would be looked through for mutations.
type example struct {
	testing.TB
	in tester
}

func (e example) Cleanup(f func())         { e.in.Cleanup(f) }
func (e example) Context() context.Context { return e.in.Context() }

// newWorldIn is a world for one example of the properties that t checks.
func newWorldIn(t testing.TB, in tester) *world {
	t.Helper()
	t = example{t, in}
	w := &world{tester: in, clock: testclock.NewFakeClock(epoch)}
	w.h = requesttest.Handler(t, func(c *request.Config) {
		view := c.Store.View()
		roles := rbac.New(c.Registry, view)
		t.Cleanup(roles.Close)
		c.Authorizer, c.Clock = auth.Chain{roles}, w.clock
		c.Hooks = map[string]request.Hook{}
		for name, answer := range (&review.Reviewer{Authorizer: c.Authorizer.(auth.Chain), Clock: w.clock}).Funcs() {
			c.Hooks[name] = func(ctx context.Context, info *request.Info, _ api.Object, body runtime.Object, _ bool) (runtime.Object, error) {
				return answer(ctx, info.User, body.(api.Object))
			}
		}
		services, err := alloc.New(c.Store, c.Registry, alloc.Config{Families: []corev1.IPFamily{corev1.IPv4Protocol}, Clock: w.clock})
		if err != nil {
			t.Fatal(err)
		}
		c.Allocators = map[schema.GroupResource]request.Allocator{{Resource: "services"}: services}
		c.Admission = admission.Chain{{Plugin: namespacelifecycle.New(c.Registry, view)}, {Plugin: priority.New(c.Registry, view)}, {Plugin: dependencies.New(c.Registry, view)}}
	})
	w.api = direct.New(w.h, requesttest.Admin, "test")
	for {
		plan, err := bootstrap.Plan(w.h.Registry, w.api.View())
		if err != nil {
			t.Fatal(err)
		}
		if len(plan) == 0 {
			create(w, &networkingv1.ServiceCIDR{
				ObjectMeta: metav1.ObjectMeta{Name: kinds.DefaultServiceCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{serviceRange}},
			})
			return w
		}
		var writes []client.Write
		for _, p := range plan {
			writes = append(writes, client.Write{Resource: p.Resource, Create: p.Create, Update: p.Update})
		}
		for _, r := range w.api.Batch(t.Context(), writes) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
}

// serviceRange is where services get their addresses.
const serviceRange = "10.43.0.0/16"

// run adds a loop, which acts as the service account of its name, or is a part
// of the API server.
func (w *world) run(build func(client.Interface, events.Recorder) controller.Loop) *driver {
	w.Helper()
	name := build(w.api, events.Discard).Name()
	if name == ipaddress.Name || name == servicecidr.DefaultName {
		return w.runAs(requesttest.Admin.GetName(), build, requesttest.Admin.GetGroups()...)
	}
	if name == "taint-eviction-controller" {
		name = "node-controller" // whose part it is
	}
	return w.runAs("system:serviceaccount:kube-system:"+name, build, "system:serviceaccounts", "system:serviceaccounts:kube-system")
}

// runAs adds a loop, which acts as a user.
func (w *world) runAs(name string, build func(client.Interface, events.Recorder) controller.Loop, groups ...string) *driver {
	w.Helper()
	who := &user.DefaultInfo{Name: name, Groups: append(slices.Clone(groups), user.AllAuthenticated)}
	d := &driver{world: w, build: build, client: &flaky{Interface: direct.New(w.h, who, "kube-controller-manager")}, tries: map[api.Key]int{}}
	d.restart()
	w.loops = append(w.loops, d)
	return d
}

// restart makes the loop anew, as a new process would: it knows nothing, and is
// told of everything there is.
func (d *driver) restart() {
	d.client.heal()
	d.loop = d.build(d.client, events.Func(func(_ corev1.ObjectReference, kind, reason, message string) {
		d.world.telling.Lock()
		defer d.world.telling.Unlock()
		d.world.events = append(d.world.events, kind+" "+reason+" "+message)
	}))
	d.ready, d.later = nil, map[api.Key]time.Time{}
	for _, s := range d.loop.Sources() {
		loop := d.loop
		cancel := d.client.View().Subscribe(s.Resource, func(old, new api.Object) {
			if d.loop == loop {
				d.add(keysOf(s, old, new)...)
			}
		})
		d.world.Cleanup(cancel)
	}
}

func keysOf(s controller.Source, old, new api.Object) []api.Key {
	if s.Keys != nil {
		return s.Keys(old, new)
	}
	o := new
	if o == nil {
		o = old
	}
	return []api.Key{{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

func (d *driver) add(keys ...api.Key) {
	for _, k := range keys {
		if !slices.Contains(d.ready, k) {
			d.ready = append(d.ready, k)
		}
	}
}

// mostTries is how often a key may fail in a row before the test does.
const mostTries = 20

// step looks at the first key. A crash starts the loop anew.
func (d *driver) step() {
	w := d.world
	w.Helper()
	key := d.ready[0]
	d.ready = d.ready[1:]
	delete(d.later, key)
	after, err := d.loop.Step(w.Context(), key, w.clock.Now())
	switch {
	case err == nil:
		delete(d.tries, key)
		if after > 0 {
			d.later[key] = w.clock.Now().Add(after)
		}
	case errors.Is(err, errCrashed):
		d.restart()
	default:
		if d.tries[key]++; d.tries[key] > mostTries {
			w.Fatalf("%s: step of %s: %v", d.loop.Name(), key, err)
		}
		if !apierrors.IsConflict(err) {
			w.Logf("%s: step of %s: %v", d.loop.Name(), key, err)
		}
		d.add(key)
	}
}

// mostSteps bounds the steps until nothing is left to do.
const mostSteps = 5000

// settle steps until no loop has a key to look at.
func (w *world) settle() {
	w.Helper()
	for range mostSteps {
		var busy []*driver
		for _, d := range w.loops {
			if len(d.ready) > 0 {
				busy = append(busy, d)
			}
		}
		if len(busy) == 0 {
			return
		}
		i := 0
		if w.pick != nil {
			i = w.pick(len(busy))
		}
		busy[i].step()
	}
	w.Fatalf("the loops do not come to rest")
}

// pass lets time pass, waking the keys that asked for it when it is time.
func (w *world) pass(d time.Duration) {
	w.Helper()
	end := w.clock.Now().Add(d)
	for {
		next := end
		for _, d := range w.loops {
			for _, at := range d.later {
				if at.Before(next) {
					next = at
				}
			}
		}
		if now := w.clock.Now(); next.Before(now) {
			next = now // the clock was put on: what was due meanwhile is due now
		}
		w.clock.SetTime(next)
		for _, d := range w.loops {
			for key, at := range d.later {
				if !at.After(next) {
					d.add(key)
				}
			}
			slices.SortFunc(d.ready, func(a, b api.Key) int { return strings.Compare(a.String(), b.String()) })
		}
		w.settle()
		if !next.Before(end) {
			return
		}
	}
}

// rests checks that the loops write nothing when they look at everything once
// more, now and as new processes.
func (w *world) rests() {
	w.Helper()
	w.settle()
	before := w.h.Store.Revision()
	for _, d := range w.loops {
		for _, s := range d.loop.Sources() {
			for o := range w.api.View().List(s.Resource, "") {
				d.add(keysOf(s, nil, o)...)
				d.add(keysOf(s, o, o)...)
			}
		}
	}
	w.settle()
	for _, d := range w.loops {
		d.restart()
	}
	w.settle()
	if after := w.h.Store.Revision(); after != before {
		w.Errorf("loops at rest wrote: the store went from %s to %s", before, after)
	}
}

func (w *world) row(obj api.Object) *api.Resource { return w.h.Registry.Of(obj) }

// rowOf is the row of a kind.
func rowOf[T api.Object](w *world) *api.Resource {
	for _, r := range w.h.Registry.Resources() {
		if _, ok := r.New().(T); ok {
			return r
		}
	}
	panic(fmt.Sprintf("no row for %s", reflect.TypeFor[T]()))
}

// create stores an object and answers with the stored one.
func create[T api.Object](w *world, obj T) T {
	w.Helper()
	got, err := w.api.Create(w.Context(), w.row(obj), obj, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return got.(T)
}

// get reads an object, or the zero value when there is none.
func get[T api.Object](w *world, namespace, name string) T {
	got, _ := w.api.View().Get(rowOf[T](w), api.Key{Namespace: namespace, Name: name}).(T)
	return got
}

// all lists the objects of a kind in a namespace.
func all[T api.Object](w *world, namespace string) []T {
	var out []T
	for o := range w.api.View().List(rowOf[T](w), namespace) {
		out = append(out, o.(T))
	}
	return out
}

// update changes an object, or the part of it that a subresource shows.
func update[T api.Object](w *world, obj T, subresource string, change func(T)) T {
	w.Helper()
	now, err := w.api.Get(w.Context(), api.RefTo(w.row(obj), obj))
	if err != nil {
		w.Fatal(err)
	}
	next := now.DeepCopyObject().(T)
	change(next)
	got, err := w.api.Update(w.Context(), w.row(obj), next, subresource)
	if err != nil {
		w.Fatal(err)
	}
	return got.(T)
}

// remove deletes an object; what is gone already stays gone.
func remove(w *world, obj api.Object, opts metav1.DeleteOptions) {
	w.Helper()
	if err := w.api.Delete(w.Context(), api.RefTo(w.row(obj), obj), opts); err != nil && !apierrors.IsNotFound(err) {
		w.Fatal(err)
	}
}

// said checks that an event was told, and forgets all.
func (w *world) said(want ...string) {
	w.Helper()
	for _, text := range want {
		if !slices.ContainsFunc(w.events, func(e string) bool { return strings.Contains(e, text) }) {
			w.Errorf("no event %q among\n%s", text, strings.Join(w.events, "\n"))
		}
	}
	w.events = nil
}

// Ages are told by the clock of the API, so a stored time is whole seconds.
func (w *world) stamp() metav1.Time { return metav1.NewTime(w.clock.Now().Truncate(time.Second)) }

// errCrashed is what a loop sees once its process is gone.
var errCrashed = errors.New("the process is gone")

// flaky is a client of a process that dies at a write.
type flaky struct {
	client.Interface
	mu    sync.Mutex
	left  int  // writes until then; negative: it lives
	after bool // dies after the write is done, not before
	dead  bool
	// refuse is the answer to creations, when it is set.
	refuse error
}

// dieAt makes the process die at the n-th write from now, counted from 0.
func (f *flaky) dieAt(n int, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.after, f.dead = n, after, false
}

func (f *flaky) heal() { f.dieAt(-1, false) }

// dying says whether this write does not happen, or is the last one.
func (f *flaky) dying() (before, after bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead:
		return true, false
	case f.left < 0:
		return false, false
	case f.left > 0:
		f.left--
		return false, false
	}
	f.dead = true
	return !f.after, f.after
}

func write[T any](f *flaky, do func() (T, error)) (T, error) {
	before, after := f.dying()
	var none T
	if before {
		return none, errCrashed
	}
	got, err := do()
	if after {
		return none, errCrashed
	}
	return got, err
}

func (f *flaky) Create(ctx context.Context, r *api.Resource, obj api.Object, opts metav1.CreateOptions) (api.Object, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	return write(f, func() (api.Object, error) { return f.Interface.Create(ctx, r, obj, opts) })
}

func (f *flaky) Update(ctx context.Context, r *api.Resource, obj api.Object, subresource string) (api.Object, error) {
	return write(f, func() (api.Object, error) { return f.Interface.Update(ctx, r, obj, subresource) })
}

func (f *flaky) Delete(ctx context.Context, ref api.Ref, opts metav1.DeleteOptions) error {
	_, err := write(f, func() (any, error) { return nil, f.Interface.Delete(ctx, ref, opts) })
	return err
}

func (f *flaky) Patch(ctx context.Context, ref api.Ref, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresource string) (api.Object, error) {
	return write(f, func() (api.Object, error) { return f.Interface.Patch(ctx, ref, kind, patch, opts, subresource) })
}
