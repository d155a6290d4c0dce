package logs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/agent/logs"
)

// logged makes the logs of a pod with a container app.
func logged(t *testing.T, root, name string, lines ...string) {
	t.Helper()
	dir := filepath.Join(logs.PodDir(root, "ns", name, "uid-"+name), "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "0.log"), lines...)
}

func names(list []logs.Gone) string {
	var out []string
	for _, g := range list {
		out = append(out, g.Name)
	}
	return strings.Join(out, " ")
}

// Logs of pods that are gone: kept for a time, across restarts, and no more of
// them than there may be.
func TestKeepGone(t *testing.T) {
	root := t.TempDir()
	clock := testingclock.NewFakePassiveClock(start)
	limits := logs.Limits{For: time.Hour, Bytes: 250}
	k, err := logs.NewKeeper(root, limits, clock)
	if err != nil {
		t.Fatal(err)
	}
	take := func(name string, bytes int) {
		t.Helper()
		logged(t, root, name, strings.Repeat("x", bytes))
		if err := k.Take("ns", name, "uid-"+name); err != nil {
			t.Fatal(err)
		}
		clock.SetTime(clock.Now().Add(10 * time.Minute))
	}
	expect := func(want string) {
		t.Helper()
		if got := names(k.List("")); got != want {
			t.Errorf("kept: %q, want %q", got, want)
		}
		dirs, err := os.ReadDir(filepath.Join(root, ".gone"))
		if err != nil || len(dirs) != len(strings.Fields(want)) {
			t.Errorf("on disk: %v, %v; want %q", dirs, err, want)
		}
	}
	take("a", 100)
	take("b", 100)
	expect("b a")
	if err := k.Take("ns", "b", "uid-b"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	take("b", 90) // a static pod that came again
	expect("b a")
	if g, ok := k.Find("ns", "b", ""); !ok || g.Bytes != 90 || !g.Deleted.Equal(start.Add(20*time.Minute)) {
		t.Errorf("of its second life: %+v", g)
	}
	take("c", 100) // too much: the oldest goes
	expect("c b")
	if k, err = logs.NewKeeper(root, limits, clock); err != nil {
		t.Fatal(err)
	}
	expect("c b")
	if got := names(k.List("other")); got != "" {
		t.Errorf("of another namespace: %q", got)
	}
	if g, ok := k.Find("ns", "c", ""); !ok || g.UID != "uid-c" || g.Bytes != 100 || fmt.Sprint(g.Containers) != "[app]" || !g.Deleted.Equal(start.Add(30*time.Minute)) {
		t.Errorf("found %+v", g)
	}
	clock.SetTime(start.Add(81 * time.Minute)) // b went after 20
	if err := k.Prune(); err != nil {
		t.Fatal(err)
	}
	expect("c")
	if any, err := k.Release(); !any || err != nil {
		t.Errorf("release: %v, %v", any, err)
	}
	expect("")
	if any, _ := k.Release(); any {
		t.Error("there was something to release")
	}
}

// Who keeps nothing keeps nothing.
func TestKeepNone(t *testing.T) {
	root := t.TempDir()
	k, err := logs.NewKeeper(root, logs.Limits{Bytes: 1 << 30}, testingclock.NewFakePassiveClock(start))
	if err != nil {
		t.Fatal(err)
	}
	logged(t, root, "a", "x")
	if err := k.Take("ns", "a", "uid-a"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// A log is read as a whole, the rotated and compressed parts first; of several
// runs the newest, or the one before.
func TestReadGone(t *testing.T) {
	root := t.TempDir()
	clock := testingclock.NewFakePassiveClock(start)
	k, err := logs.NewKeeper(root, logs.Limits{For: time.Hour, Bytes: 1 << 20}, clock)
	if err != nil {
		t.Fatal(err)
	}
	logged(t, root, "p", line(0, "stdout", "F", "before"))
	app := filepath.Join(logs.PodDir(root, "ns", "p", "uid-p"), "app")
	file := filepath.Join(app, "10.log")
	for i := range 4 {
		write(t, file, line(2*i, "stdout", "F", fmt.Sprint("out ", i)), line(2*i+1, "stderr", "F", fmt.Sprint("err ", i)))
		if i < 3 {
			if err := logs.Rotate(file, 1, 5, start.Add(time.Duration(i)*time.Minute), func() error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.Take("ns", "p", "uid-p"); err != nil {
		t.Fatal(err)
	}
	g, _ := k.Find("ns", "p", "uid-p")
	for name, c := range map[string]struct {
		previous bool
		change   func(*logs.Options)
		want     string
	}{
		"whole":    {false, func(*logs.Options) {}, "out 0 err 0 out 1 err 1 out 2 err 2 out 3 err 3"},
		"previous": {true, func(*logs.Options) {}, "before"},
		"tail":     {false, func(o *logs.Options) { o.Tail = 3 }, "err 2 out 3 err 3"},
		"tail out": {false, func(o *logs.Options) { o.Tail, o.Stream = 3, logs.Stdout }, "out 1 out 2 out 3"},
		"since":    {false, func(o *logs.Options) { o.Since = start.Add(5 * time.Second) }, "err 2 out 3 err 3"},
		"limit":    {false, func(o *logs.Options) { o.Limit = 8 }, "out 0 er"},
		"much":     {false, func(o *logs.Options) { o.Tail = 100 }, "out 0 err 0 out 1 err 1 out 2 err 2 out 3 err 3"},
	} {
		files, err := k.Files(g, "app", c.previous)
		if err != nil {
			t.Fatal(err)
		}
		o := logs.All()
		c.change(&o)
		var out bytes.Buffer
		if err := logs.ReadFiles(t.Context(), files, o, &out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.TrimSpace(strings.ReplaceAll(out.String(), "\n", " ")); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if _, err := k.Files(g, "other", false); !os.IsNotExist(err) {
		t.Errorf("another container: %v", err)
	}
}
