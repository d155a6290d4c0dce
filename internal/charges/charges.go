// Package charges keeps what is charged against quotas for objects that are not
// written yet. Who counts a namespace's objects anew adds it, or would give away
// a second time what is on its way.
package charges

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Book is all charges of one server. Its methods may be called from any
// goroutine.
type Book struct {
	mu     sync.Mutex
	spaces map[string]*Space
	woken  map[*func(namespace string)]bool
}

// NewBook is an empty one.
func NewBook() *Book {
	return &Book{spaces: map[string]*Space{}, woken: map[*func(string)]bool{}}
}

// Space is the charges of one namespace.
//
// Invariant: while nobody holds Lock, what its charges say is in the quotas as
// they are stored.
type Space struct {
	sync.Mutex
	book    *Book
	name    string
	users   int // who has it; guarded by the book
	charges map[*Charge]bool
}

// Charge is for one write of an object.
type Charge struct {
	// UID is of the object, and Old the version that is replaced, empty for a new
	// object.
	UID types.UID
	Old string
	// Amounts are by quota.
	Amounts map[types.UID]corev1.ResourceList

	space *Space
}

// Open gives a namespace's charges, which the caller closes.
func (b *Book) Open(namespace string) *Space {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.spaces[namespace]
	if s == nil {
		s = &Space{book: b, name: namespace, charges: map[*Charge]bool{}}
		b.spaces[namespace] = s
	}
	s.users++
	return s
}

// Close lets go of what Open gave.
func (s *Space) Close() {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	s.users--
	if s.users == 0 {
		delete(s.book.spaces, s.name)
	}
}

// Add notes a charge until it is ended. The caller holds the lock.
func (s *Space) Add(c *Charge) {
	c.space = s.book.Open(s.name)
	s.charges[c] = true
}

// All are the charges there are. The caller holds the lock, and keeps none of
// them beyond it but to read.
func (s *Space) All() []*Charge {
	all := make([]*Charge, 0, len(s.charges))
	for c := range s.charges {
		all = append(all, c)
	}
	return all
}

// End is called once the object is written, and every reader sees it, or will
// not be: then the namespace has to be counted anew.
func (c *Charge) End(written bool) {
	s := c.space
	s.Lock()
	delete(s.charges, c)
	s.Unlock()
	s.Close()
	if !written {
		s.book.wake(s.name)
	}
}

// Listen calls f with each namespace that has to be counted anew; f must return
// at once. It is called no more once cancel has returned.
func (b *Book) Listen(f func(namespace string)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.woken[&f] = true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.woken, &f)
	}
}

func (b *Book) wake(namespace string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.woken {
		(*f)(namespace)
	}
}
