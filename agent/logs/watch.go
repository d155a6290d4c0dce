package logs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dirWatch says when files in a directory grow or are renamed. A rotation is a
// rename, so the directory is watched and not the file.
type dirWatch struct {
	file    *os.File
	changed chan struct{}
}

func watchDir(dir string) (*dirWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	// As it is non-blocking, the file goes to the runtime's poller, and Close
	// ends a Read in progress.
	w := &dirWatch{file: os.NewFile(uintptr(fd), "inotify:"+dir), changed: make(chan struct{}, 1)}
	go w.run()
	return w, nil
}

func (w *dirWatch) run() {
	buf := make([]byte, 4096)
	for {
		if _, err := w.file.Read(buf); err != nil {
			return // closed
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *dirWatch) close() { w.file.Close() }
