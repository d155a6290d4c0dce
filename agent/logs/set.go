package logs

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// set are the files that one run of a container has logged to:
//
//	0.log.20260102-140405.gz  before, compressed
//	0.log.20260102-150405     before; for a moment it may be written to still
//	0.log                     now; missing while the runtime is to open it
//
// Invariants: names sort as the files came, a name is never used again, and the
// oldest file goes first. Whoever changes or lists the files holds the lock of
// their directory, so that every list is of one moment.
type set struct {
	dir  *os.Root // stays the same directory when that is moved
	name string
}

// openSet opens the directory of a log, which need not have a file yet.
func openSet(file string) (set, error) {
	dir, err := os.OpenRoot(filepath.Dir(file))
	return set{dir, filepath.Base(file)}, err
}

func (s set) Close() { s.dir.Close() }

const (
	stampFormat = "20060102-150405"
	gz          = ".gz"
	tmp         = ".tmp"
)

// locked calls f with the directory while nobody else changes (how is LOCK_SH)
// or also lists (LOCK_EX) the files.
func (s set) locked(how int, f func(dir *os.File) error) error {
	dir, err := s.dir.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close() // unlocks it
	for {
		err := unix.Flock(int(dir.Fd()), how)
		if err == nil {
			return f(dir)
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock the directory of log %s: %w", s.name, err)
		}
	}
}

// rotated lists the files before the current one, the oldest first, and what an
// interrupted compression left. The lock is held.
func (s set) rotated(dir *os.File) (files, unfinished []string, err error) {
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, fmt.Errorf("list the files of log %s: %w", s.name, err)
	}
	for _, f := range all {
		suffix, ok := strings.CutPrefix(f, s.name+".")
		if !ok {
			continue
		}
		whole, isTmp := strings.CutSuffix(suffix, tmp)
		stamp, isGz := strings.CutSuffix(whole, gz)
		if _, err := time.Parse(stampFormat, stamp); err != nil {
			continue // not ours
		}
		switch {
		case isTmp:
			unfinished = append(unfinished, f)
		case isGz && slices.Contains(all, strings.TrimSuffix(f, gz)):
			// The original is still there, and will be compressed anew.
		default:
			files = append(files, f)
		}
	}
	slices.Sort(files)
	return files, unfinished, nil
}

// filesOf are the files of a log, the oldest first.
func filesOf(file string) (files []string, err error) {
	s, err := openSet(file)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	err = s.locked(unix.LOCK_SH, func(dir *os.File) error {
		names, _, err := s.rotated(dir)
		if err != nil {
			return err
		}
		if _, err := s.dir.Stat(s.name); err == nil {
			names = append(names, s.name)
		}
		for _, name := range names {
			files = append(files, filepath.Join(filepath.Dir(file), name))
		}
		return nil
	})
	return files, err
}

// source is a file of a set that is read.
type source struct {
	file *os.File
	in   *bufio.Reader
}

func (s *source) Close() { s.file.Close() }

func (s set) openSource(name string) (*source, error) {
	f, err := s.dir.Open(name)
	if err != nil {
		return nil, err
	}
	in, err := plain(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &source{file: f, in: bufio.NewReader(in)}, nil
}

// plain reads what a file says, compressed or not.
func plain(f *os.File) (io.Reader, error) {
	if !strings.HasSuffix(f.Name(), gz) {
		return f, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return z, nil
}

// newest opens the file that is written to.
func (s set) newest() (*source, error) {
	var out *source
	err := s.locked(unix.LOCK_SH, func(dir *os.File) (err error) {
		if out, err = s.openSource(s.name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// The runtime is about to open it, and still writes to the last.
		files, _, listErr := s.rotated(dir)
		if listErr != nil || len(files) == 0 || strings.HasSuffix(files[len(files)-1], gz) {
			return errors.Join(err, listErr)
		}
		out, err = s.openSource(files[len(files)-1])
		return err
	})
	return out, err
}

// after opens the file that came after one, or of what is left the first. It is
// nil when there is none (yet).
func (s set) after(src *source) (next *source, err error) {
	if is, err := s.is(src.file, s.name); is || err != nil {
		return nil, err
	}
	err = s.locked(unix.LOCK_SH, func(dir *os.File) error {
		// A rotation that failed is undone, and the name given back.
		if is, err := s.is(src.file, s.name); is || err != nil {
			return err
		}
		files, _, err := s.rotated(dir)
		if err != nil {
			return err
		}
		at, err := s.find(src.file, files)
		if err != nil {
			return err
		}
		for _, f := range append(files[at+1:], s.name) {
			if next, err = s.openSource(f); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	return next, err
}

// find is which of the files an open one is, or was made from it; -1 if it was
// removed, as then all others came later. The lock is held.
func (s set) find(open *os.File, files []string) (int, error) {
	inode, err := inodeOf(open)
	if err != nil {
		return 0, err
	}
	// An inode is not free before whoever has it open closes it, so of all that
	// were made from this number the newest was made from this file.
	for i, f := range slices.Backward(files) {
		if is, err := s.is(open, f); is || err != nil {
			return i, err
		}
		if !strings.HasSuffix(f, gz) {
			continue
		}
		if from, err := s.madeFrom(f); from == inode || err != nil {
			return i, err
		}
	}
	return -1, nil
}

// is says whether a name is that of an open file.
func (s set) is(f *os.File, name string) (bool, error) {
	named, err := s.dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at log: %w", err)
	}
	open, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at log: %w", err)
	}
	return os.SameFile(open, named), nil
}

// inodeOf is how a compressed file names what it was made from, in the comment
// that the format allows (RFC 1952, section 2.3.1).
func inodeOf(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at log: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("look at log %s: no inode", f.Name())
	}
	return fmt.Sprint("inode ", st.Ino), nil
}

// madeFrom is the comment of a compressed file.
func (s set) madeFrom(name string) (string, error) {
	f, err := s.dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return z.Comment, nil
}

// written says whether anybody has a file open to write to it. The kernel
// grants a read lease only if nobody has (fcntl(2), F_SETLEASE); a file system
// without leases has the answer no.
func written(f *os.File) bool {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // of what we hold, it does not fail
	return false
}
