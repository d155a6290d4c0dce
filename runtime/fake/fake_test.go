package fake_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/fake"
	"hansa.dev/hansa/runtime/runtimetest"
)

const image = "hansa.local/runtimetest:1"

// TestSuite runs the suite of all runtimes. Here a container is a process of
// the host.
func TestSuite(t *testing.T) {
	runtimetest.Run(t, runtimetest.Harness{
		New: func(*testing.T) runtime.Runtime {
			r := fake.New(clock.RealClock{})
			r.SetProgram(image, process)
			r.SetCommands(command)
			r.SetCheck(func(c *cri.ContainerConfig) error {
				_, err := exec.LookPath(c.Command[0])
				return err
			})
			return r
		},
		Archive: func(*testing.T) io.Reader { return fake.Archive(image) },
		Image:   image,
	})
}

// process runs the container's command.
func process(p *fake.Process) int {
	cmd := exec.Command(p.Config.Command[0], p.Config.Command[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 1
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 127
	}
	var logged sync.WaitGroup
	logged.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			p.Log("stdout", lines.Text())
		}
	})
	ended := make(chan struct{})
	go func() {
		signal := func(s syscall.Signal) { _ = syscall.Kill(-cmd.Process.Pid, s) } // it may have ended
		select {
		case <-p.Stopped:
			signal(syscall.SIGTERM)
			select {
			case <-p.Killed:
				signal(syscall.SIGKILL)
			case <-ended:
			}
		case <-p.Killed:
			signal(syscall.SIGKILL)
		case <-ended:
		}
	}()
	logged.Wait()
	code := exitCode(cmd.Wait())
	close(ended)
	return code
}

func command(ctx context.Context, _ string, words []string, s runtime.Streams) int {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.Stdin, s.Stdout, s.Stderr
	return exitCode(cmd.Run())
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return 127
	case exit.Sys().(syscall.WaitStatus).Signaled():
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	return exit.ExitCode()
}
