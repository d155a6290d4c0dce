package userns_test

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/userns"
)

// A pod keeps its range, also over a restart; no two have the same.
func TestAllocator(t *testing.T) {
	dir := t.TempDir()
	for _, uid := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(dir, uid), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	first := func(a *userns.Allocator, uid types.UID) uint32 {
		t.Helper()
		n, err := a.First(uid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a := userns.New(dir)
	if x, y := first(a, "a"), first(a, "b"); x != 65536 || y != 131072 || first(a, "a") != x {
		t.Errorf("%d %d", x, y)
	}
	a = userns.New(dir)
	if x, y := first(a, "c"), first(a, "b"); x != 196608 || y != 131072 {
		t.Errorf("after a restart: %d %d", x, y)
	}
	a.Release("b")
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if x := first(a, "d"); x != 131072 {
		t.Errorf("after a release: %d", x)
	}
}
