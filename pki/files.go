package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/whole"
)

// writeDir makes a directory with its files appear at once: it is written as
// dir.new, synced, and renamed over dir, which must be absent or empty.
func writeDir(dir string, files map[string][]byte) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil { // what a crash left behind
		return err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	for name, data := range files {
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".key") {
			mode = 0o600
		}
		if err := writeSynced(filepath.Join(fresh, name), data, mode); err != nil {
			return err
		}
	}
	if err := whole.SyncDir(fresh); err != nil {
		return err
	}
	// unix.Rename, for os.Rename does not replace a directory, not even an empty one.
	if err := unix.Rename(fresh, dir); err != nil {
		return fmt.Errorf("rename %s to %s: %w", fresh, dir, err)
	}
	return whole.SyncDir(parent)
}

// writeSynced creates a file that must not be there yet.
func writeSynced(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", path, err), f.Close())
	}
	return f.Close()
}
