// Package logindtest is a logind for tests, on a bus of its own: it shuts nothing
// down, but says so. It needs dbus-daemon.
package logindtest

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// Logind is one that ends with its test.
type Logind struct {
	// Address is that of its bus.
	Address string

	t     testing.TB
	delay time.Duration
	conn  *dbus.Conn
	locks chan lock
}

// lock is a pipe: whoever delays shutdowns has the other end open.
type lock struct{ ours, theirs *os.File }

// New starts a logind that has shutdowns delayed for at most delay.
func New(t testing.TB, delay time.Duration) *Logind {
	t.Helper()
	config := filepath.Join(t.TempDir(), "bus.conf")
	text := `<busconfig><type>session</type><listen>unix:path=` + filepath.Join(t.TempDir(), "bus") + `</listen><auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // it is killed
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	l := &Logind{Address: strings.TrimSpace(line), t: t, delay: delay, locks: make(chan lock, 10)}
	if l.conn, err = dbus.Connect(l.Address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	for _, iface := range []string{"org.freedesktop.login1.Manager", "org.freedesktop.DBus.Properties"} {
		if err := l.conn.Export(methods{l}, "/org/freedesktop/login1", iface); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.conn.RequestName("org.freedesktop.login1", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return l
}

// methods are what is called over the bus.
type methods struct{ l *Logind }

// Inhibit is org.freedesktop.login1.Manager.Inhibit.
func (m methods) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	if what != "shutdown" || mode != "delay" || who == "" || why == "" {
		m.l.t.Errorf("Inhibit(%s, %s, %s, %s)", what, who, why, mode)
	}
	fd := dbus.UnixFD(w.Fd())
	m.l.locks <- lock{r, w}
	return fd, nil
}

// Get is org.freedesktop.DBus.Properties.Get.
func (m methods) Get(_, property string) (dbus.Variant, *dbus.Error) {
	if property != "InhibitDelayMaxUSec" {
		return dbus.Variant{}, dbus.MakeFailedError(os.ErrNotExist)
	}
	return dbus.MakeVariant(uint64(m.l.delay.Microseconds())), nil
}

// Lock waits until somebody delays shutdowns. What it returns is at its end once
// that is over.
func (l *Logind) Lock() *os.File {
	l.t.Helper()
	var got lock
	select {
	case got = <-l.locks:
	case <-l.t.Context().Done():
		l.t.Fatal("nobody delays shutdowns")
	}
	l.t.Cleanup(func() { got.ours.Close() })
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		// Two are ours. Before the other has its copy, ours is not to be closed.
		n, err := opens(got.ours)
		if err != nil {
			l.t.Fatal(err)
		}
		if n > 2 {
			got.theirs.Close()
			return got.ours
		}
		select {
		case <-again.C:
		case <-l.t.Context().Done():
			l.t.Fatal("nobody has the lock")
		}
	}
}

// opens counts, over all processes, how often a pipe is open at either end.
func opens(pipe *os.File) (int, error) {
	info, err := pipe.Stat()
	if err != nil {
		return 0, err
	}
	link := fmt.Sprintf("pipe:[%d]", info.Sys().(*syscall.Stat_t).Ino)
	fds, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/fd/*")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc", fd)); err == nil && to == link {
			n++
		}
	}
	return n, nil
}

// Prepare says that the machine is about to go down, or is not after all.
func (l *Logind) Prepare(down bool) {
	l.t.Helper()
	if err := l.conn.Emit("/org/freedesktop/login1", "org.freedesktop.login1.Manager.PrepareForShutdown", down); err != nil {
		l.t.Fatal(err)
	}
}
