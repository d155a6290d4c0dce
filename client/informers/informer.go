package informers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// Informer tells handlers what happens to the objects of one kind. Each handler
// has a goroutine and a queue of its own, so that none waits for another and
// the view for none; at rest all of them sleep.
//
//	made ──Run──► running ──(stop)──► stopped
//	handlers added before Run hear nothing until then; none can be added after
type Informer struct {
	row     *api.Resource
	view    client.View
	indexer *indexer
	synced  chan struct{} // closed when the view is complete

	mu       sync.Mutex
	state    state
	handlers map[*registration]bool
	pumps    sync.WaitGroup
}

type state int

const (
	made state = iota
	running
	stopped
)

var (
	_ cache.SharedIndexInformer = (*Informer)(nil)
	_ cache.Controller          = (*Informer)(nil)
)

func newInformer(r *api.Resource, view client.View) *Informer {
	return &Informer{
		row: r, view: view, indexer: newIndexer(r, view),
		synced: make(chan struct{}), handlers: map[*registration]bool{},
	}
}

// AddEventHandler tells a handler of every object there is, and then of every
// change.
func (i *Informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == stopped {
		return nil, fmt.Errorf("the informer of %s has stopped already", i.row.Plural)
	}
	r := &registration{informer: i, handler: h, wake: make(chan struct{}, 1), gone: make(chan struct{}), synced: make(chan struct{})}
	i.handlers[r] = true
	if i.state == running {
		i.pumps.Go(r.run)
	}
	return r, nil
}

// AddEventHandlerWithResyncPeriod is AddEventHandler: this informer does no
// resyncs, since nobody can have missed anything.
func (i *Informer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

// AddEventHandlerWithOptions is AddEventHandler, as above.
func (i *Informer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, _ cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

// RemoveEventHandler ends the telling. The handler may still be at the event
// that it has been given.
func (i *Informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	r, ok := handle.(*registration)
	if !ok || r.informer != i {
		return fmt.Errorf("a handler of %s cannot be removed by %T", i.row.Plural, handle)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.handlers[r] {
		delete(i.handlers, r)
		close(r.gone)
	}
	return nil
}

// Run runs the informer until stop is closed.
func (i *Informer) Run(stop <-chan struct{}) {
	ctx, cancel := untilClosed(stop)
	defer cancel()
	i.RunWithContext(ctx)
}

// RunWithContext runs the informer until the context ends, and returns when the
// last handler has returned. It runs once.
func (i *Informer) RunWithContext(ctx context.Context) {
	i.mu.Lock()
	if i.state != made {
		i.mu.Unlock()
		return
	}
	i.state = running
	for r := range i.handlers {
		i.pumps.Go(r.run)
	}
	i.mu.Unlock()
	if i.view.WaitSynced(ctx, i.row) == nil {
		close(i.synced)
		<-ctx.Done()
	}
	i.mu.Lock()
	i.state = stopped
	for r := range i.handlers {
		close(r.gone)
	}
	clear(i.handlers)
	i.mu.Unlock()
	i.pumps.Wait()
}

// HasSynced says that the view is complete.
func (i *Informer) HasSynced() bool { return closed(i.synced) }

// HasSyncedChecker is HasSynced to wait for.
func (i *Informer) HasSyncedChecker() cache.DoneChecker { return done{i.row.Plural, i.synced} }

// IsStopped says that the informer has run.
func (i *Informer) IsStopped() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state == stopped
}

// GetStore shows the view.
func (i *Informer) GetStore() cache.Store { return i.indexer }

// GetIndexer shows the view.
func (i *Informer) GetIndexer() cache.Indexer { return i.indexer }

// AddIndexers adds further ways to look objects up.
func (i *Informer) AddIndexers(more cache.Indexers) error { return i.indexer.AddIndexers(more) }

// GetController is the informer itself: there is nothing below it.
func (i *Informer) GetController() cache.Controller { return i }

// LastSyncResourceVersion is empty: a view is not synced at a version.
func (i *Informer) LastSyncResourceVersion() string { return "" }

// SetWatchErrorHandler takes a handler of errors, which a view has none of.
func (i *Informer) SetWatchErrorHandler(cache.WatchErrorHandler) error { return nil }

// SetWatchErrorHandlerWithContext is SetWatchErrorHandler.
func (i *Informer) SetWatchErrorHandlerWithContext(cache.WatchErrorHandlerWithContext) error {
	return nil
}

// SetTransform is refused: the objects are everybody's.
func (i *Informer) SetTransform(cache.TransformFunc) error {
	return errors.New("objects that all readers share cannot be transformed")
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// done is something to wait for.
type done struct {
	name string
	c    <-chan struct{}
}

func (d done) Name() string          { return d.name }
func (d done) Done() <-chan struct{} { return d.c }
