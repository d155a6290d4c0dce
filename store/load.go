package store

import (
	"context"
	"fmt"
	"strings"
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
	s.notify(changes)
	s.reached.advance(revision)
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
