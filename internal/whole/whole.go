// Package whole writes files that others see whole: as they were, or with all that is
// new, also after a crash. They are for their owner alone. Of each there is one writer
// at a time.
package whole

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces a file. After a power cut it may be empty.
func Write(path string, data []byte) error { return replace(path, data, false) }

// WriteSynced replaces a file: its name and content are on disk when it returns, or
// the old ones are.
func WriteSynced(path string, data []byte) error {
	if err := replace(path, data, true); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// replace writes beside the file and renames. What a crash left there goes.
func replace(path string, data []byte, sync bool) error {
	beside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Not through a link that somebody put there.
	f, err := os.OpenFile(beside, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		os.Remove(beside) // the error tells more
	}
	return err
}

// SyncDir puts on disk which files a directory has.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
