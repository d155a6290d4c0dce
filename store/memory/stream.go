package memory

import (
	"context"
	"sort"

	"hansa.dev/hansa/store"
)

// Watch implements store.Engine.
func (e *Engine) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	life, end := context.WithCancel(ctx)
	return &stream{engine: e, next: from, prev: prev, life: life, end: end}, e.check(ctx)
}

type stream struct {
	engine *Engine
	next   int64 // revision
	prev   bool
	life   context.Context
	end    context.CancelFunc
}

// maxBatch bounds the events that Next hands over at once, but for those of one
// revision, which stay together.
const maxBatch = 1000

// Next implements store.Stream.
func (s *stream) Next(ctx context.Context) ([]store.RawEvent, error) {
	for {
		events, changed, err := s.poll(ctx)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.life.Done():
			return nil, store.ErrClosed
		case <-s.engine.closed:
			return nil, store.ErrClosed
		}
	}
}

func (s *stream) poll(ctx context.Context) ([]store.RawEvent, <-chan struct{}, error) {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return nil, nil, err
	}
	if s.next <= e.compacted {
		return nil, nil, &store.CompactedError{Compacted: e.compacted}
	}
	i := sort.Search(len(e.log), func(i int) bool { return e.log[i].ModRevision >= s.next })
	j := min(i+maxBatch, len(e.log))
	for j > i && j < len(e.log) && e.log[j].ModRevision == e.log[j-1].ModRevision {
		j++
	}
	events := append([]store.RawEvent(nil), e.log[i:j]...)
	if len(events) > 0 {
		s.next = events[len(events)-1].ModRevision + 1
	}
	if !s.prev {
		for k := range events {
			events[k].Prev = nil
		}
	}
	return events, e.changed, nil
}

// Close implements store.Stream.
func (s *stream) Close() { s.end() }
