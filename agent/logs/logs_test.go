package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"
	"pgregory.net/rapid"

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
			if err := logs.Read(t.Context(), clock.RealClock{}, file, o, nil, &out); err != nil {
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
	if err := logs.Read(t.Context(), clock.RealClock{}, file, o, nil, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Errorf("got %d bytes, want %d", out.Len(), want.Len())
	}
}

// "since" is asked of each line's first record, of each stream for itself.
func TestReadSinceWithinLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "0.log")
	write(t, file,
		line(0, "stdout", "P", "old "),
		line(2, "stderr", "P", "new "),
		line(3, "stdout", "F", "line"),
		line(4, "stderr", "F", "line"))
	o := logs.All()
	o.Since = start.Add(time.Second)
	var out bytes.Buffer
	must(t, logs.Read(t.Context(), clock.RealClock{}, file, o, nil, &out))
	expect(t, out.String(), "new line\n")
}

// --tail counts lines, whatever records they are cut into, of one stream or of
// both: a slow twin reads all. A line that has no end yet is one.
func TestTailProperty(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		must(t, err)
		file := filepath.Join(dir, "0.log")
		type record struct{ stream, tag, text string }
		records := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) record {
			return record{
				rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream"), rapid.SampledFrom([]string{"F", "P"}).Draw(t, "tag"),
				strings.Repeat("x", rapid.SampledFrom([]int{0, 1, 9000}).Draw(t, "length")),
			}
		}), 0, 40).Draw(t, "records")
		stream := rapid.SampledFrom([]string{"", "stdout", "stderr"}).Draw(t, "asked")
		tail := rapid.IntRange(1, 20).Draw(t, "tail")

		var text strings.Builder
		for i := range records {
			r := &records[i]
			r.text = fmt.Sprint(i, r.text)
			text.WriteString(line(i, r.stream, r.tag, r.text))
		}
		// Of an unfinished record nothing is shown.
		text.WriteString("2026-01-02T15:04:05Z stdout F unfinis")
		must(t, os.WriteFile(file, []byte(text.String()), 0o600))
		first, lines, seen := len(records), 0, map[string]bool{}
		for i, r := range slices.Backward(records) {
			if stream == "" || stream == r.stream {
				if r.tag == "F" || !seen[r.stream] {
					lines++
				}
				seen[r.stream] = true
			}
			if lines > tail {
				break
			}
			first = i
		}
		want := ""
		for _, r := range records[first:] {
			if stream == "" || stream == r.stream {
				want += r.text
				if r.tag == "F" {
					want += "\n"
				}
			}
		}
		o := logs.All()
		o.Tail, o.Stream = int64(tail), stream
		var got, gone strings.Builder
		must(t, logs.Read(context.Background(), clock.RealClock{}, file, o, nil, &got))
		must(t, logs.ReadFiles(context.Background(), []string{file}, o, &gone))
		if got.String() != want || gone.String() != want {
			t.Fatalf("got %q, of a pod that is gone %q, want %q", got.String(), gone.String(), want)
		}
	})
}
