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
// has it. What is in use is what the pointer is kept for: a part of the value
// that somebody has taken out does not count.
func (in *interned[T]) get(bytes []byte, make func() (*T, error)) (*T, error) {
	key := sha256.Sum256(bytes)
	in.mu.Lock()
	defer in.mu.Unlock()
	if value := in.known[key].Value(); value != nil {
		return value, nil
	}
	value, err := make()
	if err != nil {
		return nil, err
	}
	if in.known == nil {
		in.known = map[digest]weak.Pointer[T]{}
	}
	in.known[key] = weak.Make(value)
	runtime.AddCleanup(value, in.forget, key)
	return value, nil
}

// forget drops a key unless somebody has the value again.
func (in *interned[T]) forget(key digest) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.known[key].Value() == nil {
		delete(in.known, key)
	}
}
