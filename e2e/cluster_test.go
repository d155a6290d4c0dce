package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long anything may take that is said to happen. It says when
// a test has failed, not how fast something should be: tests share two cores.
const patience = 2 * time.Minute

// A cluster is what runs from one data directory.
type cluster struct {
	dir       string
	namespace string   // network namespace of its processes, empty for the machine's own
	flags     []string // of hansa up, beside the data directory

	process *exec.Cmd  // hansa up, nil when it does not run
	ended   chan error // how it ended

	config *rest.Config
	client kubernetes.Interface
}

// shared is the cluster that tests use unless they would disturb others.
var shared *cluster

// newCluster names a cluster; its data directory is not made yet.
func newCluster(name string, flags ...string) *cluster {
	unique := filepath.Base(os.Getenv(machineVariable))
	return &cluster{dir: "/tmp/" + unique + "-" + name, flags: flags}
}

func (c *cluster) id() string      { return instanceID(c.dir) }
func (c *cluster) logFile() string { return c.dir + ".log" }

// program is a command of the binary in the cluster's network namespace.
func (c *cluster) program(args ...string) *exec.Cmd {
	args = append([]string{hansaBinary()}, args...)
	if c.namespace != "" {
		args = append([]string{"nsenter", "--net=/run/netns/" + c.namespace}, args...)
	}
	return exec.Command(args[0], args[1:]...)
}

// up starts hansa up and returns when it says that it is ready.
func (c *cluster) up() error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"up", "--data-dir", c.dir}, c.flags...)
	if !slices.ContainsFunc(c.flags, func(f string) bool {
		return strings.HasPrefix(f, "--eviction-") || strings.HasPrefix(f, "--kubelet-config")
	}) {
		// How full the disk of whoever runs the tests is, is none of their business.
		args = append(args, "--eviction-hard=memory.available<50Mi")
	}
	cmd := c.program(args...)
	cmd.Stderr = log
	// A part that changes an object which others read ends the process.
	cmd.Env = append(os.Environ(), "HANSA_DETECT_MUTATIONS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run hansa up: %w", err)
	}
	ready, ended := make(chan string, 1), make(chan error, 1)
	c.process, c.ended = cmd, ended
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if line := lines.Text(); strings.HasPrefix(line, "hansa: ready") {
				ready <- line
			}
		}
		ended <- cmd.Wait()
	}()
	select {
	case <-ready:
	case err := <-ended:
		c.process = nil
		return fmt.Errorf("hansa up ended: %v\n%s", err, c.logTail(20))
	case <-time.After(patience):
		return fmt.Errorf("hansa up is not ready after %s\n%s", patience, c.logTail(20))
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	return c.connect(config)
}

// connect makes the clients of a cluster that has started.
func (c *cluster) connect(config *rest.Config) (err error) {
	config.QPS = -1 // a test waits for the cluster, not for its own client
	if c.namespace != "" {
		config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialWithin(ctx, c.namespace, network, address)
		}
	}
	c.config = config
	c.client, err = kubernetes.NewForConfig(config)
	return err
}

// started starts a cluster with the images, which goes with the test.
func started(t testing.TB, c *cluster) *cluster {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last lines of the log of %s:\n%s", c.dir, c.logTail(40))
		}
		if _, err := os.Stat(c.dir); err != nil {
			return
		}
		if err := c.purge(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	return c
}

// stop sends a signal to hansa up and waits for its end. Containers go on.
func (c *cluster) stop(signal syscall.Signal) error {
	if c.process == nil {
		return nil
	}
	if err := c.process.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-c.ended:
		c.process = nil
		if signal == syscall.SIGTERM && err != nil {
			return fmt.Errorf("hansa up, stopped: %w\n%s", err, c.logTail(20))
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("hansa up does not end after %s\n%s", patience, c.logTail(20))
	}
}

// purge takes everything down, data too.
func (c *cluster) purge() error {
	_, err := c.hansa("down", "--data-dir", c.dir, "--purge")
	if err == nil && c.process != nil {
		c.process, err = nil, <-c.ended
	}
	return err
}

// hansa runs a command of the binary and returns what it printed.
func (c *cluster) hansa(args ...string) (string, error) {
	var out, errors bytes.Buffer
	err := c.pipe(context.Background(), nil, &out, &errors, args...)
	if err != nil {
		err = fmt.Errorf("hansa %s: %w: %s%s", strings.Join(args, " "), err, out.Bytes(), bytes.TrimSpace(errors.Bytes()))
	}
	return out.String(), err
}

// kubectl runs the carried kubectl.
func (c *cluster) kubectl(args ...string) (string, error) {
	return c.hansa(append([]string{"kubectl", "--data-dir", c.dir}, args...)...)
}

// pipe runs a command of the binary with the streams given.
func (c *cluster) pipe(ctx context.Context, in io.Reader, out, errOut io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Minute) // kubectl has its own patience
	defer cancel()
	cmd := c.program(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errOut
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() }) //nolint:errcheck // fails when it has ended
	defer stop()
	return errors.Join(cmd.Wait(), context.Cause(ctx))
}

// logTail returns the last lines of the log.
func (c *cluster) logTail(n int) string {
	data, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// oneshot opens a connection for each request, so that each is routed anew.
var oneshot = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// fetch returns what a URL answers, from the machine.
func fetch(url string) (string, error) { return answerOf(oneshot.Get(url)) }

// answerOf reads an answer to its end; anything but 200 is an error.
func answerOf(answer *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, b)
	}
	return string(b), err
}
