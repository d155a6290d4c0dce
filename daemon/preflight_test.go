package daemon

import (
	"errors"
	"net"
	"strings"
	"testing"
)

func goodHost() host {
	fine := func() error { return nil }
	return host{filesystems: "nodev\tproc\nnodev\toverlay\n", controllers: []string{"cpu", "memory", "pids"}, veth: fine, nftables: fine}
}

// A missing kernel feature is one sentence that names it and what would help.
func TestPreflightNamesWhatIsMissing(t *testing.T) {
	broken := errors.New("operation not supported")
	for want, spoil := range map[string]func(*host){
		"root":                     func(h *host) { h.uid = 1000 },
		"overlayfs":                func(h *host) { h.filesystems = "nodev\tproc\n\text4\n" },
		"cgroup controller memory": func(h *host) { h.controllers = []string{"cpu", "pids"} },
		"cgroup controller cpu":    func(h *host) { h.controllers = []string{} },
		"no cgroup hierarchy is mounted at /sys/fs/cgroup": func(h *host) { h.controllers = nil },
		"veth":     func(h *host) { h.veth = func() error { return broken } },
		"nftables": func(h *host) { h.nftables = func() error { return broken } },
	} {
		h := goodHost()
		spoil(&h)
		err := preflight(h)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := preflight(goodHost()); err != nil {
		t.Error(err)
	}
}

func TestThisHostPasses(t *testing.T) {
	if err := preflight(thisHost()); err != nil {
		t.Error(err)
	}
}

func TestBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if _, err := freePort(l.Addr().String(), "listen"); err == nil || !strings.Contains(err.Error(), "port "+port+" is in use") {
		t.Errorf("busy port: %v", err)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	i := instance{dir: t.TempDir()}
	held, err := takeLock(i)
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(i)
	var used errInUse
	if !errors.As(err, &used) || used.pid == 0 {
		t.Errorf("second lock: %v", err)
	}
	if err := held.release(); err != nil {
		t.Fatal(err)
	}
	if held, err = takeLock(i); err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := held.release(); err != nil {
		t.Error(err)
	}
}
