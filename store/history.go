package store

import (
	"context"
	"errors"
	"strings"
)

// history is a watcher's own stream of the engine's history: for one whose
// version is older than the ring.
type history struct {
	stream Stream
	order  slotter
	until  int64 // revision from which on the ring has everything
	recs   []*record
}

// openHistory begins at the revision of a version: its first writes may have
// been seen, later ones not.
func (w *Watcher) openHistory(ctx context.Context) error {
	s := w.store
	from := (w.cursor + 1) / slots
	// The stream reports what is compacted only when it is read; asking now
	// lets the watch be refused instead of broken off.
	_, err := s.engine.Range(ctx, RangeRequest{Start: w.sel.table.prefix, Revision: from})
	if err != nil && !errors.Is(err, ErrFutureRevision) {
		return w.historyError(ctx, err)
	}
	stream, err := s.engine.Watch(w.life, from, true)
	if err != nil {
		return w.historyError(ctx, err)
	}
	w.history = &history{stream: stream, until: s.snap.Load().revision}
	return nil
}

func (w *Watcher) historyError(ctx context.Context, err error) error {
	rv := w.cursor
	var gone *CompactedError
	var value *ValueError
	switch {
	case errors.As(err, &value):
		// Written with a key that is not in use any more: gone, like what is
		// compacted. Now is where to begin again.
		return errTooOld(rv, lastOf(w.store.snap.Load().revision))
	case errors.As(err, &gone):
		return errTooOld(rv, lastOf(gone.Compacted))
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errRead("watch from the history", err)
}

// readHistory takes the next events from the engine, until the ring has what
// follows.
func (w *Watcher) readHistory(ctx context.Context) error {
	h := w.history
	events, err := h.stream.Next(ctx)
	if err != nil {
		return w.historyError(ctx, err)
	}
	for _, ev := range events {
		r, err := w.historic(ev)
		if err != nil {
			return errRead("watch from the history", err)
		}
		if r != nil && r.rv > w.cursor {
			w.tell(r)
		}
	}
	seen := events[len(events)-1].ModRevision
	w.cursor = max(w.cursor, lastOf(seen))
	if seen < h.until {
		return nil
	}
	// The ring may have moved on meanwhile.
	if w.sel.table.tooOld(w.lane, lastOf(seen)) {
		h.until = w.store.snap.Load().revision
		return nil
	}
	h.stream.Close()
	w.history = nil
	return nil
}

// historic makes a record of a raw event, or nil if it is another resource's.
// It goes through all of them, as the places of deletions depend on the writes
// before them.
func (w *Watcher) historic(ev RawEvent) (*record, error) {
	t, key := w.store.locate(ev.Key)
	if t == nil {
		return nil, nil
	}
	mine := t == w.sel.table && strings.HasPrefix(key, w.sel.prefix)
	r := &record{}
	if ev.Delete {
		r.rv = w.history.order.deletion(ev.ModRevision)
	} else {
		e, err := t.entry(key, ev.KV)
		if err != nil {
			return nil, err
		}
		w.history.order.written(e)
		r.rv, r.cur = e.rv, e
	}
	if !mine {
		return nil, nil
	}
	if ev.Prev != nil {
		var err error
		if r.old, err = t.entry(key, *ev.Prev); err != nil {
			return nil, err
		}
	}
	if r.old == nil && r.cur == nil {
		return nil, nil
	}
	return r, nil
}
