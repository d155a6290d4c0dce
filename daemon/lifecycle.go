package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// lifecycle runs parts: each registers how it runs and how it is cleaned up
// after. The first part that fails ends all; everything is then undone in
// reverse order of registration.
//
//	start ─▶ running ──failure or end of context──▶ stopping ─▶ stopped
//
// A part is started by its constructor, before it registers here.
type lifecycle struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	parts []*part
}

type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	stop   func() error
}

func newLifecycle(ctx context.Context) *lifecycle {
	l := &lifecycle{}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// run lets a part run in the background. Its context ends when its turn to stop
// has come, not earlier: parts that it stands on are still there.
func (l *lifecycle) run(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.ctx))
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	l.add(p)
	go func() {
		defer close(p.done)
		err := f(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			l.cancel(fmt.Errorf("%s: %w", name, err))
		default:
			l.cancel(fmt.Errorf("%s ended unexpectedly", name))
		}
	}()
}

// running says why not all the parts whose names begin so run in the background:
// one has ended, or none has started. Nil: they run.
func (l *lifecycle) running(prefix string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := false
	for _, p := range l.parts {
		if p.done == nil || !strings.HasPrefix(p.name, prefix) {
			continue
		}
		found = true
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended", p.name)
		default:
		}
	}
	if !found {
		return errors.New("not started")
	}
	return nil
}

// cleanup has f called when the turn of this place has come.
func (l *lifecycle) cleanup(name string, f func() error) {
	l.add(&part{name: name, stop: f})
}

func (l *lifecycle) add(p *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, p)
}

// wait returns when the context has ended or a part has failed: nil for the
// former.
func (l *lifecycle) wait() error {
	<-l.ctx.Done()
	if err := context.Cause(l.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// stop ends all parts, the last one first, and answers with what went wrong.
func (l *lifecycle) stop() error {
	l.cancel(nil)
	l.mu.Lock()
	parts := l.parts
	l.parts = nil
	l.mu.Unlock()
	var errs []error
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		if p.cancel != nil {
			p.cancel()
			<-p.done
		}
		if p.stop != nil {
			if err := p.stop(); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
			}
		}
	}
	return errors.Join(errs...)
}
