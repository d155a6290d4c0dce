package controller

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// Runner runs one loop until its context ends.
type Runner struct {
	Loop    Loop
	View    client.View
	Clock   clock.WithTicker
	Log     *slog.Logger
	Workers int // how many keys at once; 0 means 1
	// Metrics measure the loop's queue under the name Queue; nil: nothing does.
	Metrics *Metrics
	Queue   string
	// Registry tells when other kinds are served: the loop is asked for its sources
	// again then, and woken if it is a Waiter. Nil: they stay as they are.
	Registry *api.Registry
}

// Run subscribes to the loop's sources, waits until the view has them, and
// works.
func (r *Runner) Run(ctx context.Context) error {
	queue := NewQueue(r.Clock)
	queue.metrics = r.Metrics.of(r.Queue, queue)
	heard := &listener{view: r.View, queue: queue}
	defer heard.close()
	if w, ok := r.Loop.(Woken); ok {
		defer w.Listen(queue.Add)()
	}
	var changed <-chan struct{}
	if r.Registry != nil {
		changed = r.Registry.Changed()
	}
	if err := r.View.WaitSynced(ctx, heard.listen(r.Loop.Sources())...); err != nil {
		return err
	}
	var workers sync.WaitGroup
	if changed != nil {
		workers.Go(func() { r.followKinds(ctx, changed, heard) })
	}
	for range max(r.Workers, 1) {
		workers.Go(func() {
			for {
				key, err := queue.Next(ctx)
				if err != nil {
					return
				}
				r.step(ctx, queue, key)
			}
		})
	}
	workers.Wait()
	return ctx.Err()
}

// followKinds keeps a loop listening to all kinds that there are.
func (r *Runner) followKinds(ctx context.Context, changed <-chan struct{}, heard *listener) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		changed = r.Registry.Changed()
		heard.listen(r.Loop.Sources())
		if w, ok := r.Loop.(Waiter); ok {
			for _, key := range w.Waiting() {
				heard.queue.Add(key)
			}
		}
	}
}

// listener has a queue woken by a loop's sources. It belongs to one goroutine at
// a time.
type listener struct {
	view  client.View
	queue *Queue
	to    []subscription
}

type subscription struct {
	to     *api.Resource
	cancel func()
}

// listen makes sources those that are listened to, and answers with their
// resources. A resource may have several sources; it is known by its row.
func (l *listener) listen(sources []Source) []*api.Resource {
	wanted := map[*api.Resource]bool{}
	var resources []*api.Resource
	for _, s := range sources {
		wanted[s.Resource] = true
		resources = append(resources, s.Resource)
	}
	had := map[*api.Resource]bool{}
	l.to = slices.DeleteFunc(l.to, func(s subscription) bool {
		had[s.to] = true
		if !wanted[s.to] {
			s.cancel()
		}
		return !wanted[s.to]
	})
	for _, s := range sources {
		if had[s.Resource] {
			continue
		}
		keys := s.Keys
		if keys == nil {
			keys = own
		}
		l.to = append(l.to, subscription{s.Resource, l.view.Subscribe(s.Resource, func(old, new api.Object) {
			for _, k := range keys(old, new) {
				l.queue.Add(k)
			}
		})})
	}
	return resources
}

func (l *listener) close() {
	for _, s := range l.to {
		s.cancel()
	}
}

// own wakes the changed object itself.
func own(old, new api.Object) []api.Key {
	o := new
	if o == nil {
		o = old
	}
	return []api.Key{{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

func (r *Runner) step(ctx context.Context, queue *Queue, key api.Key) {
	log := r.Log.With("loop", r.Loop.Name(), "key", key.String())
	failed := true
	var after time.Duration
	defer func() {
		if p := recover(); p != nil {
			log.Error("loop panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		queue.Done(key, after, failed)
	}()
	d, err := r.Loop.Step(ctx, key, r.Clock.Now())
	switch {
	case err == nil:
		failed, after = false, d
	case ctx.Err() != nil:
	case apierrors.IsConflict(err):
		log.Debug("written by somebody else meanwhile", "err", err)
	default:
		log.Warn("loop failed; it is tried again", "err", err)
	}
}
