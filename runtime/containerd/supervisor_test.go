package containerd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

// daemonName is containerd's.
const daemonName = "containerd"

var addressLine = regexp.MustCompile(`plugins."io.containerd.server.v1.grpc"\]\n *address = "(.*)"`)

// pretend is a containerd of the tests: it opens its socket, says that it is ready
// when there is somebody to tell, and waits to be ended, or, where there is a file
// "dies" beside the socket, ends at once.
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
	if _, err := os.Stat(filepath.Join(filepath.Dir(socket), "dies")); err == nil {
		return
	}
	for {
		if _, err := l.Accept(); err != nil {
			return
		}
	}
}

// installPretend makes this program the carried containerd.
func installPretend(t *testing.T, c Config) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.binary(), self, 0o700); err != nil {
		t.Fatal(err)
	}
}

// A containerd that serves is adopted. One whose supervisor died before it did is
// replaced, though its socket is open.
func TestStartAdoptsWhatIsReady(t *testing.T) {
	c := Config{DataDir: t.TempDir(), RunDir: t.TempDir(), BinDir: t.TempDir(), RegistryDir: t.TempDir()}
	installPretend(t, c)
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

// pauses is a clock whose pauses are told, and last until it is set.
type pauses struct {
	*clocktesting.FakeClock
	asked chan time.Duration
}

func (p *pauses) After(d time.Duration) <-chan time.Time {
	c := p.FakeClock.After(d)
	p.asked <- d
	return c
}

// A containerd that ends as soon as it serves is started again after ever longer
// pauses, as one that does not start is; one that has served for long, at once.
func TestRunPausesBetweenDeaths(t *testing.T) {
	c := Config{DataDir: t.TempDir(), RunDir: t.TempDir(), BinDir: t.TempDir(), RegistryDir: t.TempDir()}
	installPretend(t, c)
	clk := &pauses{clocktesting.NewFakeClock(time.Unix(1e9, 0)), make(chan time.Duration, 16)}
	s, err := Start(t.Context(), c, clk, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Replace)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	dies := filepath.Join(c.RunDir, "dies")
	die := func() {
		t.Helper()
		if err := os.WriteFile(dies, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.Replace()
	}
	// lives ends a pause, and waits for a containerd that serves, and goes on to.
	lives := func(pause time.Duration) {
		t.Helper()
		was, late := s.PID(), time.Now().Add(30*time.Second)
		if err := os.Remove(dies); err != nil {
			t.Fatal(err)
		}
		clk.Step(pause)
		for again := time.NewTicker(5 * time.Millisecond); s.PID() == was || !s.current.Load().alive(); <-again.C {
			if time.Now().After(late) {
				t.Fatal("no containerd serves")
			}
		}
	}
	paused := func() time.Duration {
		t.Helper()
		select {
		case d := <-clk.asked:
			return d
		case <-time.After(30 * time.Second):
			t.Fatal("there was no pause")
			return 0
		}
	}
	die()
	for _, want := range []int{100, 200, 400, 800, 1600, 3200, 6400, 10000} {
		d := paused()
		if d != time.Duration(want)*time.Millisecond {
			t.Fatalf("the pause was %s, not %d ms", d, want)
		}
		clk.Step(d)
	}
	if d := paused(); d != mostPause {
		t.Errorf("the last pause was %s", d)
	}
	lives(mostPause)
	clk.Step(steady)
	die()
	if d := paused(); d != firstPause {
		t.Errorf("after one that served for long, and another that did not, the pause was %s", d)
	}
	lives(firstPause)
}
