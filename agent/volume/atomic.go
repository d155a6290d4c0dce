package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// file is the content of one path of a volume.
type file struct {
	data []byte
	mode fs.FileMode
	user *int64
}

// payload is a volume's content by relative path.
type payload map[string]file

const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
)

// writeAtomic makes the content of dir equal to want. A reader sees all of the
// old content or all of the new one: the files are in a directory of their own
// to which the link ..data points, and the names that readers use are links
// through it. Only the switch of the link is seen.
//
//	dir/a/b   -> dir/a is a link to ..data/a
//	dir/..data -> ..2026_01_02_15_04_05.123456789
func writeAtomic(dir string, want payload, o owner, now time.Time) error {
	for name := range want {
		if err := checkName(name); err != nil {
			return err
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old != "" && same(filepath.Join(dir, old), want, o) {
		return link(dir, want)
	}
	stamp, err := os.MkdirTemp(dir, now.UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := fill(stamp, want, o); err != nil {
		return errors.Join(err, os.RemoveAll(stamp))
	}
	tmp := filepath.Join(dir, newDataLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Base(stamp), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := link(dir, want); err != nil {
		return err
	}
	if err := unlink(dir, want); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

// checkName refuses names that would lead out of the volume or collide with
// our own.
func checkName(name string) error {
	if name == "" || filepath.IsAbs(name) {
		return fmt.Errorf("invalid path %q: must be relative and not empty", name)
	}
	for i, part := range strings.Split(name, "/") {
		if part == ".." || i == 0 && strings.HasPrefix(part, "..") {
			return fmt.Errorf("invalid path %q: must not contain or start with '..'", name)
		}
	}
	return nil
}

func fill(stamp string, want payload, o owner) error {
	if err := os.Chmod(stamp, 0o755); err != nil {
		return err
	}
	for name, f := range want {
		path := filepath.Join(stamp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		// The umask does not count.
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
		if f.user != nil {
			if err := os.Chown(path, int(*f.user), -1); err != nil {
				return err
			}
		}
	}
	return own(stamp, owner{group: o.group}, true)
}

// same says whether a data directory has exactly the content wanted.
func same(stamp string, want payload, o owner) bool {
	n := 0
	err := filepath.WalkDir(stamp, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(stamp, path)
		if err != nil {
			return err
		}
		f, ok := want[name]
		if !ok {
			return fs.ErrNotExist
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := f.mode
		if o.group != nil {
			mode = groupMode(mode, true)
		}
		if !bytes.Equal(data, f.data) || info.Mode().Perm() != mode.Perm() {
			return fs.ErrInvalid
		}
		n++
		return nil
	})
	return err == nil && n == len(want)
}

// link makes the names that readers use.
func link(dir string, want payload) error {
	for name := range want {
		top, _, _ := strings.Cut(filepath.Clean(name), "/")
		err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// unlink takes away the names that are no more.
func unlink(dir string, want payload) error {
	keep := map[string]bool{}
	for name := range want {
		top, _, _ := strings.Cut(filepath.Clean(name), "/")
		keep[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") || keep[e.Name()] {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
