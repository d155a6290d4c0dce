// Package pause_test runs the C program beside it as the first process of a
// process namespace, which is what a sandbox makes of it. It needs root.
package pause_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// start builds pause and runs it as process 1 of a new process namespace.
func start(t *testing.T) *exec.Cmd {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pause")
	if out, err := exec.Command("./build", path).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // has been waited for already in most tests
	})
	waitFor(t, "pause to wait for signals", func() bool {
		data, err := os.ReadFile(proc(cmd, "wchan"))
		return err == nil && strings.Contains(string(data), "sigtimedwait")
	})
	return cmd
}

func proc(cmd *exec.Cmd, file string) string {
	return filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), file)
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		if t.Context().Err() != nil {
			t.Fatalf("%s did not happen", what)
		}
		runtime.Gosched()
	}
}

func TestExitsOnSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := start(t)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("pause ended with %v, want exit status 0", err)
			}
		})
	}
}

// pause may make no calls but its own three, and can get no further rights: no
// profile of the runtime's confines it.
func TestConfinesItself(t *testing.T) {
	data, err := os.ReadFile(proc(start(t), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %q in its status:\n%s", want, data)
		}
	}
}

// Orphans of the namespace become children of its first process: each must be
// reaped, also when many end while one signal is pending.
func TestReapsOrphans(t *testing.T) {
	cmd := start(t)
	const script = `for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'sleep 0.05' &) ; done`
	nsenter := exec.Command("nsenter", "--target", strconv.Itoa(cmd.Process.Pid), "--pid", "sh", "-c", script)
	if out, err := nsenter.CombinedOutput(); err != nil {
		t.Fatalf("nsenter: %v\n%s", err, out)
	}
	children := filepath.Join("task", strconv.Itoa(cmd.Process.Pid), "children")
	waitFor(t, "reaping", func() bool {
		data, err := os.ReadFile(proc(cmd, children))
		return err == nil && len(data) == 0
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("pause ended with %v, want exit status 0", err)
	}
}
