package store

import (
	"context"
	"errors"
	"time"

	"hansa.dev/hansa/api"
)

// follow keeps the copy up to date until the store is closed. A lost stream is
// opened again where it ended; if history is gone by then, everything is read
// anew.
func (s *Store) follow(ctx context.Context, stream Stream) {
	defer s.running.Done()
	delay := time.Duration(0)
	for {
		before := s.snap.Load().revision
		err := s.drain(ctx, stream)
		stream.Close()
		if ctx.Err() != nil {
			return
		}
		s.lost.Store(true)
		s.opts.Logger.Warn("the store lost its watch and starts another", "revision", s.snap.Load().revision, "error", err)
		if s.snap.Load().revision > before {
			delay = 0
		}
		for stream = nil; stream == nil; {
			if beyondRepair(err) {
				s.fail(err)
				return
			}
			if !s.pause(ctx, delay) {
				return
			}
			delay = min(2*delay+50*time.Millisecond, 2*time.Second)
			stream, err = s.restart(ctx, err)
		}
		s.lost.Store(false)
	}
}

// pause is false when the context ended.
func (s *Store) pause(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		select {
		case <-s.opts.Clock.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// restart opens the stream anew after one that ended with an error.
func (s *Store) restart(ctx context.Context, ended error) (Stream, error) {
	var gone *CompactedError
	if errors.As(ended, &gone) {
		if err := s.reload(ctx); err != nil {
			return nil, errors.Join(ended, err)
		}
	}
	return s.engine.Watch(ctx, s.snap.Load().revision+1, false)
}

func (s *Store) drain(ctx context.Context, stream Stream) error {
	for {
		events, err := stream.Next(ctx)
		if err != nil {
			return err
		}
		if err := s.apply(events); err != nil {
			return err
		}
	}
}

// brokenError is one that trying again will not mend: the copy stays as it is,
// and the store refuses to serve.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func beyondRepair(err error) bool {
	var broken *brokenError
	var value *ValueError
	return errors.As(err, &broken) || errors.As(err, &value)
}

// change is a record with its table.
type change struct {
	table *table
	*record
}

// apply brings events of whole revisions into the copy, in this order: trees,
// snapshot, recent events, subscribers, those who wait for the revision. So
// whoever hears of a change finds it in the copy, and whoever wrote finds it in
// what subscribers keep as well.
func (s *Store) apply(events []RawEvent) error {
	if len(events) == 0 {
		return nil
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	order := &slotter{}
	var changes []change
	for _, ev := range events {
		t, key := s.locate(ev.Key)
		if t == nil {
			continue
		}
		r, err := s.applyOne(t, key, ev, order)
		if err != nil {
			return &brokenError{err}
		}
		if r != nil {
			changes = append(changes, change{t, r})
		}
	}
	revision := events[len(events)-1].ModRevision
	s.expose(revision)
	s.publish(changes)
	s.delivered.Store(revision)
	s.notify(changes)
	s.reached.advance(revision)
	return nil
}

func (s *Store) applyOne(t *table, key string, ev RawEvent, order *slotter) (*record, error) {
	if ev.Delete {
		rv := order.deletion(ev.ModRevision)
		old := t.remove(key, ev.ModRevision)
		if old == nil {
			return nil, nil
		}
		s.check(t, old)
		return &record{rv: rv, old: old, size: old.size}, nil
	}
	e, err := t.entry(key, ev.KV)
	if err != nil {
		return nil, err
	}
	order.written(e)
	s.guard(t, e)
	old := t.put(e)
	if old != nil {
		s.check(t, old)
	}
	size := e.size
	if old != nil {
		size += old.size
	}
	return &record{rv: e.rv, old: old, cur: e, size: size}, nil
}

// slotter gives deletions their place in a transaction: nothing is stored that
// could tell it. A deletion comes right behind the write before it, which is
// never behind the place that the writer gave it, and so before the next.
type slotter struct {
	revision int64
	last     int
}

func (o *slotter) turn(revision int64) {
	if o.revision != revision {
		o.revision, o.last = revision, -1
	}
}

func (o *slotter) written(e *entry) {
	o.turn(e.mod)
	o.last = int(e.rv - versionOf(e.mod, 0))
}

func (o *slotter) deletion(revision int64) (rv int64) {
	o.turn(revision)
	o.last = min(o.last+1, slots-1)
	return versionOf(revision, o.last)
}

// expose makes a snapshot of the trees the one that is read.
func (s *Store) expose(revision int64) {
	tables := s.layout.Load().tables
	next := &snapshot{revision: revision, tables: make([]*tableView, len(tables))}
	if prev := s.snap.Load(); prev != nil {
		copy(next.tables, prev.tables)
	}
	for i, t := range tables {
		switch {
		case t == nil:
			next.tables[i] = nil
		case t.dirty:
			next.tables[i] = t.view()
		}
	}
	s.snap.Store(next)
}

// publish hands changes to the rings, table by table.
func (s *Store) publish(changes []change) {
	if len(changes) == 1 {
		changes[0].table.publish([]*record{changes[0].record})
		return
	}
	byTable := map[*table][]*record{}
	for _, c := range changes {
		byTable[c.table] = append(byTable[c.table], c.record)
	}
	for t, recs := range byTable {
		t.publish(recs)
	}
}

// table finds the table of a row.
func (s *Store) table(r *api.Resource) *table { return s.layout.Load().table(r) }
