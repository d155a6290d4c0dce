// Package authtest is a cluster's objects for tests of authentication,
// authorization and admission: the real store, in memory.
package authtest

import (
	"context"
	"testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// View is the store's view, with the registry of its kinds.
type View struct {
	*store.View
	*api.Registry

	t     testing.TB
	store *store.Store
}

// New is a view of the given objects. It ends with the test.
func New(t testing.TB, objects ...api.Object) *View {
	t.Helper()
	registry := kinds.Registry()
	s, err := store.Open(t.Context(), memory.New(memory.Options{}), registry, store.Options{DetectMutations: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	v := &View{View: s.View(), Registry: registry, t: t, store: s}
	for _, obj := range objects {
		v.Put(obj)
	}
	return v
}

// Put stores a copy of an object in place of the one of its name. When it
// returns the view shows it and subscribers have been called.
func (v *View) Put(obj api.Object) {
	v.t.Helper()
	obj = obj.DeepCopyObject().(api.Object)
	_, err := v.store.Update(context.Background(), api.RefTo(v.Of(obj), obj), store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
		return store.Outcome{Object: obj}, nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	v.settle(v.Of(obj))
}

// settle waits until subscribers have been called for all writes so far: the
// store tells them under the lock that a new subscription takes.
func (v *View) settle(r *api.Resource) { v.Subscribe(r, func(_, _ api.Object) {})() }

// Remove takes away the object of that name.
func (v *View) Remove(obj api.Object) {
	v.t.Helper()
	if _, err := v.store.Delete(context.Background(), api.RefTo(v.Of(obj), obj), store.WriteOptions{}, nil); err != nil {
		v.t.Fatal(err)
	}
	v.settle(v.Of(obj))
}
