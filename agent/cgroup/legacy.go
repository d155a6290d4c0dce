package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// legacy is version 1, pure or hybrid: a hierarchy for each controller (or set
// of them). A group has a directory in all of them, for the runtime makes one
// in all of them for each container.
type legacy struct {
	root  string
	names []string // of the hierarchies' directories, sorted
}

// required are the controllers without which limits would silently not hold.
var required = []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"}

func newLegacy(root string) (*legacy, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("look at control groups in %s: %w", root, err)
	}
	l := &legacy{root: root}
	for _, e := range entries {
		// "cpu" may be a link to "cpu,cpuacct": one directory, two names.
		if e.IsDir() {
			l.names = append(l.names, e.Name())
		}
	}
	for _, c := range required {
		if l.dir(c) == "" {
			return nil, fmt.Errorf("the control group controller %q is not available: no hierarchy for it is mounted in %s", c, root)
		}
	}
	return l, nil
}

// dir is the directory of a controller's hierarchy, or empty.
func (l *legacy) dir(controller string) string {
	for _, name := range l.names {
		if slices.Contains(strings.Split(name, ","), controller) {
			return filepath.Join(l.root, name)
		}
	}
	return ""
}

func (l *legacy) Name() string { return "v1" }

func (l *legacy) Inside(string) map[string]string { return nil }

func (l *legacy) Roots() []string {
	var out []string
	for _, name := range l.names {
		out = append(out, filepath.Join(l.root, name))
	}
	return out
}

func (l *legacy) Make(group string) error {
	for _, root := range l.Roots() {
		dir := filepath.Join(root, group)
		if err := unix.Access(dir, unix.F_OK); err == nil {
			continue
		}
		if err := mkdir(dir); err != nil {
			return err
		}
		if root == l.dir("cpuset") {
			if err := inheritCpuset(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// inheritCpuset gives a new group what its parent has: an empty set takes no
// process.
func inheritCpuset(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := write(dir, file, strings.TrimSpace(string(parent))); err != nil {
			return err
		}
	}
	return nil
}

func (l *legacy) Set(group string, lim Limits) error {
	cpu, memory, pids := filepath.Join(l.dir("cpu"), group), filepath.Join(l.dir("memory"), group), filepath.Join(l.dir("pids"), group)
	type setting struct{ dir, file, value string }
	var all []setting
	if lim.CPUShares != 0 {
		all = append(all, setting{cpu, "cpu.shares", strconv.FormatUint(lim.CPUShares, 10)})
	}
	if lim.CPUPeriod != 0 {
		all = append(all, setting{cpu, "cpu.cfs_period_us", strconv.FormatUint(lim.CPUPeriod, 10)})
	}
	if lim.CPUQuota != 0 {
		all = append(all, setting{cpu, "cpu.cfs_quota_us", strconv.FormatInt(lim.CPUQuota, 10)})
	}
	if lim.Memory != 0 {
		all = append(all, setting{memory, "memory.limit_in_bytes", strconv.FormatInt(lim.Memory, 10)})
	}
	if lim.Pids != 0 {
		all = append(all, setting{pids, "pids.max", orMax(lim.Pids)})
	}
	if huge := filepath.Join(l.dir("hugetlb"), group); lim.HugePages != nil && l.dir("hugetlb") != "" {
		for size, file := range hugePages(huge, ".limit_in_bytes") {
			all = append(all, setting{huge, file, strconv.FormatInt(lim.HugePages[size], 10)})
		}
	}
	for _, s := range all {
		if err := write(s.dir, s.file, s.value); err != nil {
			return err
		}
	}
	return nil
}

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func (l *legacy) Usage(group string) (Usage, error) {
	var u Usage
	var err error
	if u.CPUNanos, err = readUint(filepath.Join(l.dir("cpuacct"), group), "cpuacct.usage"); err != nil {
		return u, err
	}
	memory := filepath.Join(l.dir("memory"), group)
	if u.Memory, err = readUint(memory, "memory.usage_in_bytes"); err != nil {
		return u, err
	}
	inactive, err := readKey(memory, "memory.stat", "total_inactive_file")
	if err != nil {
		return u, err
	}
	u.WorkingSet = u.Memory - min(u.Memory, inactive)
	u.Pids, err = readUint(filepath.Join(l.dir("pids"), group), "pids.current")
	return u, err
}
