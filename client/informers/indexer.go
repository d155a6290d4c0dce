package informers

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// indexer shows a view as client-go's store. Objects are looked up by namespace
// in the view's own order; by any other index, which nobody keeps here, by going
// through all objects of the kind.
type indexer struct {
	row  *api.Resource
	view client.View

	mu       sync.Mutex
	indexers cache.Indexers // replaced, never written to
}

var _ cache.Indexer = (*indexer)(nil)

func newIndexer(r *api.Resource, view client.View) *indexer {
	return &indexer{row: r, view: view, indexers: cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}}
}

// errReadOnly answers whoever would write to the copy that all read.
var errReadOnly = errors.New("a view is read-only: write through a client")

func (x *indexer) Add(any) error               { return errReadOnly }
func (x *indexer) Update(any) error            { return errReadOnly }
func (x *indexer) Delete(any) error            { return errReadOnly }
func (x *indexer) Replace([]any, string) error { return errReadOnly }

// Resync has nothing to do.
func (x *indexer) Resync() error { return nil }

// Bookmark has nothing to note: the view knows how far it is.
func (x *indexer) Bookmark(string) {}

// LastStoreSyncResourceVersion is empty, as the informer's.
func (x *indexer) LastStoreSyncResourceVersion() string { return "" }

func (x *indexer) List() []any { return collect(x.view.List(x.row, "")) }

func (x *indexer) ListKeys() []string { return keys(x.view.List(x.row, "")) }

func (x *indexer) Get(obj any) (any, bool, error) {
	key, err := cache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		return nil, false, cache.KeyError{Obj: obj, Err: err}
	}
	return x.GetByKey(key)
}

func (x *indexer) GetByKey(key string) (any, bool, error) {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return nil, false, err
	}
	obj := x.view.Get(x.row, api.Key{Namespace: namespace, Name: name})
	if obj == nil {
		return nil, false, nil
	}
	return obj, true, nil
}

// AddIndexers adds further ways to look objects up.
func (x *indexer) AddIndexers(more cache.Indexers) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := maps.Clone(x.indexers)
	for name, index := range more {
		// Every informer of client-go that has namespaces adds this one.
		if name == cache.NamespaceIndex {
			continue
		}
		if all[name] != nil {
			return fmt.Errorf("indexer conflict: %s", name)
		}
		all[name] = index
	}
	x.indexers = all
	return nil
}

func (x *indexer) GetIndexers() cache.Indexers {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.indexers)
}

func (x *indexer) index(name string) (cache.IndexFunc, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if index := x.indexers[name]; index != nil {
		return index, nil
	}
	return nil, fmt.Errorf("Index with name %s does not exist", name) //nolint:staticcheck // as client-go words it
}

func (x *indexer) Index(name string, obj any) ([]any, error) {
	index, err := x.index(name)
	if err != nil {
		return nil, err
	}
	values, err := index(obj)
	if err != nil {
		return nil, err
	}
	found, err := x.having(name, values)
	return collect(found), err
}

func (x *indexer) ByIndex(name, value string) ([]any, error) {
	found, err := x.having(name, []string{value})
	return collect(found), err
}

func (x *indexer) IndexKeys(name, value string) ([]string, error) {
	found, err := x.having(name, []string{value})
	return keys(found), err
}

func (x *indexer) ListIndexFuncValues(name string) []string {
	index, err := x.index(name)
	if err != nil {
		return nil
	}
	values := sets.New[string]()
	for obj := range x.view.List(x.row, "") {
		if v, err := index(obj); err == nil {
			values.Insert(v...)
		}
	}
	return sets.List(values)
}

// having are the objects with one of some values in an index.
func (x *indexer) having(name string, values []string) (iter.Seq[api.Object], error) {
	index, err := x.index(name)
	if err != nil {
		return none, err
	}
	if name == cache.NamespaceIndex && len(values) == 1 && values[0] != "" {
		if !x.row.Namespaced {
			return none, nil
		}
		return x.view.List(x.row, values[0]), nil
	}
	return func(yield func(api.Object) bool) {
		for obj := range x.view.List(x.row, "") {
			has, err := index(obj)
			if err == nil && slices.ContainsFunc(has, func(v string) bool { return slices.Contains(values, v) }) && !yield(obj) {
				return
			}
		}
	}, nil
}

func none(func(api.Object) bool) {}

func collect(objects iter.Seq[api.Object]) []any {
	var list []any
	for obj := range objects {
		list = append(list, obj)
	}
	return list
}

func keys(objects iter.Seq[api.Object]) []string {
	var list []string
	for obj := range objects {
		list = append(list, cache.MetaObjectToName(obj).String())
	}
	return list
}
