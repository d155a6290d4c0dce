package pod

import (
	"fmt"
	"testing"

	"hansa.dev/hansa/network/internal/nettest"
)

// BenchmarkAddDel is one pod's connection made and removed, over the socket's
// handler, on the real kernel.
func BenchmarkAddDel(b *testing.B) {
	c := testConfig(b)
	m, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Teardown(); err != nil {
			b.Error(err)
		}
	})
	ns := nettest.New(b)
	for i := 0; b.Loop(); i++ {
		q := request("ADD", fmt.Sprint("c", i), ns, tcp(8080, 80))
		if r := m.handle(b.Context(), &q); r.Error != nil {
			b.Fatal(r.Error)
		}
		q.Command = "DEL"
		if r := m.handle(b.Context(), &q); r.Error != nil {
			b.Fatal(r.Error)
		}
	}
}
