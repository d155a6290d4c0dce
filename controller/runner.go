package controller

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
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
}

// Run subscribes to the loop's sources, waits until the view has them, and
// works.
func (r *Runner) Run(ctx context.Context) error {
	queue := NewQueue(r.Clock)
	queue.metrics = r.Metrics.of(r.Queue, queue)
	var resources []*api.Resource
	for _, s := range r.Loop.Sources() {
		keys := s.Keys
		if keys == nil {
			keys = own
		}
		resources = append(resources, s.Resource)
		cancel := r.View.Subscribe(s.Resource, func(old, new api.Object) {
			for _, k := range keys(old, new) {
				queue.Add(k)
			}
		})
		defer cancel()
	}
	if err := r.View.WaitSynced(ctx, resources...); err != nil {
		return err
	}
	var workers sync.WaitGroup
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
