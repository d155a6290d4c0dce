package whole_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/internal/whole"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"Write": whole.Write, "WriteSynced": whole.WriteSynced} {
		dir := t.TempDir()
		file, victim := filepath.Join(dir, "record"), filepath.Join(t.TempDir(), "victim")
		// A crash left something behind, or somebody laid a trap.
		if err := os.Symlink(victim, filepath.Join(dir, ".record.new")); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"the first one", "another"} {
			if err := write(file, []byte(text)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, err := os.ReadFile(file)
			info, statErr := os.Stat(file)
			if err != nil || statErr != nil || string(got) != text || info.Mode() != 0o600 {
				t.Errorf("%s: %q, %v, %v, %v", name, got, err, info, statErr)
			}
		}
		if all, err := os.ReadDir(dir); len(all) != 1 || err != nil {
			t.Errorf("%s leaves %v, %v", name, all, err)
		}
		if _, err := os.Stat(victim); err == nil {
			t.Errorf("%s writes through a link", name)
		}
	}
}

// What cannot be replaced stays as it is, and nothing is left beside it.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := whole.Write(taken, nil); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("a directory was replaced: %v", err)
	}
	if all, err := os.ReadDir(dir); len(all) != 1 || err != nil {
		t.Errorf("left are %v, %v", all, err)
	}
}
