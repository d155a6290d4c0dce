package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runVariable is in the environment of each containerd and so in that of the
// shims that it starts, with a value that no other containerd has: it tells whose
// a shim is.
const runVariable = "HANSA_CONTAINERD_RUN="

// criNamespace is where containerd has what it was asked for by way of the CRI.
const criNamespace = "k8s.io"

// runOf is the value of a process's runVariable, "" if it has none.
func runOf(pid int) string {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "" // it has ended meanwhile
	}
	for v := range strings.SplitSeq(string(environ), "\x00") {
		if run, ok := strings.CutPrefix(v, runVariable); ok {
			return run
		}
	}
	return ""
}

// A shim is a process of the shim's program: the one that stands behind a pod,
// or one that is about to make it.
type shim struct {
	process
	sandbox string
	run     string // of containerd
}

// shims are those of the instance's pods, but for those that clear a dead one's
// containers away and end by themselves.
func (c Config) shims() (out []shim) {
	for pid, args := range commandLines() {
		if !c.hasShim(args) || !strings.Contains(args, "\x00-namespace\x00"+criNamespace+"\x00") || strings.HasSuffix(args, "\x00delete\x00") {
			continue
		}
		_, rest, _ := strings.Cut(args, "\x00-id\x00")
		id, _, _ := strings.Cut(rest, "\x00")
		if p, err := inspect(pid); err == nil {
			out = append(out, shim{p, id, runOf(pid)})
		}
	}
	return out
}

// bundles are the directories that containerd has of containers, by container: it
// makes a bundle before anything else of a container, and removes it when all else
// is gone or what it belongs to could not be found again.
func (c Config) bundles() map[string]string {
	dirs, _ := filepath.Glob(filepath.Join(c.stateDir(), "io.containerd.runtime.v2.task", criNamespace, "*")) // the pattern is good
	out := map[string]string{}
	for _, dir := range dirs {
		out[filepath.Base(dir)] = dir
	}
	return out
}

// bundled are the sandboxes that have a bundle, their own or a container's in
// them.
func (c Config) bundled() map[string]bool {
	out := map[string]bool{}
	for id, dir := range c.bundles() {
		out[id] = true
		var spec struct{ Annotations map[string]string }
		if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil && json.Unmarshal(b, &spec) == nil {
			out[spec.Annotations["io.kubernetes.cri.sandbox-id"]] = true
		}
	}
	return out
}

// Sandboxes lists the sandboxes that containerd knows, and says which are ready.
type Sandboxes func(ctx context.Context) (ready map[string]bool, err error)

// forgotten are the shims that containerd does not use: those to which no bundle
// leads, those that an earlier containerd started for no sandbox, and those of a
// sandbox that is not ready in which nothing runs: it would be ended with the
// sandbox only, and that stays as long as its pod. What containerd makes now has a
// bundle, and is listed only when it is made.
func (s *Supervisor) forgotten(ctx context.Context, sandboxes Sandboxes) ([]shim, error) {
	// In this order: what is found later has been there before.
	shims := s.config.shims()
	if len(shims) == 0 {
		return nil, nil
	}
	run := runOf(s.PID())
	bundled := s.config.bundled()
	known, err := sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(shims, func(sh shim) bool {
		ready, listed := known[sh.sandbox]
		used := ready || !listed && (run == "" || sh.run == run) || listed && len(children(sh.PID)) > 0
		return used && bundled[sh.sandbox] || !sh.alive()
	}), nil
}

// namespacesFile lists, one a line, the network namespaces that were there before
// containerd began: it has not made them.
func (c Config) namespacesFile() string { return filepath.Join(c.RunDir, "namespaces") }

// noteNamespaces writes the list of namespaces. No containerd runs meanwhile.
func (c Config) noteNamespaces() error {
	found, _ := filepath.Glob(filepath.Join(c.stateDir(), "*", "netns", "*")) // the pattern is good
	return os.WriteFile(c.namespacesFile(), []byte(strings.Join(found, "\n")), 0o600)
}

// Sweep removes what containerds that died left half made: shims that the present
// one does not use, control groups of containers that it does not have, with the
// processes in them, and the network namespaces that it has not made and in which
// nothing runs any more.
func (s *Supervisor) Sweep(ctx context.Context, sandboxes Sandboxes) error {
	for {
		shims, err := s.forgotten(ctx, sandboxes)
		if err != nil {
			return fmt.Errorf("clear away what containerd left: %w", err)
		}
		if len(shims) == 0 {
			break
		}
		// Killing may race with a fork, hence until there is none.
		var errs []error
		for _, sh := range shims {
			s.log.Warn("removing a shim that containerd has forgotten", "sandbox", sh.sandbox, "pid", sh.PID)
			for _, p := range append(children(sh.PID), sh.process) {
				errs = append(errs, p.signal(unix.SIGKILL))
			}
			errs = append(errs, sh.wait(ctx.Done()))
		}
		if err := errors.Join(append(errs, ctx.Err())...); err != nil {
			return fmt.Errorf("clear away what containerd left: %w", err)
		}
	}
	return errors.Join(s.sweepGroups(ctx), s.sweepNamespaces())
}

// containerGroup is a control group of a container, from the instance's on.
var containerGroup = regexp.MustCompile(`^/pods/[^/]+/[^/]+/[0-9a-f]{64}$`)

func (s *Supervisor) sweepGroups(ctx context.Context) error {
	groups := map[string]bool{}
	for _, root := range cgroupDirs(s.config.CgroupRoot) {
		dirs, _ := filepath.Glob(filepath.Join(root, "pods", "*", "*", "*")) // the pattern is good
		for _, dir := range dirs {
			if group := strings.TrimPrefix(dir, root); containerGroup.MatchString(group) {
				groups[group] = true
			}
		}
	}
	bundles := s.config.bundles() // later: what is found now has been there before
	var errs []error
	for group := range groups {
		if bundles[filepath.Base(group)] != "" {
			continue
		}
		s.log.Warn("removing a control group that containerd has forgotten", "group", group)
		group = s.config.CgroupRoot + group
		ps := inCgroup(group)
		for _, p := range ps {
			errs = append(errs, p.signal(unix.SIGKILL))
		}
		for _, p := range ps {
			errs = append(errs, p.wait(ctx.Done()))
		}
		for _, dir := range cgroupDirs(group) {
			errs = append(errs, removeTree(ctx, s.clock, dir))
		}
	}
	return errors.Join(errs...)
}

func (s *Supervisor) sweepNamespaces() error {
	list, err := os.ReadFile(s.config.namespacesFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("clear away what containerd left: %w", err)
	}
	var errs []error
	used := inhabited()
	for file := range strings.SplitSeq(string(list), "\n") {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || used[st.Ino] {
			continue
		}
		s.log.Warn("removing a network namespace that containerd has forgotten", "file", file)
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
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
