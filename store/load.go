package store

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
)

// loadPage is how many keys are read at once, loadBytes about how many bytes when
// the copy is filled: two pages are held meanwhile.
const (
	loadPage  = 1000
	loadBytes = 16 << 20
)

// load fills the copy with everything there is, all of one revision.
func (s *Store) load(ctx context.Context) (revision int64, err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	revision, err = s.readAll(ctx, func(kvs []KV) error {
		found, err := s.decodeAll(kvs)
		for _, f := range found {
			if f.entry != nil {
				s.guard(f.table, f.entry)
				f.table.put(f.entry)
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, t := range s.layout.Load().all() {
		t.reset(lastOf(revision))
	}
	s.expose(revision)
	return revision, nil
}

// located is what a key holds; entry is nil where no resource keeps objects.
type located struct {
	table *table
	entry *entry
}

// decodeAll decodes values, on all processors: that is most of a start with many
// objects. The answer has the order of the keys.
func (s *Store) decodeAll(kvs []KV) ([]located, error) {
	found := make([]located, len(kvs))
	parts := min(runtime.GOMAXPROCS(0), len(kvs))
	errs := make([]error, parts)
	var decoding sync.WaitGroup
	for part := range parts {
		decoding.Go(func() {
			for i := part; i < len(kvs) && errs[part] == nil; i += parts {
				t, key := s.locate(kvs[i].Key)
				if t == nil {
					continue
				}
				e, err := t.entry(key, kvs[i])
				found[i], errs[part] = located{t, e}, err
			}
		})
	}
	decoding.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// answer is a page of the engine, or what came in its place.
type answer struct {
	RangeResponse
	err error
}

// readAll calls f with every key below the root as of one revision, page by
// page. The next page is read meanwhile.
func (s *Store) readAll(ctx context.Context, f func([]KV) error) (revision int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan answer, 1)
	go func() {
		defer close(pages)
		for resp, err := range PagesBySize(ctx, s.engine, RangeRequest{Start: root, End: prefixEnd(root), Limit: loadPage}, loadBytes) {
			if err == nil {
				err = ctx.Err()
			}
			pages <- answer{resp, err}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range pages { // until nobody reads any more
		}
	}()
	for p := range pages {
		if p.err != nil {
			return 0, fmt.Errorf("read all keys: %w", p.err)
		}
		if revision == 0 {
			revision = p.Revision
		}
		if err := f(p.KVs); err != nil {
			return 0, err
		}
	}
	return revision, nil
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
	byPrefix := s.layout.Load().byPrefix
	if second := strings.IndexByte(rest[first+1:], '/'); second >= 0 {
		end := first + 1 + second
		if t := byPrefix[rest[:end]]; t != nil && t.owns(rest[end+1:]) {
			return t, rest[end+1:]
		}
	}
	if t := byPrefix[rest[:first]]; t != nil && t.owns(rest[first+1:]) {
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
	revision, err := s.readAll(ctx, func(kvs []KV) error {
		found = append(found, kvs...)
		return nil
	})
	if err != nil {
		return err
	}
	var changes []change
	seen := map[*table]map[string]bool{}
	for _, t := range s.layout.Load().all() {
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
	for _, t := range s.layout.Load().all() {
		changes = append(changes, t.sweep(seen[t], revision)...)
	}
	s.expose(revision)
	for _, t := range s.layout.Load().all() {
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
