package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Rotate renames a log that has grown to limit bytes and has the runtime open a
// new one. Of all its files at most keep stay; those before the newest rotated
// one are compressed, unless they are written to still. A log that is not there
// is opened again: an earlier rotation was cut off.
func Rotate(file string, limit int64, keep int, now time.Time, reopen func() error) error {
	s, err := openSet(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the pod is going
	}
	if err != nil {
		return fmt.Errorf("look at log: %w", err)
	}
	defer s.Close()
	info, err := s.dir.Stat(s.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.reopen(reopen)
	case err != nil:
		return fmt.Errorf("look at log: %w", err)
	case info.Size() < limit:
		return nil
	}
	old, err := s.makeRoom(keep)
	if err != nil {
		return err
	}
	for _, f := range old {
		if !strings.HasSuffix(f, gz) {
			if err := s.compress(f); err != nil {
				return err
			}
		}
	}
	to := s.name + "." + stampAfter(old, s.name, now)
	if err := s.locked(unix.LOCK_EX, func(*os.File) error { return s.dir.Rename(s.name, to) }); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if err := s.reopen(reopen); err != nil {
		return errors.Join(err, s.giveBack(to))
	}
	return nil
}

func (s set) reopen(reopen func() error) error {
	if err := reopen(); err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return nil
}

// giveBack undoes a renaming: the runtime still writes to that file, unless it
// has made a new one all the same.
func (s set) giveBack(from string) error {
	return s.locked(unix.LOCK_EX, func(*os.File) error {
		if _, err := s.dir.Stat(s.name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return s.dir.Rename(from, s.name)
	})
}

// makeRoom removes the oldest files, and what an interrupted compression left,
// so that with the current file and the one it is renamed to there are at most
// keep. It lists what is left.
func (s set) makeRoom(keep int) (old []string, err error) {
	err = s.locked(unix.LOCK_EX, func(dir *os.File) error {
		var drop []string
		if old, drop, err = s.rotated(dir); err != nil {
			return err
		}
		over := max(len(old)-max(keep-2, 0), 0)
		drop, old = append(drop, old[:over]...), old[over:]
		for _, f := range drop {
			if err := s.dir.Remove(f); err != nil {
				return fmt.Errorf("remove rotated log: %w", err)
			}
		}
		return nil
	})
	return old, err
}

// stampAfter is now in the form of a rotated file's suffix, but later than all
// there is: rotations may be less than a second apart, and clocks go back.
func stampAfter(old []string, name string, now time.Time) string {
	stamp := now.Format(stampFormat)
	if len(old) == 0 {
		return stamp
	}
	last := strings.TrimSuffix(strings.TrimPrefix(old[len(old)-1], name+"."), gz)
	if t, err := time.Parse(stampFormat, last); err == nil && stamp <= last {
		return t.Add(time.Second).Format(stampFormat)
	}
	return stamp
}

func (s set) compress(file string) error {
	in, err := s.dir.Open(file)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	defer in.Close()
	if written(in) {
		return nil // the next time, then
	}
	out, err := s.dir.OpenFile(file+tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	if err := errors.Join(copyCompressed(out, in), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compress log %s: %w", file, err), s.dir.Remove(file+tmp))
	}
	err = s.locked(unix.LOCK_EX, func(*os.File) error {
		if err := s.dir.Rename(file+tmp, file+gz); err != nil {
			return err
		}
		return s.dir.Remove(file)
	})
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	return nil
}

func copyCompressed(out io.Writer, in *os.File) (err error) {
	z := gzip.NewWriter(out)
	if z.Comment, err = inodeOf(in); err != nil {
		return err
	}
	_, err = io.Copy(z, in)
	return errors.Join(err, z.Close())
}
