package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// cluster is a `hansa up` in a temporary data directory.
type cluster struct {
	binary string
	dir    string // the data directory
	log    string // file with standard error of `hansa up`

	process *exec.Cmd // nil until up
	exited  chan error
}

func newCluster(binary string) (*cluster, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("there is no %s: make build makes it", binary)
	}
	tmp, err := os.MkdirTemp("", "hansa-demo-")
	if err != nil {
		return nil, err
	}
	return &cluster{binary: binary, dir: filepath.Join(tmp, "data"), log: filepath.Join(tmp, "hansa.log"), exited: make(chan error, 1)}, nil
}

// up starts the cluster and returns the line that says it is ready. The
// process gets a session of its own, so that Ctrl-C reaches the demo alone,
// which then takes it down in order, and so that it can outlive the demo.
func (c *cluster) up(ctx context.Context) (string, error) {
	log, err := os.Create(c.log)
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd := exec.Command(c.binary, "up", "--data-dir", c.dir)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("run hansa up: %w", err)
	}
	c.process = cmd
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if line := lines.Text(); strings.HasPrefix(line, "hansa: ready") {
				ready <- line
			}
		}
		c.exited <- cmd.Wait()
	}()
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	select {
	case line := <-ready:
		return line, nil
	case err := <-c.exited:
		c.exited <- err // for takeDown
		return "", fmt.Errorf("hansa up ended: %w", err)
	case <-limit.Done():
		return "", fmt.Errorf("hansa up was not ready: %w", limit.Err())
	}
}

// hansa runs one command of the binary and returns its output.
func (c *cluster) hansa(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.binary, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hansa %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

func (c *cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return c.hansa(ctx, append([]string{"kubectl", "--data-dir", c.dir}, args...)...)
}

// takeDown stops the cluster, has it remove all it made, and removes what the
// demo made. The log stays when something went wrong.
func (c *cluster) takeDown(ctx context.Context) error {
	tmp := filepath.Dir(c.dir)
	if c.process == nil {
		return os.RemoveAll(tmp)
	}
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop hansa up: %w", err)
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return fmt.Errorf("hansa up does not stop; its log is %s", c.log)
	}
	if _, err := c.hansa(ctx, "down", "--data-dir", c.dir, "--purge"); err != nil {
		return err
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the data directory %s is still there", c.dir)
	}
	say("nothing is left")
	return os.RemoveAll(tmp)
}

// logTail returns the last lines of the log.
func (c *cluster) logTail(n int) string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
