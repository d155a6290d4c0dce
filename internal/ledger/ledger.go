// Package ledger remembers what an instance made on its host, so that all of it
// can be found and removed without a running daemon, after a crash too.
//
// Invariant: an object is recorded before it is made, and forgotten only after
// it is gone. An entry may thus name what was never made, but nothing that was
// made lacks an entry.
//
// The file is a line per entry, "KIND\tNAME", appended and synced once per new
// entry; entries known already cost nothing.
package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Entry is one object on the host.
type Entry struct {
	Kind string // "link", "table", "sysctl", "cgroup", "mount", "dir"
	Name string
}

// Ledger may be used from any goroutine.
type Ledger struct {
	mu    sync.Mutex
	file  *os.File
	known map[Entry]bool
	order []Entry
}

// Open reads the ledger at path, or begins one.
func Open(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{file: f, known: map[Entry]bool{}}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("read ledger: %w", err), f.Close())
	}
	return l, nil
}

func (l *Ledger) load() error {
	text, err := io.ReadAll(l.file)
	if err != nil {
		return err
	}
	// A crash while writing leaves half a line, of something not yet made.
	whole := bytes.LastIndexByte(text, '\n') + 1
	if err := l.file.Truncate(int64(whole)); err != nil {
		return err
	}
	for line := range strings.Lines(string(text[:whole])) {
		kind, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if e := (Entry{kind, name}); ok && !l.known[e] {
			l.known[e] = true
			l.order = append(l.order, e)
		}
	}
	return nil
}

// Record is called before an object is made; it returns once the entry would
// survive a power loss.
func (l *Ledger) Record(kind, name string) error {
	if strings.ContainsAny(kind+name, "\t\n") {
		return fmt.Errorf("record %s %q: a ledger entry has no tab or newline", kind, name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := Entry{kind, name}
	if l.known[e] {
		return nil
	}
	if _, err := l.file.WriteString(kind + "\t" + name + "\n"); err != nil {
		return fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	l.known[e] = true
	l.order = append(l.order, e)
	return nil
}

// Entries are in reverse order of their making: the order in which to remove.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Entry, 0, len(l.order))
	for i := len(l.order) - 1; i >= 0; i-- {
		out = append(out, l.order[i])
	}
	return out
}

// Close closes the file; what it says stays.
func (l *Ledger) Close() error { return l.file.Close() }
