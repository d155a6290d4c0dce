package dependencies

import (
	"slices"
	"sync"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
)

// index knows who names what, so that a change wakes those alone whom it concerns.
// It may be used from any goroutine.
type index struct {
	mu    sync.RWMutex
	users map[dependency.Target][]api.Key
	named map[api.Key][]dependency.Target
	// vague are those of which not everything is understood, as a kind is missing.
	vague map[api.Key]bool
}

func newIndex() *index {
	return &index{users: map[dependency.Target][]api.Key{}, named: map[api.Key][]dependency.Target{}, vague: map[api.Key]bool{}}
}

// set replaces what an object names, and answers with what it named before.
func (x *index) set(key api.Key, targets []dependency.Target, vague bool) (before []dependency.Target) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before = x.named[key]
	for _, t := range before {
		left := slices.DeleteFunc(slices.Clone(x.users[t]), func(k api.Key) bool { return k == key })
		if x.users[t] = left; len(left) == 0 {
			delete(x.users, t)
		}
	}
	for _, t := range targets {
		x.users[t] = append(slices.Clip(x.users[t]), key)
	}
	if x.named[key] = targets; len(targets) == 0 {
		delete(x.named, key)
	}
	if x.vague[key] = vague; !vague {
		delete(x.vague, key)
	}
	return before
}

// of are those who name a target; not to be written to.
func (x *index) of(t dependency.Target) []api.Key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.users[t]
}

// empty says that nobody depends on anything.
func (x *index) empty() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.users) == 0
}

func (x *index) unclear() (keys []api.Key) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for k := range x.vague {
		keys = append(keys, k)
	}
	return keys
}
