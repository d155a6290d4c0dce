package etcd_test

import (
	"testing"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/storetest"
)

func embedded(t testing.TB) store.Engine {
	e, err := etcd.Start(t.Context(), etcd.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func BenchmarkEmbedded(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Engine { return embedded(b) })
}

func BenchmarkStart(b *testing.B) {
	for range b.N {
		if err := embedded(b).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
