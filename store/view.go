package store

import (
	"context"
	"fmt"
	"iter"

	"hansa.dev/hansa/api"
)

// View is the copy as the loops read it: it has the methods of client.View.
type View struct{ store *Store }

// View gives the copy as the loops read it.
func (s *Store) View() *View { return &View{s} }

// Get is nil when there is no such object.
func (v *View) Get(r *api.Resource, key api.Key) api.Object {
	t := v.store.table(r)
	ref := api.Ref{Resource: r, Namespace: key.Namespace, Name: key.Name}
	if e := v.store.snap.Load().of(t).get(t.key(ref)); e != nil {
		return e.obj
	}
	return nil
}

// List goes through the objects of a namespace ("" for all) in key order, as
// they were when it was called.
func (v *View) List(r *api.Resource, namespace string) iter.Seq[api.Object] {
	t := v.store.table(r)
	view := v.store.snap.Load().of(t)
	prefix := ""
	if namespace != "" && r.Namespaced {
		prefix = namespace + "/"
	}
	return objectsOf(view.scan(prefix, ""))
}

// Size is how many objects of a resource there are, and how many bytes they
// have as stored.
func (v *View) Size(r *api.Resource) (objects int, bytes int64) {
	t := v.store.snap.Load().of(v.store.table(r))
	return t.items.Len(), t.bytes
}

// ByIndex goes through the objects that have a value in an index. It panics
// when the resource has no such index: that is a mistake of the programmer.
func (v *View) ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object] {
	t := v.store.table(r)
	place := t.indexNamed(index)
	if place < 0 {
		panic(fmt.Sprintf("store: %s have no index %q", r.Plural, index))
	}
	return objectsOf(v.store.snap.Load().of(t).scanIndex(place, value, "", ""))
}

func objectsOf(entries iter.Seq[*entry]) iter.Seq[api.Object] {
	return func(yield func(api.Object) bool) {
		for e := range entries {
			if !yield(e.obj) {
				return
			}
		}
	}
}

type subscriber struct {
	table *table
	f     func(old, new api.Object)
}

// Subscribe calls f for every object there is, before it returns, and then for
// every change in revision order: old is nil for an addition, new is nil for a
// deletion. Calls never overlap. The store waits for f: it must return at once,
// and must not call Subscribe, cancel or a write. It is called no more once
// cancel has returned.
func (v *View) Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func()) {
	s := v.store
	sub := &subscriber{s.table(r), f}
	s.applying.Lock()
	defer s.applying.Unlock()
	sub.table.items.Ascend(func(e *entry) bool {
		f(nil, e.obj)
		return true
	})
	if sub.table.subscribers == nil {
		sub.table.subscribers = map[*subscriber]bool{}
	}
	sub.table.subscribers[sub] = true
	return func() {
		s.applying.Lock()
		defer s.applying.Unlock()
		delete(sub.table.subscribers, sub)
	}
}

// notify calls the subscribers. The caller holds s.applying.
func (s *Store) notify(changes []change) {
	for _, c := range changes {
		var old, cur api.Object
		if c.old != nil {
			old = c.old.obj
		}
		if c.cur != nil {
			cur = c.cur.obj
		}
		for sub := range c.table.subscribers {
			sub.f(old, cur)
		}
	}
}

// WaitSynced returns at once: a store has everything from the start.
func (v *View) WaitSynced(ctx context.Context, _ ...*api.Resource) error { return ctx.Err() }
