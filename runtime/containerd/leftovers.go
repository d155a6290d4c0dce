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
	"strings"

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
	for pid, args := range commandLines() {
		if !c.hasShim(args) {
			continue
		}
		_, rest, _ := strings.Cut(args, "\x00-id\x00")
		id, _, _ := strings.Cut(rest, "\x00")
		if p, err := inspect(pid); err == nil {
			l.shims = append(l.shims, shim{p, id})
		}
	}
	l.namespaces, _ = filepath.Glob(filepath.Join(c.stateDir(), "*", "netns", "*")) // the pattern is good
	return l
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
		for _, p := range append(children(sh.PID), sh.process) {
			errs = append(errs, p.signal(unix.SIGKILL))
		}
		errs = append(errs, sh.wait(ctx.Done()))
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

// children are the processes that a process has started.
func children(parent int) (out []process) {
	for pid := range commandLines() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		if p, err := inspect(pid); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// inhabited are the network namespaces, by inode, in which processes live.
func inhabited() map[uint64]bool {
	used := map[uint64]bool{}
	for pid := range commandLines() {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err == nil {
			used[st.Ino] = true
		}
	}
	return used
}
