package dirwatch_test

import (
	"os"
	"path/filepath"
	"testing"

	"hansa.dev/hansa/internal/dirwatch"
)

// Whichever way a file is replaced, it is told of.
func TestReplacedFiles(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	w, err := dirwatch.New(dirwatch.Files, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Add(other); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for _, do := range []func() error{
		func() error { return os.WriteFile(path, []byte("a"), 0o600) },
		func() error { return os.WriteFile(path, []byte("b"), 0o600) },
		func() error { return os.WriteFile(filepath.Join(other, "c"), []byte("c"), 0o600) },
		func() error { return os.Rename(filepath.Join(other, "c"), path) },
		func() error { return os.Remove(path) },
		func() error { return os.Symlink(filepath.Join(other, "d"), path) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			continue // that it goes is not told of
		}
		<-w.Changed
	}
}
