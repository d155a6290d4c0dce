package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A terminal runs a command as a person at a keyboard would.
type terminal struct {
	t      testing.TB
	master *os.File
	done   chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// newTerminal runs a command of the binary on a new terminal of rows and
// columns.
func newTerminal(t testing.TB, c *cluster, rows, columns uint16, args ...string) *terminal {
	t.Helper()
	master, slave, err := openTerminal(rows, columns)
	if err != nil {
		t.Fatal(err)
	}
	cmd := c.program(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: master, done: make(chan error, 1)}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			x.mu.Lock()
			x.out.Write(buffer[:n])
			x.mu.Unlock()
			if err != nil {
				break // the other side is closed
			}
		}
		x.done <- cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // fails when it has ended
		master.Close()
	})
	return x
}

func openTerminal(rows, columns uint16) (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// write types.
func (x *terminal) write(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// expect waits until the terminal has shown the text.
func (x *terminal) expect(text string) {
	x.t.Helper()
	await(x.t, fmt.Sprintf("the terminal shows %q", text), func() error {
		if got := x.shown(); !strings.Contains(got, text) {
			return fmt.Errorf("it shows %q", got)
		}
		return nil
	})
}

// resize makes the window another size.
func (x *terminal) resize(rows, columns uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		x.t.Fatal(err)
	}
}
