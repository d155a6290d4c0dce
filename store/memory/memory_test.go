package memory_test

import (
	"testing"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
	"hansa.dev/hansa/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Engine { return memory.New(memory.Options{}) })
}

func BenchmarkStore(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Engine { return memory.New(memory.Options{}) })
}
