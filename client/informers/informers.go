// Package informers is client-go's informer factory over a client's view: for
// libraries that ask for one. There is no reflector, no second copy and no
// resync: what an informer's store and listers show is the view itself, and its
// handlers are told what the view's subscribers are told.
//
// # Who owns an object
//
// Whatever comes out of a store, a lister or a handler is frozen: it is shared
// with every other reader.
package informers

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// Factory makes one informer for each kind that is asked for. Its methods may
// be called from any goroutine.
type Factory struct {
	groups
	registry *api.Registry
	view     client.View

	mu        sync.Mutex
	informers map[*api.Resource]*Informer
	started   map[*api.Resource]bool
	shut      bool
	running   sync.WaitGroup
}

var _ informers.SharedInformerFactory = (*Factory)(nil)

// New makes a factory of informers over a view of the kinds of a registry.
func New(registry *api.Registry, view client.View) *Factory {
	f := &Factory{
		registry: registry, view: view,
		informers: map[*api.Resource]*Informer{}, started: map[*api.Resource]bool{},
	}
	f.own = f
	return f
}

// InformerFor gives the informer of an object's kind; how a reflector would
// have made it does not matter. It panics for a Go type that no kind is held
// in: that is a mistake of the programmer.
func (f *Factory) InformerFor(obj runtime.Object, _ internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	r := f.registry.Of(obj)
	if r == nil || reflect.TypeOf(r.New()) != reflect.TypeOf(obj) {
		panic(fmt.Sprintf("informers: no kind is held as %T", obj))
	}
	return f.informer(r)
}

func (f *Factory) informer(r *api.Resource) *Informer {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.informers[r]
	if i == nil {
		i = newInformer(r, f.view)
		f.informers[r] = i
	}
	return i
}

// ForResource gives the informer of a resource that is held in the version
// asked for.
func (f *Factory) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	served := f.registry.ByGVR(gvr)
	if served == nil {
		return nil, fmt.Errorf("no informer found for %v", gvr)
	}
	kinds, _, err := f.registry.Scheme().ObjectKinds(served.New())
	if err != nil {
		return nil, fmt.Errorf("kind of %v: %w", gvr, err)
	}
	for _, kind := range kinds {
		if kind.GroupVersion() == gvr.GroupVersion() {
			return generic{f.informer(served.Resource), gvr.GroupResource()}, nil
		}
	}
	return nil, fmt.Errorf("no informer found for %v: it is held as %v", gvr, kinds)
}

type generic struct {
	informer *Informer
	resource schema.GroupResource
}

func (g generic) Informer() cache.SharedIndexInformer { return g.informer }

func (g generic) Lister() cache.GenericLister {
	return cache.NewGenericLister(g.informer.GetIndexer(), g.resource)
}

// InformerName is nil: informers without a cache have no metrics.
func (f *Factory) InformerName() *cache.InformerName { return nil }

// Start runs the informers that were asked for and do not run yet, until stop
// is closed.
func (f *Factory) Start(stop <-chan struct{}) { f.start(func(i *Informer) { i.Run(stop) }) }

// StartWithContext is Start until a context ends.
func (f *Factory) StartWithContext(ctx context.Context) {
	f.start(func(i *Informer) { i.RunWithContext(ctx) })
}

func (f *Factory) start(run func(*Informer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return
	}
	for r, i := range f.informers {
		if !f.started[r] {
			f.started[r] = true
			f.running.Go(func() { run(i) })
		}
	}
}

// Shutdown keeps informers from being started, and returns when those that ran
// have ended.
func (f *Factory) Shutdown() {
	f.mu.Lock()
	f.shut = true
	f.mu.Unlock()
	f.running.Wait()
}

// WaitForCacheSync returns when the view is complete for all informers that
// were started, and says for which it is.
func (f *Factory) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	ctx, cancel := untilClosed(stop)
	defer cancel()
	return f.WaitForCacheSyncWithContext(ctx).Synced
}

// WaitForCacheSyncWithContext is WaitForCacheSync until a context ends.
func (f *Factory) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	f.mu.Lock()
	var waiting []*Informer
	for r, i := range f.informers {
		if f.started[r] {
			waiting = append(waiting, i)
		}
	}
	f.mu.Unlock()
	result := cache.SyncResult{Synced: map[reflect.Type]bool{}}
	for _, i := range waiting {
		select {
		case <-i.synced:
		case <-ctx.Done():
			result.Err = context.Cause(ctx)
		}
		result.Synced[reflect.TypeOf(i.row.New())] = i.HasSynced()
	}
	return result
}

// untilClosed is a context that ends when stop is closed.
func untilClosed(stop <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
