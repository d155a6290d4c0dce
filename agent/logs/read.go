package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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
// Each whole line reaches out in one Write.
func Read(ctx context.Context, file string, o Options, ended <-chan struct{}, out io.Writer) error {
	if o.Tail == 0 && !o.Follow || o.Limit == 0 {
		return nil
	}
	f, err := open(ctx, file, o, ended)
	if err != nil {
		return err
	}
	r := &reader{path: file, file: f, o: o, out: out}
	defer func() { r.file.Close() }()
	if o.Tail >= 0 {
		at, err := tailOffset(f, o)
		if err != nil {
			return fmt.Errorf("find the last %d lines of %s: %w", o.Tail, file, err)
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	r.buf = bufio.NewReader(f)
	err = r.run(ctx, ended)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// open waits for the file when following a container that has not logged yet.
func open(ctx context.Context, file string, o Options, ended <-chan struct{}) (*os.File, error) {
	f, err := os.Open(file)
	if err == nil || !o.Follow || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	w, werr := dirwatch.New(dirwatch.Writes, filepath.Dir(file))
	if werr != nil {
		return nil, err
	}
	defer w.Close()
	for {
		f, err := os.Open(file)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		select {
		case <-w.Changed:
		case <-ended:
			return os.Open(file)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// errEnough ends a read whose byte limit is reached.
var errEnough = errors.New("enough")

type reader struct {
	path    string
	file    *os.File
	buf     *bufio.Reader
	o       Options
	out     io.Writer
	pending []byte // the begun part of a record that is still being written
	middle  bool   // the last record was a part
	skip    bool   // … of a line that is not wanted
	written int64
}

func (r *reader) run(ctx context.Context, ended <-chan struct{}) error {
	var w *dirwatch.Watch
	if r.o.Follow {
		var err error
		if w, err = dirwatch.New(dirwatch.Writes, filepath.Dir(r.path)); err != nil {
			return fmt.Errorf("follow %s: %w", r.path, err)
		}
		defer w.Close()
	}
	over := false
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		if !r.o.Follow {
			return nil
		}
		if moved, err := r.next(); err != nil {
			return err
		} else if moved {
			continue
		}
		if over {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Changed:
		case <-ended:
			over = true // once more, for what came before the end
		}
	}
}

// drain copies what the file holds now.
func (r *reader) drain(ctx context.Context) error {
	for {
		line, err := r.buf.ReadSlice('\n')
		if err != nil {
			// Not the end of a record yet: keep it until the rest comes.
			r.pending = append(r.pending, line...)
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read %s: %w", r.path, err)
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

// next goes on to the new file after a rotation.
func (r *reader) next() (moved bool, err error) {
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	old, err1 := r.file.Stat()
	cur, err2 := f.Stat()
	if err := errors.Join(err1, err2); err != nil || os.SameFile(old, cur) {
		f.Close()
		return false, err
	}
	// What was written between the last read and the rename is still there.
	if err := r.drain(context.Background()); err != nil {
		f.Close()
		return false, err
	}
	r.file.Close()
	r.file, r.pending = f, nil
	r.buf.Reset(f)
	return true, nil
}

// record writes one record if it is wanted.
func (r *reader) record(line []byte) error {
	rec, err := parse(line)
	if err != nil {
		return nil // not a record: a file damaged by a crash is read on
	}
	if !r.middle {
		r.skip = rec.time.Before(r.o.Since)
	}
	begin := !r.middle
	r.middle = rec.partial
	if r.skip || r.o.Stream != "" && r.o.Stream != rec.stream {
		return nil
	}
	text := rec.text
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

// tailOffset finds where the last lines begin, reading backwards. With a
// stream chosen, lines of the other do not count.
func tailOffset(f *os.File, o Options) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || o.Tail == 0 {
		return end, err
	}
	const block = 32 << 10
	var found int64
	var tail []byte // begins in the middle of a record
	for at := end; at > 0; {
		size := min(int64(block), at)
		at -= size
		chunk := make([]byte, size, size+int64(len(tail)))
		if _, err := f.ReadAt(chunk, at); err != nil && err != io.EOF {
			return 0, err
		}
		data := append(chunk, tail...)
		// Take whole records from the back.
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte{'\n'}), '\n')
			if i < 0 {
				break
			}
			if endsLine(data[i+1:], o.Stream) {
				if found++; found > o.Tail {
					return at + int64(len(data)), nil
				}
			}
			data = data[:i+1]
		}
		tail = data
	}
	if endsLine(tail, o.Stream) {
		if found++; found > o.Tail {
			return int64(len(tail)), nil
		}
	}
	return 0, nil
}

// endsLine says whether a record ends a line that counts.
func endsLine(line []byte, stream string) bool {
	r, err := parse(line)
	return err == nil && !r.partial && (stream == "" || stream == r.stream)
}
