package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is a set of namespaces that seems a host to what runs in it: its
// process 1 is this program, its /tmp, /run and /var/lib begin empty, its network has
// one link, to the outside. All of it ends with process 1. What namespaces do
// not hold is removed by whoever made the machine: the folder that is its /tmp,
// and the control groups of its clusters.

// machineVariable hands the folder that becomes /tmp to process 1.
const machineVariable = "HANSA_E2E_MACHINE"

// machineFolders begin with this; the random rest makes the instances of two
// machines differ although each thinks it is in /tmp.
const machinePrefix = "hansa-e2e-"

// runMachine runs the tests that args choose on a new machine and returns
// their exit code.
func runMachine(role string, args []string, stdout, stderr io.Writer) (code int, err error) {
	dir, err := os.MkdirTemp("", machinePrefix)
	if err != nil {
		return 1, err
	}
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, removeMachine(dir)) }()
	if err := place(hansaBinary(), filepath.Join(dir, "hansa")); err != nil {
		return 1, err
	}
	images, err := placeImages(dir)
	if err != nil {
		return 1, err
	}
	// Where go test notes what a test read is not visible in there.
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "-test.testlogfile") })
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleInit, machineVariable+"="+dir, "HANSA_E2E_NEXT="+role, "TMPDIR=/tmp", imagesVariable+"="+images)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true, // Ctrl-C is for us: it must not end a cluster in the middle of something
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start a machine: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-interrupted:
			cmd.Process.Kill() //nolint:errcheck // fails when it has ended, which is what is wanted
		case <-done:
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("the machine ended: %w", err)
	}
	return 0, nil
}

// place makes file from, or a copy of it, appear at to.
func place(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

// removeMachine removes what a machine leaves when it ends in mid-air, and the
// machines in it.
func removeMachine(dir string) error {
	var errs []error
	for _, pattern := range []string{machinePrefix + "*-*", machinePrefix + "*/" + machinePrefix + "*-*"} {
		clusters, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = append(errs, err)
		for _, c := range clusters {
			errs = append(errs, removeGroups(instanceID("/tmp/"+filepath.Base(c))))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}

// removeGroups removes the control groups of an instance in all hierarchies.
func removeGroups(id string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/hansa/", "/sys/fs/cgroup/*/hansa/"} {
		found, err := filepath.Glob(pattern + id)
		errs = append(errs, err)
		for _, group := range found {
			errs = append(errs, removeGroup(group))
		}
	}
	return errors.Join(errs...)
}

// instanceID is the name under which the host knows a data directory.
func instanceID(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return hex.EncodeToString(sum[:4])
}

// removeGroup removes a control group and those below it, and the one above
// when it is then empty.
func removeGroup(group string) error {
	var groups []string
	err := filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	for _, g := range slices.Backward(groups) {
		err = errors.Join(err, removeWhenLeft(g))
	}
	os.Remove(filepath.Dir(group)) //nolint:errcheck // others may have theirs there
	return err
}

// removeWhenLeft removes a control group, from which the kernel may still be
// taking processes that have ended.
func removeWhenLeft(group string) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-again.C {
		err := os.Remove(group)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// initProcess is process 1 of a machine: it makes the machine, runs the tests,
// and collects whoever loses a parent.
func initProcess() (int, error) {
	if err := prepareMachine(os.Getenv(machineVariable)); err != nil {
		return 1, fmt.Errorf("make the machine: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+os.Getenv("HANSA_E2E_NEXT"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid != cmd.Process.Pid:
		case status.Exited():
			return status.ExitStatus(), nil
		default:
			return 1, fmt.Errorf("the tests ended by signal %s", status.Signal())
		}
	}
}

// prepareMachine makes file systems and name of a machine. Mounts stay within
// it, and are shared in it, as systemd has them on a host.
func prepareMachine(dir string) error {
	resolver := []byte("nameserver " + outsideIP + "\nsearch " + outsideDomain + "\n")
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), resolver, 0o644); err != nil {
		return err
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, step := range []func() error{
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE),
		forgetMounts("/run"),
		forgetMounts("/var/lib"),
		// Folders of machines are in /tmp, so the way there is by another place.
		mount(dir, "/run", "", unix.MS_BIND),
		mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND),
		forgetMounts("/tmp"),
		mount("/run", "/tmp", "", unix.MS_MOVE),
		mount("proc", "/proc", "proc", safe|unix.MS_NOEXEC),
		mount("tmpfs", "/run", "tmpfs", safe),
		mount("tmpfs", "/var/lib", "tmpfs", safe),
		// Last, so that what is mounted in /tmp does not appear in dir as well.
		mount("", "/", "", unix.MS_REC|unix.MS_SHARED),
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return unix.Sethostname([]byte(nodeName))
}

func mount(source, target, kind string, flags uintptr) func() error {
	return func() error {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
		return nil
	}
}

// forgetMounts takes away what others have mounted on and below a folder that is
// not seen any more, and would hold what they remove.
func forgetMounts(folder string) func() error {
	return func() error {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		for _, line := range slices.Backward(strings.Split(strings.TrimSpace(string(b)), "\n")) {
			point := strings.Fields(line)[4]
			if point == folder || strings.HasPrefix(point, folder+"/") {
				// It fails for what lies below another one and has gone with it.
				_ = unix.Unmount(point, unix.MNT_DETACH)
			}
		}
		return nil
	}
}

// alone tells whether the calling test runs on a machine of its own. If it does
// not, alone has it do so, reports how that ended, and the test returns.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVariable) == roleAlone {
		return true
	}
	t.Parallel()
	runAlone(t)
	return false
}

// undisturbing is alone for a test that changes what all machines share: no
// other test runs beside it.
func undisturbing(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roleVariable) == roleAlone {
		return true
	}
	runAlone(t)
	return false
}

// runAlone runs a test on a machine of its own and reports how that ended.
func runAlone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // the machine dies with its parent's thread
	defer runtime.UnlockOSThread()
	var out bytes.Buffer
	code, err := runMachine(roleAlone, []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=" + (5*time.Minute + chaosTime()).String()}, &out, &out)
	if err != nil || code != 0 || testing.Verbose() {
		t.Logf("on a machine of its own:\n%s", out.Bytes())
	}
	if err != nil {
		t.Error(err)
	}
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// chaosTime is how long there is to be chaos: HANSA_CHAOS, or what CI has time
// for.
func chaosTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("HANSA_CHAOS")); err == nil {
		return d
	}
	return time.Minute
}
