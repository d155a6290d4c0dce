package cri_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	crv1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/containerd"
	"hansa.dev/hansa/runtime/cri"
	"hansa.dev/hansa/runtime/runtimetest"
)

const image = "hansa.local/runtimetest:1"

// binDir is where `make build` leaves the carried programs.
func binDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks("../../.cache/carried/current")
	if err != nil {
		t.Fatalf("the carried programs are not built; run make build first: %v", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func config(t *testing.T) containerd.Config {
	t.Helper()
	id := fmt.Sprintf("t%07x", os.Getpid())
	data := t.TempDir()
	return containerd.Config{
		DataDir: data, RunDir: "/run/hansa/" + id, BinDir: binDir(t), CgroupRoot: "/hansa/" + id,
		CNIDir: filepath.Join(data, "cni"), RegistryDir: filepath.Join(data, "registry"), RestrictOOM: true,
	}
}

func up(t *testing.T, c containerd.Config) (*containerd.Supervisor, *cri.Client) {
	t.Helper()
	s, err := containerd.Start(context.Background(), c, clock.RealClock{}, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	client, err := cri.Dial(c.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Image(context.Background(), containerd.PauseImage); err != nil {
		pause, err := c.PauseArchive()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.ImportImage(context.Background(), pause); err != nil {
			t.Fatal(err)
		}
	}
	return s, client
}

func down(t *testing.T, c containerd.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := containerd.Down(ctx, c, clock.RealClock{}); err != nil {
		t.Error(err)
	}
}

func TestContainerd(t *testing.T) {
	c := config(t)
	t.Cleanup(func() { down(t, c) })
	_, client := up(t, c)
	runtimetest.Run(t, runtimetest.Harness{
		New:         func(t *testing.T) runtime.Runtime { return client },
		Archive:     busybox,
		Image:       image,
		HostNetwork: true,
	})
	// How a container ended is noted until its status is written, or it is gone, and
	// then until the next one ends.
	if left, err := os.ReadDir(filepath.Join(c.DataDir, "containerd", "exits")); err != nil || len(left) > 2 {
		t.Errorf("%d exits are noted, %v", len(left), err)
	}
}

// Containerd takes each setting that it is given: it ignores keys that it does not
// know, such as those of another section or of an older version.
func TestContainerdTakesSettings(t *testing.T) {
	c := config(t)
	t.Cleanup(func() { down(t, c) })
	up(t, c)
	file := filepath.Join(c.DataDir, "containerd", "config.toml")
	asked, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	has, err := exec.CommandContext(t.Context(), filepath.Join(c.BinDir, "containerd"), "--config", file, "config", "dump").Output()
	if err != nil {
		t.Fatal(err)
	}
	given, taken := settings(string(asked)), settings(string(has))
	for key, value := range given {
		// What is to be imported is shown after the default, which is not.
		list, ok := strings.CutPrefix(value, "[")
		if taken[key] != value && !(ok && strings.HasSuffix(taken[key], " "+list)) {
			t.Errorf("%s is to be %s and is %q", key, value, taken[key])
		}
	}
	// A question to each shim each second, else.
	const period = "[plugins.io.containerd.cri.v1.runtime] stats_collect_period"
	if d, err := time.ParseDuration(taken[period]); err != nil || d < 24*time.Hour {
		t.Errorf("%s is %q: %v", period, taken[period], err)
	}
}

// settings are the lines "key = value" of a file in TOML, by section and key.
// Values of several lines are left out, and how things are quoted.
func settings(text string) map[string]string {
	out, section := map[string]string{}, ""
	plain := strings.NewReplacer(`"`, "", "'", "")
	for line := range strings.Lines(text) {
		line = plain.Replace(strings.TrimSpace(line))
		key, value, ok := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "["):
			section = line + " "
		case ok && value != "[":
			out[section+key] = value
		}
	}
	return out
}

// Containers belong to their shims: they run on while containerd is killed and
// started again, with the same process ids, and a second supervisor adopts what
// the first one started.
func TestContainersOutliveContainerd(t *testing.T) {
	c := config(t)
	t.Cleanup(func() { down(t, c) })
	s, client := up(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := client.ImportImage(ctx, busybox(t)); err != nil {
		t.Fatal(err)
	}
	id := started(t, client, c, "a", "trap exit TERM; while :; do sleep 1; done")
	before, err := client.ContainerStatus(ctx, id)
	if err != nil {
		t.Fatal(err)
	}

	second, err := containerd.Start(ctx, c, clock.RealClock{}, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if second.PID() != s.PID() {
		t.Errorf("containerd was started again: %d, then %d", s.PID(), second.PID())
	}

	ran := make(chan error, 1)
	go func() { ran <- second.Run(ctx) }()
	killed := second.PID()
	if err := unix.Kill(killed, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); second.PID() == killed; {
		if time.Now().After(deadline) {
			t.Fatal("containerd was not started again")
		}
	}
	after, err := client.ContainerStatus(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if after.State != crv1.ContainerState_CONTAINER_RUNNING || after.StartedAt != before.StartedAt {
		t.Errorf("container before %v, after %v", before, after)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}

	down(t, c)
	if _, err := os.Stat(c.RunDir); !os.IsNotExist(err) {
		t.Errorf("runtime directory after down: %v", err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(pattern + c.CgroupRoot); len(left) > 0 {
			t.Errorf("cgroups after down: %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(c.DataDir)) || bytes.Contains(mounts, []byte(c.RunDir)) {
		t.Errorf("mounts after down:\n%s", mounts)
	}
}

// busybox is a docker-archive with Debian's static busybox.
func busybox(t *testing.T) io.Reader {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is missing; run hack/setup: %v", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}))
	_, err = w.Write(program)
	must(err)
	for _, name := range []string{"sh", "sleep", "cat", "echo"} {
		must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}))
	}
	must(w.Close())
	cfg, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	must(err)
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{image}, "Layers": []string{"layer.tar"}}})
	must(err)
	var out bytes.Buffer
	w = tar.NewWriter(&out)
	for name, data := range map[string][]byte{"config.json": cfg, "layer.tar": layer.Bytes(), "manifest.json": manifest} {
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}))
		_, err := w.Write(data)
		must(err)
	}
	must(w.Close())
	return &out
}
