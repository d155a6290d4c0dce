// Package containerd supervises the carried containerd: a child process in a
// session of its own that outlives Hansa, as its shims outlive it.
//
//	absent ──start──▶ starting ──READY=1──▶ ready ──exit──▶ absent (backoff)
//	   ▲                                      ▲
//	   └── other binary or configuration ─────┴── adopted: alive from an earlier run
//
// Containers are untouched by all of this: they belong to their shims.
package containerd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// Supervisor keeps one containerd running.
type Supervisor struct {
	config  Config
	clock   clock.Clock
	log     *slog.Logger
	current atomic.Pointer[process]
}

// readyTimeout is how long containerd may take to come up on a slow disk.
const readyTimeout = 30 * time.Second

// Start adopts the containerd that an earlier run left behind, or starts one,
// and returns once it serves.
func Start(ctx context.Context, config Config, clk clock.Clock, log *slog.Logger) (*Supervisor, error) {
	s := &Supervisor{config: config, clock: clk, log: log}
	changed, err := config.writeConfig()
	if err != nil {
		return nil, err
	}
	if p, err := readPID(config.pidFile()); err == nil && p.alive() {
		// One that was still beginning when its supervisor died may have opened
		// its socket and not serve yet, and tells nobody when it does.
		if !changed && p.Ready && p.Exe == config.binary() && dialable(config.Endpoint()) {
			s.current.Store(&p)
			log.Info("adopted running containerd", "pid", p.PID)
			return s, nil
		}
		if err := end(ctx, clk, p); err != nil {
			return nil, fmt.Errorf("replace containerd: %w", err)
		}
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func dialable(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// end asks a process to stop, and insists after 10 seconds.
func end(ctx context.Context, clk clock.Clock, p process) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	patience, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-clk.After(10 * time.Second):
			cancel()
		case <-patience.Done():
		}
	}()
	if err := p.wait(patience.Done()); err != nil {
		return err
	}
	if !p.alive() {
		return nil
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.wait(ctx.Done())
}

// launch starts containerd and waits until it says that it is ready.
func (s *Supervisor) launch(ctx context.Context) error {
	c := s.config
	notify, err := listenNotify(filepath.Join(c.RunDir, "notify.sock"))
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer notify.Close()
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	defer log.Close()
	offset, _ := log.Seek(0, 2)
	if err := c.noteNamespaces(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	if err := c.forgetExits(); err != nil {
		s.log.Warn("not all is cleared away", "err", err)
	}

	cmd := exec.Command(c.binary(), "--config", c.configFile())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	// Containers' shims find runc by PATH. The heap limit trades a little CPU at
	// start for a smaller daemon at rest.
	cmd.Env = []string{
		"PATH=" + c.BinDir + ":" + os.Getenv("PATH"),
		"NOTIFY_SOCKET=" + notify.LocalAddr().String(),
		"GOGC=50",
		runVariable + rand.Text(),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	p, err := inspect(cmd.Process.Pid)
	if err == nil && c.Enter != nil {
		err = c.Enter(p.PID)
	}
	if err == nil {
		err = writePID(c.pidFile(), p)
	}
	if err != nil {
		cmd.Process.Kill() //nolint:errcheck // it is ending in any case
		<-exited
		return fmt.Errorf("start containerd: %w%s", err, lastWords(c.logFile(), offset))
	}

	ready := make(chan error, 1)
	go func() { ready <- awaitReady(notify) }()
	timeout := s.clock.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case err = <-ready:
		if p.Ready = err == nil; p.Ready {
			err = writePID(c.pidFile(), p)
		}
	case err = <-exited:
		err = fmt.Errorf("containerd ended: %v", err)
		exited <- err
	case <-timeout.C():
		err = fmt.Errorf("containerd was not ready after %s", readyTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		cmd.Process.Kill() //nolint:errcheck // it is ending in any case
		<-exited
		os.Remove(c.pidFile())
		return fmt.Errorf("start containerd: %w%s", err, lastWords(c.logFile(), offset))
	}
	s.current.Store(&p)
	return nil
}

// Pauses before containerd is started again: none after one that was there for
// steady, which is longer than one may take to come up, else ever longer ones.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
	steady     = time.Minute
)

// Run keeps containerd running until ctx ends, and then leaves it running.
func (s *Supervisor) Run(ctx context.Context) error {
	var pause time.Duration
	began := s.clock.Now()
	for {
		if err := s.current.Load().wait(ctx.Done()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if s.clock.Since(began) >= steady {
			pause = 0
		}
		s.log.Error("containerd ended; starting it again", "log", s.config.logFile(), "in", pause)
		for {
			if pause > 0 {
				select {
				case <-s.clock.After(pause):
				case <-ctx.Done():
					return nil
				}
			}
			pause = min(max(2*pause, firstPause), mostPause)
			began = s.clock.Now()
			err := s.launch(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			s.log.Error("containerd does not start", "err", err, "again in", pause)
		}
	}
}

// Replace ends a containerd that does not answer any more; Run starts another.
func (s *Supervisor) Replace() {
	s.log.Error("containerd does not answer; replacing it", "log", s.config.logFile())
	if err := s.current.Load().signal(unix.SIGKILL); err != nil {
		s.log.Error("containerd cannot be ended", "err", err)
	}
}

// PID is the process now supervised.
func (s *Supervisor) PID() int { return s.current.Load().PID }

// listenNotify opens the datagram socket on which a daemon says that it is
// ready, as sd_notify(3) describes.
func listenNotify(path string) (*net.UnixConn, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
}

func awaitReady(conn *net.UnixConn) error {
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return nil
		}
	}
}

// lastWords is the last line that was logged since offset, to be put behind an
// error: the reason is there.
func lastWords(file string, offset int64) string {
	b, err := os.ReadFile(file)
	if err != nil || int64(len(b)) <= offset {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b[offset:])), "\n")
	return ": " + lines[len(lines)-1]
}
