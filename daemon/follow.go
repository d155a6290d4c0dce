package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"hansa.dev/hansa/internal/dirwatch"
)

// follow looks at a file now and whenever it may have changed, until the role
// ends, as the part of that name. look reads it, and may ask to be called again
// after a while though nothing changed.
func follow(l *lifecycle, name, file string, log *slog.Logger, look func(context.Context) (again time.Duration)) error {
	f := &follower{name: name, file: file, log: log, look: look}
	if err := f.watch(); err != nil {
		return fmt.Errorf("follow the %s: %w", name, err)
	}
	l.run(name, f.run)
	return nil
}

type follower struct {
	name, file string
	log        *slog.Logger
	look       func(context.Context) time.Duration
	dirs       *dirwatch.Watch
}

// watch watches the folder of the file's name, and of the file itself if the
// name is a link.
func (f *follower) watch() (err error) {
	if f.dirs == nil {
		if f.dirs, err = dirwatch.New(dirwatch.Files, filepath.Dir(f.file)); err != nil {
			return err
		}
	}
	target, err := filepath.EvalSymlinks(f.file)
	if err != nil {
		return nil //nolint:nilerr // it is not there for a moment, or for good: the reading says so
	}
	return f.dirs.Add(filepath.Dir(target))
}

func (f *follower) run(ctx context.Context) error {
	defer f.dirs.Close()
	// It may have changed since it was read.
	for {
		if err := f.watch(); err != nil {
			f.log.Error("follow the "+f.name, "error", err)
		}
		var again <-chan time.Time
		if after := f.look(ctx); after > 0 {
			again = time.After(after)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.dirs.Changed:
		case <-again:
		}
	}
}
