package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
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

// names are those of what a data directory holds, and of what may be put there
// before a first start: configuration of registries and of containerd, seccomp
// profiles.
var names = []string{
	"agent", "bin", "cni", "containerd", "containerd.d", "etcd", "kubeconfig", "ledger", "lock", "logs", "pki", "pods",
	"registry", "seccomp", "lost+found",
}

// claim makes the data directory. One that holds other things is refused:
// --purge would remove them.
func (i instance) claim() error {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if i.mustExist() == nil {
		return nil
	}
	entries, err := os.ReadDir(i.dir)
	if err != nil {
		return fmt.Errorf("look into the data directory: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			return fmt.Errorf("%s is no data directory of hansa and holds other things (%s): choose a new or empty one with --data-dir", i.dir, e.Name())
		}
	}
	return nil
}

// mustExist refuses what is no data directory: the first thing that a start
// makes in one is the lock.
func (i instance) mustExist() error {
	if _, err := os.Stat(i.dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no data directory %s", i.dir)
	}
	switch f, err := os.Lstat(i.lockFile()); {
	case errors.Is(err, fs.ErrPermission):
		return forRoot{i.dir}
	case err != nil || !f.Mode().IsRegular():
		return fmt.Errorf("%s is no data directory of hansa", i.dir)
	}
	return nil
}

// forRoot is fs.ErrPermission as a sentence.
type forRoot struct{ dir string }

func (e forRoot) Error() string {
	return fmt.Sprintf("the data directory %s belongs to root: use sudo", e.dir)
}
func (e forRoot) Unwrap() error { return fs.ErrPermission }

// askLock answers with errInUse while a process holds the lock, and disturbs
// nobody who takes it.
func askLock(i instance) error {
	f, err := os.Open(i.lockFile())
	if err != nil {
		return fmt.Errorf("lock data directory %s: %w", i.dir, err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errInUse{dir: i.dir, pid: lockHolder(f)}
	}
	return err
}

// takeLock takes the lock and leaves our process id in the file, or answers
// with errInUse.
func takeLock(i instance) (*lock, error) {
	return openLock(i, os.O_RDWR|os.O_CREATE, strconv.Itoa(os.Getpid())+"\n")
}

// takeDownLock takes the lock of a data directory that is there. It leaves no
// process id: down is not to be asked to end by another down.
func takeDownLock(i instance) (*lock, error) { return openLock(i, os.O_RDWR, "") }

func openLock(i instance, flags int, text string) (*lock, error) {
	f, err := os.OpenFile(i.lockFile(), flags, 0o600)
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
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
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
