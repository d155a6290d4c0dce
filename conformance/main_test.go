package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// The main goroutine keeps the main thread, to which the life of the inner
// process is tied.
func init() { runtime.LockOSThread() }

// rootVariable names the folder of all data directories. It is set in the inner
// process only, the one that runs the tests.
const rootVariable = "HANSA_CONFORMANCE_ROOT"

// binary is the tested program, root the folder of all data directories.
var binary, root string

// shared is the cluster of all tests that do no harm to it.
var shared *cluster

func TestMain(m *testing.M) {
	var err error
	if binary, err = filepath.Abs("../bin/hansa"); err == nil {
		_, err = os.Stat(binary)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("there is no %s: run make build", binary)
	case os.Geteuid() != 0:
		err = errors.New("these tests start clusters and need root")
	}
	code := 1
	if root = os.Getenv(rootVariable); err == nil && root == "" {
		code, err = outside()
	} else if err == nil {
		code, err = inside(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// outside runs the tests in a process with a network namespace of its own and,
// however that ends, takes down what is left of its clusters.
func outside() (code int, err error) {
	if root, err = os.MkdirTemp("", "hansa-conformance-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, sweep()) }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), rootVariable+"="+root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range interrupted {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// sweep takes down every data directory below root, and root.
func sweep() error {
	locks, err := filepath.Glob(filepath.Join(root, "*", "*", "lock"))
	for _, lock := range locks {
		dir := filepath.Dir(lock)
		if out, downErr := exec.Command(binary, "down", "--purge", "--data-dir", dir).CombinedOutput(); downErr != nil {
			err = errors.Join(err, fmt.Errorf("take down %s: %w: %s", dir, downErr, out))
		}
	}
	return errors.Join(err, os.RemoveAll(root))
}

// inside starts the shared cluster, runs the tests and takes it down.
func inside(m *testing.M) (code int, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 1, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return 1, err
	}
	if shared, err = newCluster("shared"); err != nil {
		return 1, err
	}
	defer func() {
		if downErr := shared.takeDown(); downErr != nil {
			code, err = 1, errors.Join(err, downErr)
		}
	}()
	began := time.Now()
	if err := shared.up(); err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "conformance: cluster ready after %.1fs\n", time.Since(began).Seconds())
	if err := makeClients(shared); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.complaints()
}

// complaints are the errors that the daemon logged: nothing that a test does may
// bring it to one.
func (c *cluster) complaints() error {
	var lines []string
	for line := range strings.Lines(c.daemon.errs.String()) {
		if !strings.Contains(line, "level=WARN") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("the daemon complains:\n%s", strings.Join(lines, "\n"))
}
