package informers

import (
	"sync"

	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
)

// notice is one event of a handler's queue: an addition without old, a deletion
// without new, and with neither the end of the objects that there were.
type notice struct {
	old, new api.Object
	initial  bool
}

// registration is one handler with its queue.
type registration struct {
	informer *Informer
	handler  cache.ResourceEventHandler
	gone     chan struct{} // closed when nothing is to be told any more
	synced   chan struct{} // closed when the handler has heard of all there was

	wake    chan struct{}
	mu      sync.Mutex
	listed  bool // what comes now was not there from the beginning
	pending []notice
}

// HasSynced says that the handler has been told of every object that there was
// when it was added.
func (r *registration) HasSynced() bool { return closed(r.synced) }

// HasSyncedChecker is HasSynced to wait for.
func (r *registration) HasSyncedChecker() cache.DoneChecker {
	return done{r.informer.row.Plural + " handler", r.synced}
}

// run passes on what the view tells until there is nobody to tell it to.
func (r *registration) run() {
	select {
	case <-r.informer.synced:
	case <-r.gone:
		return
	}
	defer r.informer.view.Subscribe(r.informer.row, r.push)()
	r.push(nil, nil)
	for {
		for _, n := range r.take() {
			if closed(r.gone) {
				return
			}
			r.deliver(n)
		}
		select {
		case <-r.wake:
		case <-r.gone:
			return
		}
	}
}

func (r *registration) push(old, new api.Object) {
	r.mu.Lock()
	r.pending = append(r.pending, notice{old, new, !r.listed})
	if old == nil && new == nil {
		r.listed = true
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *registration) take() []notice {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.pending
	r.pending = nil
	return all
}

func (r *registration) deliver(n notice) {
	switch {
	case n.old == nil && n.new == nil:
		close(r.synced)
	case n.old == nil:
		r.handler.OnAdd(n.new, n.initial)
	case n.new == nil:
		r.handler.OnDelete(n.old)
	default:
		r.handler.OnUpdate(n.old, n.new)
	}
}
