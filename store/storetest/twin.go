package storetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// testTwin does random writes to a store and to a map, and compares what both
// show: now, in the past, through indexes, and through a watch that is cut and
// resumed.
func testTwin(t *testing.T, newEngine func(t *testing.T) store.Engine) {
	s := newSuite(t, newEngine(t), store.Options{})
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		tw := &twin{suite: s, namespace: fmt.Sprint("run-", runs), now: map[string]state{}}
		tw.cursor = s.Revision()
		rt.Repeat(map[string]func(*rapid.T){
			"create": tw.create,
			"update": tw.update,
			"delete": tw.remove,
			"batch":  tw.batch,
			"resume": tw.resume,
			"past":   tw.pastList,
			"":       tw.compare,
		})
		tw.resume(rt)
	})
}

type state struct{ value, color string }

type twin struct {
	*suite
	namespace string
	now       map[string]state
	past      []moment // of which the first few are still asked for
	cursor    string   // where the watch was cut
	watched   map[string]state
}

type moment struct {
	revision string
	state    map[string]state
}

var (
	genName  = rapid.SampledFrom([]string{"a", "b", "c", "d-e", "d.e", "d"})
	genColor = rapid.SampledFrom([]string{"red", "blue", ""})
	genValue = rapid.StringMatching("[a-z]{1,3}")
)

func (tw *twin) object(rt *rapid.T) (string, state, api.Object) {
	name, st := genName.Draw(rt, "name"), state{genValue.Draw(rt, "value"), genColor.Draw(rt, "color")}
	cm := configMap(tw.namespace, name, st.value)
	if st.color != "" {
		cm.Labels = map[string]string{"color": st.color}
	}
	return name, st, cm
}

func (tw *twin) wrote() {
	tw.past = append(tw.past, moment{tw.Revision(), maps.Clone(tw.now)})
}

