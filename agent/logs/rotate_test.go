package logs_test

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/logs"
)

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
	expect(t, filesIn(t, dir), "0.log 0.log.20260102-180400.gz 0.log.20260102-190400.gz 0.log.20260102-200400")
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

// A rotation that was cut off between its steps is made up for: the runtime
// writes to the renamed file.
func TestRotateAfterCutOff(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"), os.Rename(c.file, c.file+".20260102-150405"))
	must(t, logs.Rotate(c.file, 1<<20, 5, start, c.reopen))
	if c.newest() != 1 {
		t.Errorf("the log was not opened again")
	}
	must(t, c.close(0), c.close(1))
	if err := logs.Rotate(filepath.Join(filepath.Dir(c.file), "gone", "0.log"), 1, 5, start, func() error { return errors.New("no") }); err != nil {
		t.Errorf("a log that is gone with its folder: %v", err)
	}
}

// A runtime that says no, but has opened a new file, writes to that.
func TestRotateThoughReopenFails(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"), c.close(0))
	err = logs.Rotate(c.file, 1, 5, start, func() error { must(t, c.reopen()); return errors.New("too late") })
	if err == nil {
		t.Error("no error")
	}
	must(t, c.log(1, "stdout", "F"), c.close(1))
	var out strings.Builder
	must(t, logs.Read(t.Context(), clock.RealClock{}, c.file, logs.All(), nil, &out))
	expect(t, out.String(), "1 in 1\n")
	if _, err := os.Stat(c.file + "." + start.Format("20060102-150405")); err != nil {
		t.Error(err)
	}
}

// Rotations in the same second, and after the clock went back: no file replaces
// another, and they sort as they came.
func TestRotateByBadClock(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, os.WriteFile(c.file+".bak", []byte("not a log"), 0o600))
	for n, at := range []time.Duration{0, 0, -time.Hour, time.Second} {
		must(t, c.log(n, "stdout", "F"), c.close(n), logs.Rotate(c.file, 1, 10, start.Add(at), c.reopen))
	}
	must(t, c.close(4))
	expect(t, filesIn(t, filepath.Dir(c.file)), "0.log 0.log.20260102-150400.gz 0.log.20260102-150401.gz 0.log.20260102-150402.gz 0.log.20260102-150403 0.log.bak")
	f, err := os.Open(c.file + ".20260102-150402.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	text, err := io.ReadAll(z)
	if !strings.HasSuffix(string(text), " 2 in 2\n") || err != nil {
		t.Errorf("the third file says %q, %v", text, err)
	}
}

// What is still written to is compressed later.
func TestRotateWhileOldIsWritten(t *testing.T) {
	c, err := newContainer(filepath.Join(t.TempDir(), "0.log"))
	must(t, err, c.log(0, "stdout", "F"), c.rotate(5), c.log(1, "stdout", "F"), c.rotate(5), c.close(1))
	expect(t, filesIn(t, filepath.Dir(c.file)), "0.log 0.log.20260102-150400 0.log.20260102-150401")
	must(t, c.log(0, "stdout", "F"), c.close(0), c.log(2, "stdout", "F"), c.rotate(5), c.close(2), c.close(3))
	expect(t, filesIn(t, filepath.Dir(c.file)), "0.log 0.log.20260102-150400.gz 0.log.20260102-150401.gz 0.log.20260102-150402")
}

// filesIn are the names of the files of a folder.
func filesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
