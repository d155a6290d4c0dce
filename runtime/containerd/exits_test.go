package containerd

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"hansa.dev/hansa/runtime"
)

// What was kept of a container's end is known for as long as the container is there.
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
	containers := filepath.Join(c.rootDir(), "io.containerd.grpc.v1.cri", "containers")
	for _, id := range []string{"ended", "killed", "running", "odd"} {
		write(filepath.Join(containers, id, "status"), "{}")
	}
	write(filepath.Join(c.exitsDir(), "ended"), `{"Timestamp":"2026-01-02T03:04:05.6Z","Pid":7,"Status":5}`)
	write(filepath.Join(c.exitsDir(), "killed"), `{"Timestamp":"2026-01-02T03:04:05.6Z","Pid":8,"Status":137,"OOMKilled":true}`)
	write(filepath.Join(c.exitsDir(), "odd"), `{`)
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	check := func(want map[string]runtime.Exit) {
		t.Helper()
		if err := c.forgetExits(); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"ended", "killed", "running", "odd", "other"} {
			is, expected := want[id]
			if e, known := c.Exit(id); known != expected || e != is {
				t.Errorf("%s: %+v, %v", id, e, known)
			}
		}
	}
	check(map[string]runtime.Exit{"ended": {Code: 5, At: at}, "killed": {Code: 137, At: at, OOMKilled: true}})
	if err := os.RemoveAll(filepath.Join(containers, "ended")); err != nil {
		t.Fatal(err)
	}
	check(map[string]runtime.Exit{"killed": {Code: 137, At: at, OOMKilled: true}})
}
