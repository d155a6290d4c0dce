package store

import (
	"fmt"
	"slices"
)

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
	for _, t := range s.layout.Load().all() {
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
