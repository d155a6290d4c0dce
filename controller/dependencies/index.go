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
	users map[dependency.Target][]user
	named map[api.Key][]dependency.Dependency
	// vague are those of which not everything is understood, as a kind is missing.
	vague map[api.Key]bool
}

// user is one who waits for a condition of a target.
type user struct {
	key       api.Key
	condition string
}

func newIndex() *index {
	return &index{users: map[dependency.Target][]user{}, named: map[api.Key][]dependency.Dependency{}, vague: map[api.Key]bool{}}
}

// set replaces what an object names, and answers with what it named before.
func (x *index) set(key api.Key, list []dependency.Dependency, vague bool) (before []dependency.Dependency) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before = x.named[key]
	for _, d := range before {
		left := slices.DeleteFunc(slices.Clone(x.users[d.Target]), func(u user) bool { return u.key == key })
		if x.users[d.Target] = left; len(left) == 0 {
			delete(x.users, d.Target)
		}
	}
	for _, d := range list {
		x.users[d.Target] = append(slices.Clip(x.users[d.Target]), user{key, d.Condition})
	}
	if x.named[key] = list; len(list) == 0 {
		delete(x.named, key)
	}
	if x.vague[key] = vague; !vague {
		delete(x.vague, key)
	}
	return before
}

// of are those who name a target; not to be written to.
func (x *index) of(t dependency.Target) []user {
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
