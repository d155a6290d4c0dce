package logs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/logs"
)

// container logs as a runtime does: when it opens the file anew it still has
// lines for the one before, which it closes some time later.
type container struct {
	file  string
	files []string // what was logged to each, as it is read
	open  map[int]*os.File
	line  int
}

func newContainer(file string) (*container, error) {
	c := &container{file: file, open: map[int]*os.File{}}
	return c, c.reopen()
}

func (c *container) reopen() error {
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	c.open[len(c.files)] = f
	c.files = append(c.files, "")
	return err
}

func (c *container) newest() int { return len(c.files) - 1 }

// log writes a record to one of the files that are open.
func (c *container) log(file int, stream, tag string) error {
	text := fmt.Sprintf("%d in %d", c.line, file)
	_, err := c.open[file].WriteString(line(c.line, stream, tag, text))
	if tag == "F" {
		text += "\n"
	}
	c.files[file] += text
	c.line++
	return err
}

func (c *container) close(file int) error {
	f := c.open[file]
	delete(c.open, file)
	return f.Close()
}

func (c *container) rotate(keep int) error {
	return logs.Rotate(c.file, 1, keep, start, c.reopen)
}

func must(t interface {
	Helper()
	Fatal(...any)
}, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// following are the options of who follows a whole log.
func following() logs.Options {
	o := logs.All()
	o.Follow = true
	return o
}

// follower reads a followed log line by line.
func follower(t *testing.T, ctx context.Context, file string, o logs.Options, ended <-chan struct{}) (next func() string, result <-chan error) {
	t.Helper()
	return followerAt(ctx, clock.RealClock{}, file, o, ended)
}

func followerAt(ctx context.Context, c clock.Clock, file string, o logs.Options, ended <-chan struct{}) (next func() string, result <-chan error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := logs.Read(ctx, c, file, o, ended, w)
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

// Rotation: the runtime opens the new file before it has written its last lines
// to the old one.
func TestFollowRotationWithLateLines(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"))
	ended := make(chan struct{})
	next, _ := follower(t, t.Context(), c.file, following(), ended)
	expect(t, next(), "0 in 0\n")
	must(t, c.rotate(5), c.log(1, "stdout", "F"), c.log(0, "stdout", "F"))
	expect(t, next(), "2 in 0\n")
	must(t, c.log(0, "stdout", "F"), c.close(0))
	expect(t, next(), "3 in 0\n")
	expect(t, next(), "1 in 1\n")
	must(t, c.close(1))
	close(ended)
	expect(t, next(), "EOF")
}

// Rotation: who reads slowly finds what was rotated several times and compressed
// meanwhile, also after the pod is gone.
func TestFollowSlowlyAcrossRotations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "main")
	must(t, os.Mkdir(dir, 0o755))
	c, err := newContainer(filepath.Join(dir, "0.log"))
	must(t, err, c.log(0, "stdout", "F"), c.log(0, "stdout", "F"))
	ended := make(chan struct{})
	next, done := follower(t, t.Context(), c.file, following(), ended)
	expect(t, next(), "0 in 0\n") // from now on it waits to hand on the second
	for range 4 {
		must(t, c.rotate(10), c.close(c.newest()-1), c.log(c.newest(), "stdout", "F"))
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*.gz")); len(found) != 3 || err != nil {
		t.Errorf("compressed are %q, %v", found, err)
	}
	must(t, c.close(4), os.Rename(dir, dir+".gone"))
	close(ended)
	for _, want := range []string{"1 in 0\n", "2 in 1\n", "3 in 2\n", "4 in 3\n", "5 in 4\n", "EOF"} {
		expect(t, next(), want)
	}
	must(t, <-done)
}

// asked is a clock that tells what is waited for.
type asked struct {
	*clocktesting.FakeClock
	pauses chan time.Duration
}

func (a asked) After(d time.Duration) <-chan time.Time {
	defer func() { a.pauses <- d }()
	return a.FakeClock.After(d)
}

// pass lets time pass until a pause is asked for.
func (a asked) pass(t *testing.T, until time.Duration) {
	t.Helper()
	for range 100 {
		d := <-a.pauses
		if d == until {
			return
		}
		a.Step(d)
	}
	t.Fatalf("nobody waits for %s", until)
}

// Somebody keeps the old file open for long: whether he still does is asked ever less
// often, and at once when something happens.
func TestFollowAsksLessOften(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"))
	ended, clk := make(chan struct{}), asked{clocktesting.NewFakeClock(start), make(chan time.Duration, 1000)}
	next, done := followerAt(t.Context(), clk, c.file, following(), ended)
	expect(t, next(), "0 in 0\n")
	must(t, c.rotate(5), c.log(1, "stdout", "F"))
	clk.pass(t, time.Second)
	must(t, c.log(0, "stdout", "F"))
	expect(t, next(), "2 in 0\n")
	clk.pass(t, 20*time.Millisecond)
	must(t, c.close(0))
	defer close(clk.pauses)
	go func() {
		for d := range clk.pauses {
			clk.Step(d)
		}
	}()
	expect(t, next(), "1 in 1\n")
	must(t, c.close(1))
	close(ended)
	expect(t, next(), "EOF")
	must(t, <-done)
}

// The end: the runtime tells of it before it has written the last line.
func TestFollowToLastLine(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"))
	ended, clk := make(chan struct{}), clocktesting.NewFakeClock(start)
	next, done := followerAt(t.Context(), clk, c.file, following(), ended)
	expect(t, next(), "0 in 0\n")
	close(ended)
	waiting(clk)
	must(t, c.log(0, "stdout", "F"))
	expect(t, next(), "1 in 0\n")
	must(t, c.close(0))
	clk.Step(20 * time.Millisecond)
	expect(t, next(), "EOF")
	must(t, <-done)
}

