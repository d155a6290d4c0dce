package containerd

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/utils/clock"
)

// shimName is the program that stands between containerd and a pod's containers.
const shimName = "containerd-shim-runc-v2"

// TestMain is also the shims of the tests: processes that wait to be ended.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == shimName {
		os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // its end is the end
		return
	}
	os.Exit(m.Run())
}

// startShim gives a process with the command line of a shim.
func startShim(t *testing.T, c Config, sandbox string) process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = []string{"/bin/" + shimName, "-namespace", "k8s.io", "-id", sandbox, "-address", c.Endpoint()}
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

// A shim that containerd has forgotten goes with the file of its network
// namespace; those of sandboxes that it lists stay, and so do another's.
func TestSweep(t *testing.T) {
	c := Config{RunDir: t.TempDir()}
	forgotten, known := startShim(t, c, "forgotten"), startShim(t, c, "known")
	others := startShim(t, Config{RunDir: t.TempDir()}, "others")
	namespaces := filepath.Join(c.stateDir(), "io.containerd.grpc.v1.cri", "netns")
	if err := os.MkdirAll(namespaces, 0o700); err != nil {
		t.Fatal(err)
	}
	gone, lived := filepath.Join(namespaces, "gone"), filepath.Join(namespaces, "lived")
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/ns/net", lived); err != nil {
		t.Fatal(err)
	}
	s := &Supervisor{config: c, clock: clock.RealClock{}, log: slog.New(slog.DiscardHandler)}
	s.left.Store(c.survey())
	late := startShim(t, c, "late") // made by the containerd of now
	asked := 0
	sweep := func() {
		t.Helper()
		err := s.Sweep(t.Context(), func(context.Context) ([]string, error) {
			asked++
			return []string{"known"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	for name, want := range map[string]struct {
		process
		alive bool
	}{"forgotten": {forgotten, false}, "known": {known, true}, "others": {others, true}, "late": {late, true}} {
		if want.process.alive() != want.alive {
			t.Errorf("the shim of %s lives: %t", name, !want.alive)
		}
	}
	if _, err := os.Lstat(gone); !os.IsNotExist(err) {
		t.Errorf("the forgotten namespace is there: %v", err)
	}
	if _, err := os.Lstat(lived); err != nil {
		t.Errorf("a namespace with processes is gone: %v", err)
	}
	if sweep(); asked != 1 {
		t.Errorf("asked %d times for what was left once", asked)
	}
}
