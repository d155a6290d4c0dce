// Package dirwatch tells of changes in directories. A file that is replaced, by
// a rename or through a link, is another file under the same name, so it is the
// directory that has to be watched.
package dirwatch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What is told of: Writes while a file grows and when who writes to it closes it,
// Files when one is complete.
const (
	Writes = unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF
	Files  = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_TO
)

// Watch tells of changes until it is closed.
type Watch struct {
	file *os.File
	fd   int
	mask uint32
	// Changed has something when there was a change since it was last empty.
	Changed chan struct{}
}

// New watches directories for Writes or Files.
func New(mask uint32, dirs ...string) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch directories: %w", err)
	}
	// As it is non-blocking, the file goes to the runtime's poller, and Close
	// ends a Read in progress.
	w := &Watch{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, mask: mask, Changed: make(chan struct{}, 1)}
	for _, dir := range dirs {
		if err := w.Add(dir); err != nil {
			w.Close()
			return nil, err
		}
	}
	go w.run()
	return w, nil
}

// Add watches another directory as well; one that is watched already stays so.
// It is not to be called after Close.
func (w *Watch) Add(dir string) error {
	if _, err := unix.InotifyAddWatch(w.fd, dir, w.mask); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	return nil
}

func (w *Watch) run() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.file.Read(buf); err != nil {
			return // closed
		}
		select {
		case w.Changed <- struct{}{}:
		default:
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() { w.file.Close() }
