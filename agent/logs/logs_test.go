package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/agent/logs"
)

var start = time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)

func line(second int, stream, tag, text string) string {
	return fmt.Sprintf("%s %s %s %s\n", start.Add(time.Duration(second)*time.Second).Format(time.RFC3339Nano), stream, tag, text)
}

func write(t *testing.T, path string, text ...string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(text, "")); err != nil {
		t.Fatal(err)
	}
}

// PodLogOptions: each option against one log.
func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file,
		line(0, "stdout", "F", "one"),
		line(1, "stderr", "F", "oops"),
		line(2, "stdout", "P", "two "),
		line(3, "stdout", "P", "and "),
		line(4, "stdout", "F", "a half"),
		"garbage\n",
		line(5, "stdout", "F", ""),
		line(6, "stdout", "F", "six"))
	for name, c := range map[string]struct {
		change func(*logs.Options)
		want   string
	}{
		"all":         {func(*logs.Options) {}, "one\noops\ntwo and a half\n\nsix\n"},
		"tail 1":      {func(o *logs.Options) { o.Tail = 1 }, "six\n"},
		"tail 3":      {func(o *logs.Options) { o.Tail = 3 }, "two and a half\n\nsix\n"},
		"tail many":   {func(o *logs.Options) { o.Tail = 99 }, "one\noops\ntwo and a half\n\nsix\n"},
		"tail 0":      {func(o *logs.Options) { o.Tail = 0 }, ""},
		"since":       {func(o *logs.Options) { o.Since = start.Add(2 * time.Second) }, "two and a half\n\nsix\n"},
		"limit":       {func(o *logs.Options) { o.Limit = 6 }, "one\noo"},
		"stderr":      {func(o *logs.Options) { o.Stream = logs.Stderr }, "oops\n"},
		"stdout tail": {func(o *logs.Options) { o.Stream, o.Tail = logs.Stdout, 3 }, "two and a half\n\nsix\n"},
		"timestamps": {func(o *logs.Options) { o.Timestamps, o.Tail = true, 3 },
			"2026-01-02T15:04:02Z two and a half\n2026-01-02T15:04:05Z \n2026-01-02T15:04:06Z six\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := logs.All()
			c.change(&o)
			var out bytes.Buffer
			if err := logs.Read(t.Context(), file, o, nil, &out); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got %q, want %q", out.String(), c.want)
			}
		})
	}
}

// A log that is larger than any buffer: the tail is that of a plain reading.
func TestTailOfLargeLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	var text, want strings.Builder
	for i := range 5000 {
		s := strings.Repeat("x", i%200)
		text.WriteString(line(i, "stdout", "P", s) + line(i, "stdout", "F", fmt.Sprint(i)))
		if i >= 5000-1234 {
			fmt.Fprintf(&want, "%s%d\n", s, i)
		}
	}
	write(t, file, text.String())
	o := logs.All()
	o.Tail = 1234
	var out bytes.Buffer
	if err := logs.Read(t.Context(), file, o, nil, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Errorf("got %d bytes, want %d", out.Len(), want.Len())
	}
}

// follower reads a followed log line by line.
func follower(t *testing.T, ctx context.Context, file string, o logs.Options, ended <-chan struct{}) (next func() string, result <-chan error) {
	t.Helper()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := logs.Read(ctx, file, o, ended, w)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	return func() string {
		var line []byte
		one := make([]byte, 1)
		for {
			if _, err := r.Read(one); err != nil {
				return string(line) + "EOF"
			}
			line = append(line, one[0])
			if one[0] == '\n' {
				return string(line)
			}
		}
	}, done
}

// Following: what is written is seen, across a rotation, until the end.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "0.log")
	ended := make(chan struct{})
	o := logs.All()
	o.Follow = true
	// The file comes after the reader.
	next, done := follower(t, t.Context(), file, o, ended)
	write(t, file, line(0, "stdout", "F", "one"))
	expect(t, next(), "one\n")
	// A record that arrives in two pieces.
	two := line(1, "stdout", "F", "two")
	write(t, file, two[:20])
	write(t, file, two[20:])
	expect(t, next(), "two\n")
	if err := logs.Rotate(file, 1, 5, start, func() error { write(t, file, line(2, "stdout", "F", "three")); return nil }); err != nil {
		t.Fatal(err)
	}
	expect(t, next(), "three\n")
	write(t, file, line(3, "stdout", "F", "four"))
	close(ended)
	expect(t, next(), "four\n")
	expect(t, next(), "EOF")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowCancelled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file, line(0, "stdout", "F", "one"))
	ctx, cancel := context.WithCancel(t.Context())
	o := logs.All()
	o.Follow, o.Tail = true, 0
	next, done := follower(t, ctx, file, o, nil)
	write(t, file, line(1, "stdout", "F", "two"))
	_ = next
	cancel()
	go func() { next() }()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// Rotation: the newest file stays as it is, older ones are compressed, the
// oldest go.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "0.log")
	reopened := 0
	for i := range 6 {
		write(t, file, line(i, "stdout", "F", strings.Repeat("x", 100)))
		err := logs.Rotate(file, 100, 4, start.Add(time.Duration(i)*time.Hour), func() error { reopened++; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	write(t, file, "small")
	if err := logs.Rotate(file, 100, 4, start, func() error { t.Error("rotated a small log"); return nil }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	expect(t, strings.Join(names, " "), "0.log 0.log.20260102-180400.gz 0.log.20260102-190400.gz 0.log.20260102-200400")
	if reopened != 6 {
		t.Errorf("reopened %d times", reopened)
	}
	// A runtime that does not reopen keeps its file.
	write(t, file, strings.Repeat("y", 200))
	if err := logs.Rotate(file, 100, 4, start.Add(9*time.Hour), func() error { return errors.New("no") }); err == nil {
		t.Error("no error")
	}
	if data, err := os.ReadFile(file); err != nil || len(data) != 205 {
		t.Errorf("the log has %d bytes: %v", len(data), err)
	}
}
