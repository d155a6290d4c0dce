package containerd

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a shim wrote of a container's end is kept for as long as the container is
// there.
func TestExits(t *testing.T) {
	c := Config{DataDir: t.TempDir(), RunDir: t.TempDir()}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bundles := filepath.Join(c.stateDir(), "io.containerd.runtime.v2.task", criNamespace)
	containers := filepath.Join(c.rootDir(), "io.containerd.grpc.v1.cri", "containers")
	for _, id := range []string{"ended", "running", "odd"} {
		write(filepath.Join(bundles, id, "config.json"), "{}")
		write(filepath.Join(containers, id, "status"), "{}")
	}
	write(filepath.Join(bundles, "ended", "exit.json"), `{"Timestamp":"2026-01-02T03:04:05.6Z","Pid":7,"Status":5}`)
	write(filepath.Join(bundles, "odd", "exit.json"), `{`)
	keep := func() {
		t.Helper()
		if err := c.keepExits(); err != nil {
			t.Fatal(err)
		}
	}
	keep()
	if err := os.RemoveAll(bundles); err != nil { // as containerd does when it starts
		t.Fatal(err)
	}
	keep()
	if code, at, known := c.Exit("ended"); code != 5 || !known || !at.Equal(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)) {
		t.Errorf("exit %d at %s, %v", code, at, known)
	}
	for _, id := range []string{"running", "odd", "other"} {
		if code, _, known := c.Exit(id); known {
			t.Errorf("%s: exit %d", id, code)
		}
	}
	if err := os.RemoveAll(filepath.Join(containers, "ended")); err != nil {
		t.Fatal(err)
	}
	keep()
	if _, _, known := c.Exit("ended"); known {
		t.Error("the exit of a container that was removed is kept")
	}
}