// The end: somebody else keeps the container's output open.
func TestFollowEndsThoughLogIsOpen(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"))
	defer c.close(0)
	ended, clk := make(chan struct{}), clocktesting.NewFakeClock(start)
	next, done := followerAt(t.Context(), clk, c.file, following(), ended)
	expect(t, next(), "0 in 0\n")
	close(ended)
	waiting(clk)
	clk.Step(time.Second)
	expect(t, next(), "EOF")
	must(t, <-done)
}

// A log of a container that has ended is read when it is whole.
func TestReadToLastLine(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"))
	ended, clk := make(chan struct{}), clocktesting.NewFakeClock(start)
	close(ended)
	o := logs.All()
	o.Tail = 1
	next, done := followerAt(t.Context(), clk, c.file, o, ended)
	waiting(clk)
	must(t, c.log(0, "stdout", "F"), c.close(0))
	clk.Step(20 * time.Millisecond)
	expect(t, next(), "1 in 0\n")
	expect(t, next(), "EOF")
	must(t, <-done)
}

// waiting waits until somebody waits for the clock.
func waiting(clk *clocktesting.FakeClock) {
	for !clk.HasWaiters() {
		runtime.Gosched()
	}
}

// In the middle of a rotation the log has no file of its name.
func TestReadWhileRotated(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"), c.close(0))
	ended := make(chan struct{})
	var next func() string
	err = logs.Rotate(c.file, 1, 5, start, func() error {
		var out strings.Builder
		must(t, logs.Read(t.Context(), clock.RealClock{}, c.file, logs.All(), nil, &out))
		expect(t, out.String(), "0 in 0\n")
		next, _ = follower(t, t.Context(), c.file, following(), ended)
		expect(t, next(), "0 in 0\n")
		return errors.New("no") // the file has its name back
	})
	if err == nil {
		t.Error("a failure to reopen is not told")
	}
	c.open[0], err = os.OpenFile(c.file, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err, c.log(0, "stdout", "F"))
	expect(t, next(), "1 in 0\n")
	must(t, c.rotate(5), c.close(0), c.log(1, "stdout", "F"))
	expect(t, next(), "2 in 1\n")
	must(t, c.close(1))
	close(ended)
	expect(t, next(), "EOF")
}

// Whatever is logged, rotated, compressed and removed while somebody follows as
// slowly as he likes, he reads file after file, each from its first to its last
// record, and misses only files that were removed.
func TestFollowProperty(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		must(t, err)
		keep := rapid.IntRange(2, 6).Draw(t, "keep")
		c, err := newContainer(filepath.Join(dir, "0.log"))
		must(t, err, c.log(0, "stdout", "F"))
		ended := make(chan struct{})
		allow, begun, result := slowFollower(c.file, ended)
		allow <- struct{}{}
		<-begun
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"log", "log", "late", "close", "rotate", "read"}).Draw(t, "step") {
			case "log":
				stream := rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream")
				must(t, c.log(c.newest(), stream, rapid.SampledFrom([]string{"F", "P"}).Draw(t, "tag")))
			case "late":
				file := rapid.IntRange(0, c.newest()).Draw(t, "file")
				if c.open[file] != nil {
					must(t, c.log(file, "stdout", "F"))
				}
			case "close":
				file := rapid.IntRange(0, c.newest()).Draw(t, "file")
				if c.open[file] != nil && file != c.newest() {
					must(t, c.close(file))
				}
			case "rotate":
				must(t, c.rotate(keep))
			case "read":
				for range rapid.IntRange(1, 10).Draw(t, "records") {
					allow <- struct{}{}
				}
			}
		}
		for file := range c.open {
			must(t, c.close(file))
		}
		if rapid.Bool().Draw(t, "gone") {
			must(t, os.Rename(dir, dir+".gone"))
			dir += ".gone"
		}
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) > keep {
			t.Fatalf("%d files are left", len(left))
		}
		close(ended)
		close(allow)
		got, removed := <-result, len(c.files)-len(left)
		must(t, got.err)
		rest := got.text
		for i, text := range c.files {
			after, ok := strings.CutPrefix(rest, text)
			if !ok && (i == 0 || i >= removed) {
				t.Fatalf("file %d of %d, %d of them removed, has %q; the reader is at %q", i, len(c.files), removed, text, rest)
			}
			rest = after
		}
		if rest != "" {
			t.Fatalf("read is %q", rest)
		}
	})
}

type readResult struct {
	text string
	err  error
}

// slowFollower follows a log, but hands on only as many records as it is allowed
// to; all when that is closed. It says when it has begun.
func slowFollower(file string, ended <-chan struct{}) (allow chan<- struct{}, begun <-chan struct{}, result <-chan readResult) {
	r, w := io.Pipe()
	permits, first, results := make(chan struct{}, 1000), make(chan struct{}), make(chan readResult, 1)
	failed := make(chan error, 1)
	go func() {
		err := logs.Read(context.Background(), clock.RealClock{}, file, following(), ended, w)
		w.Close()
		failed <- err
	}()
	go func() {
		var text strings.Builder
		buf := make([]byte, 1000)
		for reads := 0; ; reads++ {
			<-permits
			n, err := r.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				results <- readResult{text.String(), <-failed}
				return
			}
			if reads == 0 {
				close(first)
			}
		}
	}()
	return permits, first, results
}
