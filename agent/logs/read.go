package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/internal/dirwatch"
)

// Options choose what of a log is read.
type Options struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero for all
	Tail       int64     // lines from the end, < 0 for all
	Limit      int64     // bytes, < 0 for all
	// Stream is Stdout or Stderr, or empty for both.
	Stream string
}

// All reads the whole log.
func All() Options { return Options{Tail: -1, Limit: -1} }

// Read copies a container's log to out. When following it goes on until ended
// is closed and all that was written before has been read, or the context ends.
// Each whole line reaches out in one Write. Otherwise only the newest file is
// read, as the API documents it; if ended is closed, to the last line.
func Read(ctx context.Context, c clock.Clock, file string, o Options, ended <-chan struct{}, out io.Writer) error {
	if o.Tail == 0 && !o.Follow || o.Limit == 0 {
		return nil
	}
	s, err := openSet(file)
	if err != nil {
		return err
	}
	defer s.Close()
	r := &reader{clock: c, files: s, o: o, out: out, ended: ended}
	err = r.read(ctx, file)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// errEnough ends a read whose byte limit is reached.
var errEnough = errors.New("enough")

type reader struct {
	clock clock.Clock
	files set
	from  *source
	o     Options
	out   io.Writer
	// ended is closed when the container has ended.
	ended   <-chan struct{}
	pending []byte // the begun part of a record that is still being written
	lines   [2]lineState
	written int64
}

// lineState is where a reader is in the lines of one stream.
type lineState struct {
	middle bool // the last record was a part
	skip   bool // … of a line that is not wanted
}

func (r *reader) read(ctx context.Context, file string) (err error) {
	var changed <-chan struct{}
	if r.o.Follow {
		// Before anything is read, so that no change after that is missed.
		w, err := dirwatch.New(dirwatch.Writes, filepath.Dir(file))
		if err != nil {
			return fmt.Errorf("follow %s: %w", file, err)
		}
		defer w.Close()
		changed = w.Changed
	}
	if r.from, err = r.open(ctx, changed); err != nil {
		return err
	}
	defer func() { r.from.Close() }()
	if !r.o.Follow {
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
	if r.o.Tail >= 0 {
		at, err := tailOffset(r.from.file, r.o)
		if err != nil {
			return fmt.Errorf("find the last %d lines of %s: %w", r.o.Tail, file, err)
		}
		if _, err := r.from.file.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	if !r.o.Follow {
		return r.drain(ctx)
	}
	return r.follow(ctx, changed)
}

// open waits for the file when following a container that has not logged yet.
func (r *reader) open(ctx context.Context, changed <-chan struct{}) (*source, error) {
	for {
		from, err := r.files.newest()
		if err == nil || !r.o.Follow || !errors.Is(err, fs.ErrNotExist) {
			return from, err
		}
		select {
		case <-changed:
		case <-r.ended:
			return r.files.newest()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// The runtime says that a container has ended, or that it has opened a new log,
// and writes its last lines after that. It has closed the file when it is done;
// whether it has is asked after settleInterval, and while nothing happens ever less
// often, up to settleTime. After the end of a container others may have its output
// open and go on without a bound, so that is waited for at most for settleTime.
const (
	settleInterval = 20 * time.Millisecond
	settleTime     = time.Second
)

// settle waits until the log of a container that has ended is whole.
func (r *reader) settle(ctx context.Context) error {
	select {
	case <-r.ended:
	default:
		return nil
	}
	for n := settleTime / settleInterval; n > 0 && written(r.from.file); n-- {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.clock.After(settleInterval):
		}
	}
	return nil
}

// follow copies file after file.
func (r *reader) follow(ctx context.Context, changed <-chan struct{}) error {
	ended := r.ended
	var late <-chan time.Time
	over, force := false, false
	pause := settleInterval
	for {
		got, err := r.step(ctx, over, force)
		if err != nil || got == finished {
			return err
		}
		if got == moved {
			pause = settleInterval
			continue
		}
		var again <-chan time.Time
		if got == unsettled {
			again = r.clock.After(pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			pause = settleInterval
		case <-again:
			pause = min(2*pause, settleTime)
		case <-ended:
			over, ended, late = true, nil, r.clock.After(settleTime)
			pause = settleInterval
		case <-late:
			force = true
		}
	}
}

// What a step comes to.
type progress int

const (
	waiting   progress = iota // for more of the newest file
	unsettled                 // a file that is not the newest any more is written to still
	moved                     // to the next file
	finished                  // the container has ended, and all is read
)

// step copies what the file holds now, and goes on to the next after the last
// line; over says that the container has ended, force that the last line is not
// waited for any longer.
func (r *reader) step(ctx context.Context, over, force bool) (progress, error) {
	if err := r.drain(ctx); err != nil {
		return 0, err
	}
	next, err := r.files.after(r.from)
	if err != nil || next == nil && !over {
		return waiting, err
	}
	if !force && written(r.from.file) {
		if next != nil {
			next.Close()
		}
		return unsettled, nil
	}
	// What was written between the last read and now is there.
	err = r.drain(ctx)
	if next == nil {
		return finished, err
	}
	r.from.Close()
	r.from, r.pending = next, nil
	return moved, err
}

// drain copies what the file holds now.
func (r *reader) drain(ctx context.Context) error {
	for {
		line, err := r.from.in.ReadSlice('\n')
		if err != nil {
			// Not the end of a record yet: keep it until the rest comes.
			r.pending = append(r.pending, line...)
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read %s: %w", r.from.file.Name(), err)
		}
		if len(r.pending) > 0 {
			line = append(r.pending, line...)
			r.pending = nil
		}
		if err := r.record(line); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// record writes one record if it is wanted.
func (r *reader) record(text []byte) error {
	rec, err := parse(text)
	if err != nil {
		return nil // not a record: a file damaged by a crash is read on
	}
	line := &r.lines[streamIndex(rec.stream)]
	begin := !line.middle
	if begin {
		line.skip = rec.time.Before(r.o.Since)
	}
	line.middle = rec.partial
	if line.skip || r.o.Stream != "" && r.o.Stream != rec.stream {
		return nil
	}
	text = rec.text
	if r.o.Timestamps && begin {
		text = append(append([]byte(rec.time.Format(time.RFC3339Nano)), ' '), text...)
	}
	return r.write(text)
}

func (r *reader) write(text []byte) error {
	enough := false
	if r.o.Limit >= 0 && r.written+int64(len(text)) >= r.o.Limit {
		text, enough = text[:r.o.Limit-r.written], true
	}
	n, err := r.out.Write(text)
	r.written += int64(n)
	if err != nil {
		return fmt.Errorf("send log: %w", err)
	}
	if enough {
		return errEnough
	}
	return nil
}
