package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cluster is a data directory and the `hansa up` that may run on it.
//
//	NewCluster ─▶ down ──Up──▶ up ──Stop──▶ stopped (containers live) ──Up──▶ up
//	                ▲                          │
//	                └──────────Down────────────┴──── Remove ─▶ gone
type Cluster struct {
	Dir string // the data directory
	// Took is how long the last Up was, from the start of the process to its
	// ready line.
	Took time.Duration

	rig     *Rig
	log     string
	process *exec.Cmd // nil: not up
	exited  chan error
}

// NewCluster names a data directory that does not exist yet. Whoever asks for
// it calls Remove.
func (r *Rig) NewCluster(name string) *Cluster {
	return &Cluster{Dir: filepath.Join(r.tmp, name), log: filepath.Join(r.tmp, name+".log"), rig: r}
}

// readyTimeout is how long Up waits for the ready line.
const readyTimeout = time.Minute

// Up starts the cluster and returns at its ready line.
func (c *Cluster) Up(ctx context.Context) error {
	cmd, err := c.rig.upCommand(c.Dir)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C reaches us alone
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run hansa up: %w", err)
	}
	c.process, c.exited = cmd, make(chan error, 1)
	ready := make(chan time.Duration, 1)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "hansa: ready in ") {
				ready <- time.Since(began)
			}
		}
		c.exited <- cmd.Wait()
	}()
	limit, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case c.Took = <-ready:
		return nil
	case err := <-c.exited:
		c.exited <- err // for Stop
		return fmt.Errorf("hansa up ended: %w%s", err, c.logTail())
	case <-limit.Done():
		return fmt.Errorf("hansa up was not ready: %w%s", limit.Err(), c.logTail())
	}
}

// PID is the process of `hansa up`.
func (c *Cluster) PID() int { return c.process.Process.Pid }

// Stop ends `hansa up` as a service manager does. Containers go on.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.process == nil {
		return nil
	}
	if err := c.process.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop hansa up: %w", err)
	}
	select {
	case err := <-c.exited:
		c.process = nil
		if err != nil {
			return fmt.Errorf("hansa up ended: %w%s", err, c.logTail())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hansa up does not stop: %w%s", ctx.Err(), c.logTail())
	}
}

// Down stops everything of the cluster and keeps its data.
func (c *Cluster) Down(ctx context.Context) error {
	if err := c.Stop(ctx); err != nil {
		return err
	}
	_, err := c.Run(ctx, nil, "down", "--data-dir", c.Dir)
	return err
}

// removeTimeout bounds Remove, which has to work when the context has ended.
const removeTimeout = 2 * time.Minute

// Remove leaves nothing of the cluster. It works whatever its state and whether
// or not the context has ended. It adds what went wrong to err.
func (c *Cluster) Remove(ctx context.Context, err *error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if _, statErr := os.Stat(c.Dir); statErr != nil {
		return
	}
	stopErr := c.Stop(ctx)
	_, downErr := c.Run(ctx, nil, "down", "--data-dir", c.Dir, "--purge")
	*err = errors.Join(*err, stopErr, downErr)
}

// Run runs another command of the binary and returns its output.
func (c *Cluster) Run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.rig.Binary, args...)
	cmd.Stdin = stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hansa %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// Import puts an image that Main was told of into the cluster.
func (c *Cluster) Import(ctx context.Context, image string) error {
	_, err := c.Run(ctx, nil, "image", "import", "--data-dir", c.Dir, ImageFile(image))
	return err
}

// logTail is the end of the log, to be put behind an error.
func (c *Cluster) logTail() string {
	const most = 2000
	b, err := os.ReadFile(c.log)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "; its log ends:\n" + string(b[max(0, len(b)-most):])
}
