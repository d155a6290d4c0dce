package containerd

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/utils/clock"
)

// shimName is the program that stands between containerd and a pod's containers.
const shimName = "containerd-shim-runc-v2"

// TestMain is also the shims of the tests, processes that wait to be ended, and
// their containerd.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case shimName:
		os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // its end is the end
		return
	case daemonName:
		pretend()
		return
	}
	os.Exit(m.Run())
}

// startShim gives a process with the command line of a shim of a containerd's run.
func startShim(t *testing.T, c Config, sandbox, run string, more ...string) process {
	t.Helper()
	return startProcess(t, append([]string{"/bin/" + shimName, "-namespace", criNamespace, "-id", sandbox, "-address", c.Endpoint()}, more...), run)
}

func startProcess(t *testing.T, args []string, run string) process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = args
	cmd.Env = append(os.Environ(), runVariable+run)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait() //nolint:errcheck // it is killed
	t.Cleanup(func() { cmd.Process.Kill() })
	p, err := inspect(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sweeping is a supervisor whose containerd of now, a process without work, has
// a run of its own.
func sweeping(t *testing.T, c Config) *Supervisor {
	t.Helper()
	p := startProcess(t, []string{"/bin/" + shimName, "--config", c.configFile()}, "now")
	s := &Supervisor{config: c, clock: clock.RealClock{}, log: slog.New(slog.DiscardHandler)}
	s.current.Store(&p)
	return s
}

// bundle makes what containerd has of a container in a sandbox.
func bundle(t *testing.T, c Config, id, sandbox string) {
	t.Helper()
	dir := filepath.Join(c.stateDir(), "io.containerd.runtime.v2.task", criNamespace, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := `{"annotations":{"io.kubernetes.cri.sandbox-id":"` + sandbox + `"}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What containerds that died have left goes, by whether the one of now uses it: a
// shim without a bundle, of a sandbox that is not listed, or of one that is not
// ready. A shim that it makes is not listed yet and stays, and so do those of
// others.
func TestSweepRemovesForgottenShims(t *testing.T) {
	c := Config{RunDir: t.TempDir()}
	s := sweeping(t, c)
	shims := map[string]struct {
		process
		lives bool
	}{
		"ready":                    {startShim(t, c, "listed", "before"), true},
		"ready, bundle lost":       {startShim(t, c, "lost", "before"), false},
		"ready, container's alone": {startShim(t, c, "half", "before"), true},
		"not ready":                {startShim(t, c, "ended", "now"), false},
		"not listed":               {startShim(t, c, "unlisted", "before"), false},
		"not listed, no bundle":    {startShim(t, c, "nothing", "before"), false},
		"being made":               {startShim(t, c, "new", "now"), true},
		"starting for a dead one":  {startShim(t, c, "starting", "before", "start"), false},
		"clearing up":              {startShim(t, c, "clearing", "before", "delete"), true},
		"others'":                  {startShim(t, Config{RunDir: t.TempDir()}, "others", "before"), true},
	}
	for _, id := range []string{"listed", "unlisted", "new", "ended"} {
		bundle(t, c, id, id)
	}
	bundle(t, c, "container", "half")
	err := s.Sweep(t.Context(), func(context.Context) (map[string]bool, error) {
		return map[string]bool{"listed": true, "lost": true, "half": true, "ended": false}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, shim := range shims {
		if shim.alive() != shim.lives {
			t.Errorf("the shim that is %s lives: %t", name, !shim.lives)
		}
	}
}

// Namespaces that were there before containerd began and in which nothing runs
// go, also when the one who started it has died since: one that containerd has
// just made for a pod has no processes either.
func TestSweepRemovesForgottenNamespaces(t *testing.T) {
	c := Config{RunDir: filepath.Join(t.TempDir(), "a folder")}
	namespaces := filepath.Join(c.stateDir(), "io.containerd.grpc.v1.cri", "netns")
	if err := os.MkdirAll(namespaces, 0o700); err != nil {
		t.Fatal(err)
	}
	touch := func(name string) string {
		file := filepath.Join(namespaces, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	gone, lived := touch("gone"), filepath.Join(namespaces, "lived")
	if err := os.Symlink("/proc/self/ns/net", lived); err != nil {
		t.Fatal(err)
	}
	if err := c.noteNamespaces(); err != nil {
		t.Fatal(err)
	}
	made := touch("made")
	for range 2 { // by one after the other
		s := sweeping(t, c)
		if err := s.Sweep(t.Context(), func(context.Context) (map[string]bool, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(gone); !os.IsNotExist(err) {
		t.Errorf("the forgotten namespace is there: %v", err)
	}
	for _, file := range []string{lived, made} {
		if _, err := os.Lstat(file); err != nil {
			t.Errorf("a namespace in use is gone: %v", err)
		}
	}
}

// A control group of a container that containerd does not have goes, with what
// runs in it; one that has a bundle stays, and so does that of the pod.
func TestSweepRemovesForgottenGroups(t *testing.T) {
	c := Config{RunDir: t.TempDir(), CgroupRoot: "/hansa-test-" + strings.ToLower(rand.Text()[:8])}
	s := sweeping(t, c)
	root := "/sys/fs/cgroup/freezer" // version 1: one of the hierarchies does
	if _, err := os.Stat(root); err != nil {
		root = "/sys/fs/cgroup"
	}
	had, forgotten := strings.Repeat("a", 64), strings.Repeat("b", 64)
	pod := filepath.Join(root, c.CgroupRoot, "pods", "besteffort", "uid")
	for _, id := range []string{had, forgotten + "/inner"} {
		if err := os.MkdirAll(filepath.Join(pod, id), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { removeTree(context.Background(), s.clock, filepath.Join(root, c.CgroupRoot)) })
	bundle(t, c, had, had)
	stray := startProcess(t, []string{"/bin/" + shimName}, "before")
	if err := os.WriteFile(filepath.Join(pod, forgotten, "inner", "cgroup.procs"), []byte(strconv.Itoa(stray.PID)), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context(), func(context.Context) (map[string]bool, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	if stray.alive() {
		t.Error("the process in the forgotten group lives")
	}
	for id, want := range map[string]bool{had: true, forgotten: false} {
		if _, err := os.Stat(filepath.Join(pod, id)); (err == nil) != want {
			t.Errorf("group %s: %v", id, err)
		}
	}
}
