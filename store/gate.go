package store

import (
	"context"
	"sync"
	"time"
)

// gate lets goroutines wait for a revision.
type gate struct {
	mu      sync.Mutex
	reached int64
	waiting map[int64]chan struct{} // closed when the revision is reached
	broken  error                   // set once: it will never be reached
}

// advance opens the gate up to a revision.
func (g *gate) advance(revision int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reached = max(g.reached, revision)
	for r, ch := range g.waiting {
		if r <= revision {
			close(ch)
			delete(g.waiting, r)
		}
	}
}

// fail ends all waiting, now and later, with an error.
func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken == nil {
		g.broken = err
	}
	for r, ch := range g.waiting {
		close(ch)
		delete(g.waiting, r)
	}
}

// wait returns once the revision is reached, or with an error.
func (g *gate) wait(ctx context.Context, revision int64) error {
	_, err := g.waitUntil(ctx, revision, nil)
	return err
}

// waitUntil is wait with a time limit: it may answer late, with no error.
func (g *gate) waitUntil(ctx context.Context, revision int64, limit <-chan time.Time) (late bool, err error) {
	g.mu.Lock()
	for g.reached < revision {
		if g.broken != nil {
			defer g.mu.Unlock()
			return false, g.broken
		}
		ch := g.waiting[revision]
		if ch == nil {
			if g.waiting == nil {
				g.waiting = map[int64]chan struct{}{}
			}
			ch = make(chan struct{})
			g.waiting[revision] = ch
		}
		g.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-limit:
			return true, nil
		}
		g.mu.Lock()
	}
	g.mu.Unlock()
	return false, nil
}

// err is why nothing more will be reached, or nil.
func (g *gate) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broken
}
