package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The audit log is for root alone, is continued, and is set aside when it is
// large.
func TestAuditLogFile(t *testing.T) {
	dir := t.TempDir()
	a := &Audit{Path: filepath.Join(dir, "sub", "log"), MaxSize: 1, MaxBackups: 1}
	for range 2 {
		f, err := a.open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("event\n")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(a.Path)
	if err != nil || string(data) != "event\nevent\n" {
		t.Errorf("the log is %q, %v", data, err)
	}
	if info, err := os.Stat(a.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v, %v", info.Mode(), err)
	}
	for _, size := range []int{0, 1} {
		a.MaxSize = size
		f, err := a.open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(strings.Repeat("x", 1<<20))); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "sub", "*"))
		if want := 1 + size; err != nil || len(files) != want {
			t.Errorf("with a limit of %d there are %v, want %d", size, files, want)
		}
	}
	if _, err := (&Audit{Path: dir}).open(); err == nil {
		t.Error("a folder was opened as a log")
	}
}
