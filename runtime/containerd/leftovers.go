package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// leftovers are what a containerd that died may have left half made: shims that
// it never wrote down, and network namespaces for them.
type leftovers struct {
	shims      []shim
	namespaces []string // files that they are mounted at
}

type shim struct {
	process
	sandbox string
}

// survey looks for what is there when containerd begins to serve, so that it has
// made nothing of it.
func (c Config) survey() *leftovers {
	l := &leftovers{}
	for pid := range processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended meanwhile
		}
		args := bytes.Split(line, []byte{0})
		if filepath.Base(string(args[0])) != shimName || argument(args, "-address") != c.Endpoint() {
			continue
		}
		if p, err := inspect(pid); err == nil {
			l.shims = append(l.shims, shim{p, argument(args, "-id")})
		}
	}
	l.namespaces, _ = filepath.Glob(filepath.Join(c.stateDir(), "*", "netns", "*")) // the pattern is good
	return l
}

// shimName is the program that stands between containerd and the containers of a
// pod.
const shimName = "containerd-shim-runc-v2"

// argument is what follows a flag.
func argument(args [][]byte, flag string) string {
	i := slices.IndexFunc(args, func(a []byte) bool { return string(a) == flag })
	if i < 0 || i+1 == len(args) {
		return ""
	}
	return string(args[i+1])
}

// Sweep removes what earlier containerds left half made, now that one serves: of
// the shims that were there before it began those of no sandbox that it lists,
// and then the network namespaces in which nothing runs any more. Where nothing
// was left it asks for nothing.
func (s *Supervisor) Sweep(ctx context.Context, sandboxes func(context.Context) ([]string, error)) error {
	left := s.left.Load()
	if left == nil {
		return nil
	}
	known, err := sandboxes(ctx)
	if err != nil {
		return fmt.Errorf("clear away what containerd left: %w", err)
	}
	s.left.CompareAndSwap(left, nil) // unless there has been another one since
	var errs []error
	for _, sh := range left.shims {
		if slices.Contains(known, sh.sandbox) || !sh.alive() {
			continue
		}
		s.log.Warn("removing a shim that containerd has forgotten", "sandbox", sh.sandbox, "pid", sh.PID)
		for pid, parent := range processes() {
			if parent == sh.PID {
				errs = append(errs, kill(pid))
			}
		}
		errs = append(errs, kill(sh.PID), sh.wait(ctx.Done()))
	}
	used := inhabited()
	for _, file := range left.namespaces {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || used[st.Ino] {
			continue
		}
		s.log.Warn("removing a network namespace that containerd has forgotten", "file", file)
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", file, err))
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func kill(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// processes gives the parent of each process.
func processes() map[int]int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	parents := make(map[int]int, len(dirs))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 {
			parents[pid], _ = strconv.Atoi(string(fields[1])) //nolint:errcheck // the kernel writes a number
		}
	}
	return parents
}

// inhabited are the network namespaces, by inode, in which processes live.
func inhabited() map[uint64]bool {
	used := map[uint64]bool{}
	for pid := range processes() {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err == nil {
			used[st.Ino] = true
		}
	}
	return used
}
