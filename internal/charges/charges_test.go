package charges_test

import (
	"slices"
	"testing"

	"hansa.dev/hansa/internal/charges"
)

// A charge is there until it ends; the namespace of one that was not written is
// told to whoever listens.
func TestCharges(t *testing.T) {
	book := charges.NewBook()
	var woken []string
	cancel := book.Listen(func(namespace string) { woken = append(woken, namespace) })
	count := func() int {
		s := book.Open("ns")
		defer s.Close()
		s.Lock()
		defer s.Unlock()
		return len(s.All())
	}
	a, b := &charges.Charge{UID: "a"}, &charges.Charge{UID: "b"}
	s := book.Open("ns")
	s.Lock()
	s.Add(a)
	s.Add(b)
	s.Unlock()
	s.Close()
	if count() != 2 {
		t.Errorf("there are %d charges", count())
	}
	a.End(true)
	if count() != 1 || len(woken) != 0 {
		t.Errorf("there are %d charges, and woken are %v", count(), woken)
	}
	b.End(false)
	if count() != 0 || !slices.Equal(woken, []string{"ns"}) {
		t.Errorf("there are %d charges, and woken are %v", count(), woken)
	}
	cancel()
	c := &charges.Charge{UID: "c"}
	s = book.Open("ns")
	s.Lock()
	s.Add(c)
	s.Unlock()
	s.Close()
	c.End(false)
	if len(woken) != 1 {
		t.Errorf("woken are %v", woken)
	}
}
