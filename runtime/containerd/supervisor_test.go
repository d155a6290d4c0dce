package containerd

import (
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"k8s.io/utils/clock"
)

// daemonName is containerd's.
const daemonName = "containerd"

var addressLine = regexp.MustCompile(`plugins."io.containerd.server.v1.grpc"\]\n *address = "(.*)"`)

// pretend is a containerd of the tests: it opens its socket, says that it is ready
// when there is somebody to tell, and waits to be ended.
func pretend() {
	config, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	socket := string(addressLine.FindSubmatch(config)[1])
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	if notify := os.Getenv("NOTIFY_SOCKET"); notify != "" {
		c, err := net.Dial("unixgram", notify)
		if err != nil {
			panic(err)
		}
		c.Write([]byte("READY=1"))
	}
	for {
		if _, err := l.Accept(); err != nil {
			return
		}
	}
}

// A containerd that serves is adopted. One whose supervisor died before it did is
// replaced, though its socket is open.
func TestStartAdoptsWhatIsReady(t *testing.T) {
	c := Config{DataDir: t.TempDir(), RunDir: t.TempDir(), BinDir: t.TempDir(), RegistryDir: t.TempDir()}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.binary(), self, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := c.writeConfig(); err != nil {
		t.Fatal(err)
	}
	beginning := exec.Command(c.binary(), "--config", c.configFile())
	if err := beginning.Start(); err != nil {
		t.Fatal(err)
	}
	go beginning.Wait() //nolint:errcheck // it is ended
	t.Cleanup(func() { beginning.Process.Kill() })
	for again := time.NewTicker(5 * time.Millisecond); !dialable(c.Endpoint()); <-again.C {
	}
	p, err := inspect(beginning.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePID(c.pidFile(), p); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for range 2 {
		s, err := Start(t.Context(), c, clock.RealClock{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, s.PID())
		t.Cleanup(s.Replace)
	}
	if p.alive() || pids[0] == p.PID || pids[1] != pids[0] {
		t.Errorf("the one that was beginning, %d, lives: %t; started: %v", p.PID, p.alive(), pids)
	}
}
