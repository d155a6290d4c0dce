package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hansa.dev/hansa/api"
)

// loadPage is how many keys are read at once when the copy is filled.
const loadPage = 1000

// load fills the copy with everything there is, all of one revision.
func (s *Store) load(ctx context.Context) (revision int64, err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	revision, err = s.readAll(ctx, func(kv KV) error {
		t, key := s.locate(kv.Key)
		if t == nil {
			return nil
		}
		e, err := t.entry(key, kv)
		if err == nil {
			s.guard(t, e)
			t.put(e)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, t := range s.tables {
		t.reset(lastOf(revision))
	}
	s.expose(revision)
	return revision, nil
}

// readAll calls f with every key below the root as of one revision.
func (s *Store) readAll(ctx context.Context, f func(KV) error) (revision int64, err error) {
	start, end := root, prefixEnd(root)
	for {
		resp, err := s.engine.Range(ctx, RangeRequest{Start: start, End: end, Revision: revision, Limit: loadPage})
		if err != nil {
			return 0, fmt.Errorf("read all keys: %w", err)
		}
		if revision == 0 {
			revision = resp.Revision
		}
		for _, kv := range resp.KVs {
			if err := f(kv); err != nil {
				return 0, err
			}
		}
		if !resp.More {
			return revision, nil
		}
		start = resp.KVs[len(resp.KVs)-1].Key + "\x00"
	}
}

// prefixEnd is the first key behind all that begin with a prefix.
func prefixEnd(prefix string) string {
	last := len(prefix) - 1
	return prefix[:last] + string(prefix[last]+1)
}

// locate finds the table of an etcd key, and the key within it; nil if no
// resource keeps objects there.
func (s *Store) locate(key string) (*table, string) {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return nil, ""
	}
	// Storage prefixes have one segment (pods) or two (services/specs).
	first := strings.IndexByte(rest, '/')
	if first < 0 {
		return nil, ""
	}
	if second := strings.IndexByte(rest[first+1:], '/'); second >= 0 {
		end := first + 1 + second
		if t := s.byPrefix[rest[:end]]; t != nil && t.owns(rest[end+1:]) {
			return t, rest[end+1:]
		}
	}
	if t := s.byPrefix[rest[:first]]; t != nil && t.owns(rest[first+1:]) {
		return t, rest[first+1:]
	}
	return nil, ""
}

// follow keeps the copy up to date until the store is closed. A lost stream is
// opened again where it ended; if history is gone by then, everything is read
// anew.
func (s *Store) follow(ctx context.Context, stream Stream) {
	defer s.running.Done()
	for delay := time.Duration(0); ; {
		err := s.drain(ctx, stream)
		stream.Close()
		if ctx.Err() != nil {
			return
		}
		var broken *brokenError
		if errors.As(err, &broken) {
			s.fail(err)
			return
		}
		s.opts.Logger.Warn("the store lost its watch and starts another", "revision", s.snap.Load().revision, "error", err)
		for stream = nil; stream == nil; {
			select {
			case <-ctx.Done():
				return
			case <-s.opts.Clock.After(delay):
			}
			delay = min(2*delay+50*time.Millisecond, 2*time.Second)
			var gone *CompactedError
			if errors.As(err, &gone) {
				err = s.reload(ctx)
			}
			if !errors.As(err, &gone) {
				stream, err = s.engine.Watch(ctx, s.snap.Load().revision+1, false)
			}
		}
		delay = 0
	}
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

// change is a record with its table.
type change struct {
	table *table
	*record
}

// apply brings events of whole revisions into the copy, in this order: trees,
// snapshot, recent events, those who wait for the revision, subscribers. So
// whoever hears of a change finds it in the copy.
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
	s.reached.advance(revision)
	s.notify(changes)
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
	next := &snapshot{revision: revision, tables: make([]tableView, len(s.tables))}
	if prev := s.snap.Load(); prev != nil {
		copy(next.tables, prev.tables)
	}
	for i, t := range s.tables {
		if t.dirty {
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

// reload reads everything anew after a gap in the history. Watchers are told
// to start over; subscribers get the differences.
func (s *Store) reload(ctx context.Context) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	var found []KV
	revision, err := s.readAll(ctx, func(kv KV) error {
		found = append(found, kv)
		return nil
	})
	if err != nil {
		return err
	}
	var changes []change
	seen := map[*table]map[string]bool{}
	for _, t := range s.tables {
		seen[t] = map[string]bool{}
	}
	for _, kv := range found {
		t, key := s.locate(kv.Key)
		if t == nil {
			continue
		}
		seen[t][key] = true
		if old, ok := t.items.Get(&entry{key: key}); ok && old.mod == kv.ModRevision {
			continue
		}
		r, err := s.applyOne(t, key, RawEvent{KV: kv}, &slotter{})
		if err != nil {
			return &brokenError{err}
		}
		changes = append(changes, change{t, r})
	}
	for _, t := range s.tables {
		changes = append(changes, t.sweep(seen[t], revision)...)
	}
	s.expose(revision)
	for _, t := range s.tables {
		t.reset(lastOf(revision))
	}
	s.delivered.Store(revision)
	s.reached.advance(revision)
	s.notify(changes)
	return nil
}

// sweep removes what was not seen.
func (t *table) sweep(seen map[string]bool, revision int64) (changes []change) {
	var gone []string
	t.items.Ascend(func(e *entry) bool {
		if !seen[e.key] {
			gone = append(gone, e.key)
		}
		return true
	})
	for _, key := range gone {
		changes = append(changes, change{t, &record{rv: lastOf(revision), old: t.remove(key, revision)}})
	}
	t.newest, t.dirty = revision, true
	return changes
}

// guard and check are the mutation detector: guard notes what a shared object
// looks like, check panics if it looks different.
func (s *Store) guard(t *table, e *entry) {
	if s.opts.DetectMutations {
		e.sum = fingerprint(e.obj)
	}
}

func (s *Store) check(t *table, e *entry) {
	if s.opts.DetectMutations && fingerprint(e.obj) != e.sum {
		panic(fmt.Sprintf("store: somebody wrote to the shared object %s (resource version %d)", t.ref(e.key), e.rv))
	}
}

// CheckMutations panics if somebody wrote to an object that the store shares,
// naming it. It does nothing unless Options.DetectMutations is set. Close calls
// it too.
func (s *Store) CheckMutations() {
	if !s.opts.DetectMutations {
		return
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	for _, t := range s.tables {
		t.items.Ascend(func(e *entry) bool {
			s.check(t, e)
			return true
		})
		t.mu.Lock()
		recs := slices.Clone(t.recent.main.recs)
		t.mu.Unlock()
		for _, r := range recs {
			if r.old != nil {
				s.check(t, r.old)
			}
		}
	}
}

// table finds the table of a row.
func (s *Store) table(r *api.Resource) *table {
	t := s.byRow[r]
	if t == nil {
		panic(fmt.Sprintf("store: resource %s has no storage in this store", r.Plural))
	}
	return t
}
