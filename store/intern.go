package store

import (
	"crypto/sha256"
	"runtime"
	"sync"
	"weak"
)

// interned keeps equal values once, for as long as anybody uses them. A value is
// known by a digest of the bytes that it was made of, which are not kept: no two
// texts with the same one are known to anybody.
type interned[T any] struct {
	mu    sync.Mutex
	known map[digest]weak.Pointer[T]
}

type digest = [sha256.Size]byte

// get gives the value of these bytes, which is frozen; make makes it when nobody
// has it, of which several may be at work at once: all get the value of one. What
// is in use is what the pointer is kept for: a part of the value that somebody
// has taken out does not count.
func (in *interned[T]) get(bytes []byte, make func() (*T, error)) (*T, error) {
	key := sha256.Sum256(bytes)
	if value := in.find(key); value != nil {
		return value, nil
	}
	value, err := make()
	if err != nil {
		return nil, err
	}
	return in.keep(key, value), nil
}

func (in *interned[T]) find(key digest) *T {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.known[key].Value()
}

// keep answers with the value that somebody else made meanwhile, if there is one.
func (in *interned[T]) keep(key digest, value *T) *T {
	in.mu.Lock()
	defer in.mu.Unlock()
	if other := in.known[key].Value(); other != nil {
		return other
	}
	if in.known == nil {
		in.known = map[digest]weak.Pointer[T]{}
	}
	in.known[key] = weak.Make(value)
	runtime.AddCleanup(value, in.forget, key)
	return value
}

// forget drops a key unless somebody has the value again.
func (in *interned[T]) forget(key digest) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.known[key].Value() == nil {
		delete(in.known, key)
	}
}
