package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lock is held while a process uses a data directory. The kernel drops it with
// the process, however that ends.
type lock struct{ file *os.File }

// errInUse says who uses the data directory.
type errInUse struct {
	dir string
	pid int
}

func (e errInUse) Error() string {
	if e.pid == 0 {
		return fmt.Sprintf("data directory %s is in use by another hansa", e.dir)
	}
	return fmt.Sprintf("data directory %s is in use by another hansa (process %d)", e.dir, e.pid)
}

// takeLock takes the lock and leaves our process id in the file, or answers
// with errInUse.
func takeLock(i instance) (*lock, error) {
	f, err := os.OpenFile(i.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", i.dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errInUse{dir: i.dir, pid: lockHolder(f)}
		}
		return nil, fmt.Errorf("lock data directory %s: %w", i.dir, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s: %w", i.dir, err), f.Close())
	}
	return &lock{f}, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func lockHolder(f *os.File) int {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0) //nolint:errcheck // an empty file has no holder to name
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

func (l *lock) release() error { return l.file.Close() }
