package fake

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// told is one thing that the caller of Events is told.
type told func(handle func(*cri.ContainerEventResponse), reconnected, lost func())

// watcher is one Events call: an unbounded queue, so that emitting under the
// runtime's lock never blocks.
type watcher struct {
	mu    sync.Mutex
	queue []told
	wake  chan struct{}
}

func (w *watcher) push(f told) {
	w.mu.Lock()
	w.queue = append(w.queue, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// emit sends the state of a pod after something happened to the container (or
// sandbox) id. r.mu is held.
func (r *Runtime) emit(id, sandboxID string, kind cri.ContainerEventType) {
	e := &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: r.now()}
	if s := r.sandboxes[sandboxID]; s != nil {
		e.PodSandboxStatus = proto.Clone(s.status).(*cri.PodSandboxStatus)
	}
	for _, c := range r.containers {
		if c.sandbox == sandboxID {
			e.ContainersStatuses = append(e.ContainersStatuses, proto.Clone(c.status).(*cri.ContainerStatus))
		}
	}
	if r.silent {
		return
	}
	for _, w := range r.watchers {
		w.push(func(handle func(*cri.ContainerEventResponse), _, _ func()) { handle(e) })
	}
}

// Silence loses all events while it is on, as a broken connection does.
func (r *Runtime) Silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = on
}

// Reconnect makes every Events call tell that it may have lost events.
func (r *Runtime) Reconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watchers {
		w.push(func(_ func(*cri.ContainerEventResponse), reconnected, _ func()) { reconnected() })
	}
}

// Disconnect makes every Events call tell that the runtime went away.
func (r *Runtime) Disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watchers {
		w.push(func(_ func(*cri.ContainerEventResponse), _, lost func()) { lost() })
	}
}

// Events delivers until the context ends. It is connected at once, and tells so
// as a connection does.
func (r *Runtime) Events(ctx context.Context, handle func(*cri.ContainerEventResponse), reconnected, lost func()) error {
	w := &watcher{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.next++
	key := r.next
	r.watchers[key] = w
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, key)
		r.mu.Unlock()
	}()
	reconnected()
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, f := range queue {
			f(handle, reconnected, lost)
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
	}
}
