package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// Grace is how long containers have to end at Down before they are killed.
const Grace = 10 * time.Second

// Down ends everything that an instance runs and takes away its traces: first
// the containers, gracefully, then their shims, then containerd; then its
// mounts, cgroups and runtime directory. It works from what the host shows, with
// or without a daemon that runs, and may be repeated.
func Down(ctx context.Context, config Config, clk clock.Clock) error {
	// The inits of the containers are asked to end; all else in their cgroups
	// ends with them or is killed.
	var inits, all []process
	for _, p := range inCgroup(config.CgroupRoot) {
		if isInit(p.PID) {
			inits = append(inits, p)
		}
	}
	for _, p := range inits {
		if err := p.signal(unix.SIGTERM); err != nil {
			return err
		}
	}
	if err := await(ctx, clk, inits, Grace); err != nil {
		return err
	}
	if p, err := readPID(config.pidFile()); err == nil && p.alive() {
		if err := end(ctx, clk, p); err != nil {
			return fmt.Errorf("stop containerd: %w", err)
		}
	}
	// Killing may race with a fork, hence until there is none.
	for all = config.left(); len(all) > 0; all = config.left() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stop processes of %s: %w", config.CgroupRoot, err)
		}
		for _, p := range all {
			if err := p.signal(unix.SIGKILL); err != nil {
				return err
			}
		}
		for _, p := range all {
			if err := p.wait(ctx.Done()); err != nil {
				return err
			}
		}
	}
	if err := unmountBelow(config.RunDir, config.DataDir); err != nil {
		return err
	}
	if err := removeCgroups(ctx, clk, config.CgroupRoot); err != nil {
		return err
	}
	if err := os.RemoveAll(config.RunDir); err != nil {
		return fmt.Errorf("remove runtime directory: %w", err)
	}
	return nil
}

// left are the instance's processes: those in its cgroups, its shims wherever
// they are, known by the socket that they were given, and a containerd whose
// supervisor was killed before it could note its number or move it.
func (c Config) left() []process {
	ps := inCgroup(c.CgroupRoot)
	for pid, args := range commandLines() {
		daemon := strings.HasSuffix(args, "\x00--config\x00"+c.configFile()+"\x00")
		if !c.hasShim(args) && !daemon || slices.ContainsFunc(ps, func(p process) bool { return p.PID == pid }) {
			continue
		}
		if p, err := inspect(pid); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// hasShim says whether a command line is that of one of the instance's shims.
func (c Config) hasShim(args string) bool {
	return strings.Contains(args, "\x00-address\x00"+c.Endpoint()+"\x00")
}

// await returns when all have ended, or after patience.
func await(ctx context.Context, clk clock.Clock, ps []process, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(ps) > 0 {
		go func() {
			select {
			case <-clk.After(patience):
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	for _, p := range ps {
		if err := p.wait(ctx.Done()); err != nil {
			return err
		}
	}
	return nil
}

// isInit says whether a process is the first of its PID namespace, and that not
// ours: NSpid in /proc/PID/status ends with 1.
func isInit(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "NSpid:" {
			return f[len(f)-1] == "1"
		}
	}
	return false
}

// cgroupDirs are the directories of one cgroup in every hierarchy, v1 and v2.
func cgroupDirs(cgroup string) []string {
	var dirs []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, _ := filepath.Glob(filepath.Join(pattern, cgroup)) //nolint:errcheck // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	return dirs
}

// inCgroup lists the processes in a cgroup and below it, but for this one.
func inCgroup(cgroup string) []process {
	seen := map[int]bool{os.Getpid(): true}
	var ps []process
	for _, dir := range cgroupDirs(cgroup) {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // what vanishes meanwhile has ended
			if err != nil || !d.IsDir() {
				return nil
			}
			b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return nil
			}
			for f := range strings.FieldsSeq(string(b)) {
				pid, err := strconv.Atoi(f)
				if err != nil || pid == 0 || seen[pid] {
					continue
				}
				seen[pid] = true
				if p, err := inspect(pid); err == nil {
					ps = append(ps, p)
				}
			}
			return nil
		})
	}
	return ps
}

// removeCgroups removes a cgroup's tree in every hierarchy, and /hansa itself
// when no other instance has one.
func removeCgroups(ctx context.Context, clk clock.Clock, cgroup string) error {
	for _, dir := range cgroupDirs(cgroup) {
		if err := removeTree(ctx, clk, dir); err != nil {
			return err
		}
		if err := unix.Rmdir(filepath.Dir(dir)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", filepath.Dir(dir), err)
		}
	}
	return nil
}

// removeTree removes a directory of a cgroup and those below it.
func removeTree(ctx context.Context, clk clock.Clock, dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := removeCgroup(ctx, clk, d); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}

// Whoever waits for a process learns of its end a moment before the kernel has
// taken it out of its cgroup.
const (
	leavePause = 10 * time.Millisecond
	leaveTries = 500
)

// removeCgroup removes one directory of a cgroup in which no process is left.
func removeCgroup(ctx context.Context, clk clock.Clock, dir string) error {
	for try := 1; ; try++ {
		err := unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) || try == leaveTries {
			return err
		}
		select {
		case <-clk.After(leavePause):
		case <-ctx.Done():
			return err
		}
	}
}

// unmountBelow unmounts everything mounted below the directories, the last
// mounted first.
func unmountBelow(dirs ...string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescapeMount(fields[4])
		for _, dir := range dirs {
			if strings.HasPrefix(point, dir+"/") {
				points = append(points, point)
				break
			}
		}
	}
	// Deeper ones first; equal ones are stacked and need one unmount each.
	sort.SliceStable(points, func(i, j int) bool { return len(points[i]) > len(points[j]) })
	for _, p := range points {
		err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// unescapeMount undoes the octal escapes of proc(5): blank, tab, newline and
// backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
