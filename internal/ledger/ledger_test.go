package ledger

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEntriesSurviveAndComeInReverse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{{"link", "hansa0"}, {"table", "hansa-1"}, {"link", "hansa0"}} {
		if err := l.Record(e.Kind, e.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, want := l.Entries(), []Entry{{"table", "hansa-1"}, {"link", "hansa0"}}; !slices.Equal(got, want) {
		t.Errorf("entries = %v, want %v", got, want)
	}
}

// A crash in the middle of a write leaves half a line: it is no entry, and what
// comes after it must not be joined to it.
func TestHalfALineIsNoEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(path, []byte("link\ta\nlin"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Record("link", "b"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, want := l.Entries(), []Entry{{"link", "b"}, {"link", "a"}}; !slices.Equal(got, want) {
		t.Errorf("entries = %v, want %v", got, want)
	}
}

func TestTabIsRefused(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Record("link", "a\tb"); err == nil {
		t.Error("an entry with a tab was taken")
	}
}