func (tw *twin) create(rt *rapid.T) {
	name, st, obj := tw.object(rt)
	_, err := tw.Create(tw.ctx, tw.configmaps, obj, store.WriteOptions{})
	if _, there := tw.now[name]; there {
		if !apierrors.IsAlreadyExists(err) {
			rt.Fatalf("create of what exists: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	tw.now[name] = st
	tw.wrote()
}

func (tw *twin) change(rt *rapid.T) (string, state, store.Write) {
	name, st, obj := tw.object(rt)
	return name, st, store.Write{
		Ref: tw.ref(tw.namespace, name),
		Change: func(cur api.Object) (store.Outcome, error) {
			if cur == nil {
				return store.Outcome{}, apierrors.NewNotFound(tw.configmaps.GroupResource(), name)
			}
			return store.Outcome{Object: obj.DeepCopyObject().(api.Object)}, nil
		},
	}
}

func (tw *twin) settle(rt *rapid.T, name string, st state, err error) {
	if _, there := tw.now[name]; !there {
		if !apierrors.IsNotFound(err) {
			rt.Fatalf("update of nothing: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	tw.now[name] = st
}

func (tw *twin) update(rt *rapid.T) {
	name, st, w := tw.change(rt)
	_, err := tw.Update(tw.ctx, w.Ref, w.Options, w.Change)
	tw.settle(rt, name, st, err)
	tw.wrote()
}

func (tw *twin) remove(rt *rapid.T) {
	name := genName.Draw(rt, "name")
	_, err := tw.Delete(tw.ctx, tw.ref(tw.namespace, name), store.WriteOptions{}, nil)
	if _, there := tw.now[name]; !there {
		if !apierrors.IsNotFound(err) {
			rt.Fatalf("delete of nothing: %v", err)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	delete(tw.now, name)
	tw.wrote()
}

// batch has each name once: within a batch the order is not kept.
func (tw *twin) batch(rt *rapid.T) {
	var ws []store.Write
	var settle []func(error)
	used := map[string]bool{}
	for range rapid.IntRange(1, 6).Draw(rt, "writes") {
		name, st, w := tw.change(rt)
		if used[name] {
			continue
		}
		used[name] = true
		_, there := tw.now[name]
		if there && rapid.Bool().Draw(rt, "delete") {
			w.Change = func(api.Object) (store.Outcome, error) { return store.Outcome{Delete: true}, nil }
			settle = append(settle, func(err error) {
				if err != nil {
					rt.Fatal(err)
				}
				delete(tw.now, name)
			})
		} else {
			settle = append(settle, func(err error) { tw.settle(rt, name, st, err) })
		}
		ws = append(ws, w)
	}
	for i, r := range tw.Batch(tw.ctx, ws) {
		settle[i](r.Err)
	}
	tw.wrote()
}

func (tw *twin) shown(items []api.Object) map[string]state {
	out := map[string]state{}
	for _, obj := range items {
		out[obj.GetName()] = state{valueOf(obj), obj.GetLabels()["color"]}
	}
	return out
}

func (tw *twin) query() store.Query {
	return store.Query{Resource: tw.configmaps, Namespace: tw.namespace}
}

func (tw *twin) compare(rt *rapid.T) {
	l, err := tw.List(tw.ctx, tw.query(), store.ListOptions{})
	if err != nil {
		rt.Fatal(err)
	}
	if got := tw.shown(l.Items); !maps.Equal(got, tw.now) {
		rt.Fatalf("the store shows %v, want %v", got, tw.now)
	}
	q := tw.query()
	q.Index, q.Value = IndexColor, "red"
	red, err := tw.List(tw.ctx, q, store.ListOptions{})
	if err != nil {
		rt.Fatal(err)
	}
	want := maps.Clone(tw.now)
	maps.DeleteFunc(want, func(_ string, st state) bool { return st.color != "red" })
	if got := tw.shown(red.Items); !maps.Equal(got, want) {
		rt.Fatalf("the index shows %v, want %v", got, want)
	}
}

// pastList pages through an earlier state.
func (tw *twin) pastList(rt *rapid.T) {
	if len(tw.past) == 0 {
		return
	}
	m := rapid.SampledFrom(tw.past).Draw(rt, "moment")
	o := store.ListOptions{ResourceVersion: m.revision, Limit: rapid.Int64Range(1, 4).Draw(rt, "limit")}
	var items []api.Object
	for {
		l, err := tw.List(tw.ctx, tw.query(), o)
		if err != nil {
			rt.Fatal(err)
		}
		items = append(items, l.Items...)
		if l.Continue == "" {
			break
		}
		o = store.ListOptions{Continue: l.Continue, Limit: o.Limit}
	}
	if got := tw.shown(items); !maps.Equal(got, m.state) {
		rt.Fatalf("at %s the store shows %v, want %v", m.revision, got, m.state)
	}
	if !slices.IsSortedFunc(items, func(a, b api.Object) int { return compareNames(a, b) }) {
		rt.Fatalf("pages out of order")
	}
}

func compareNames(a, b api.Object) int {
	switch {
	case a.GetName() < b.GetName():
		return -1
	case a.GetName() > b.GetName():
		return 1
	}
	return 0
}

// resume reads what the watch has to say since it was cut, up to now.
func (tw *twin) resume(rt *rapid.T) {
	if tw.watched == nil {
		tw.watched = map[string]state{}
	}
	w, err := tw.Watch(tw.ctx, tw.query(), store.WatchOptions{ResourceVersion: tw.cursor})
	if err != nil {
		rt.Fatal(err)
	}
	defer w.Stop()
	for !maps.Equal(tw.watched, tw.now) {
		events, err := w.Next(tw.ctx)
		if err != nil {
			rt.Fatalf("the watch has led to %v, want %v: %v", tw.watched, tw.now, err)
		}
		for _, ev := range events {
			name := ev.Object.GetName()
			_, known := tw.watched[name]
			switch ev.Type {
			case "DELETED":
				if !known {
					rt.Fatalf("%s deleted, which was not there", name)
				}
				delete(tw.watched, name)
			case "ADDED", "MODIFIED":
				if known != (ev.Type == "MODIFIED") {
					rt.Fatalf("%s %s, known %v", ev.Type, name, known)
				}
				tw.watched[name] = tw.shown([]api.Object{ev.Object})[name]
			}
			tw.cursor = ev.Object.GetResourceVersion()
		}
	}
}
