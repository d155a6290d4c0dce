package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// unified is version 2.
type unified struct{ root string }

// delegated are the controllers that are switched on for the groups below one,
// where the kernel has them.
var delegated = []string{"cpuset", "cpu", "io", "memory", "pids", "hugetlb"}

func newUnified(root string) (*unified, error) {
	have, err := controllers(root)
	if err != nil {
		return nil, fmt.Errorf("look at control groups in %s: %w", root, err)
	}
	for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(have, c) {
			return nil, fmt.Errorf("the control group controller %q is not available in %s", c, root)
		}
	}
	return &unified{root: root}, nil
}

func controllers(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(data)), err
}

func (u *unified) Name() string    { return "v2" }
func (u *unified) Roots() []string { return []string{u.root} }

// Make creates a group and switches the controllers on for it in its parent.
func (u *unified) Make(group string) error {
	dir := filepath.Join(u.root, group)
	parent := filepath.Dir(dir)
	have, err := controllers(parent)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	on := strings.Fields(string(data))
	var missing []string
	for _, c := range delegated {
		if slices.Contains(have, c) && !slices.Contains(on, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) > 0 {
		if err := write(parent, "cgroup.subtree_control", strings.Join(missing, " ")); err != nil {
			return err
		}
	}
	return mkdir(dir)
}

func (u *unified) Set(group string, lim Limits) error {
	dir := filepath.Join(u.root, group)
	type setting struct{ file, value string }
	var all []setting
	if lim.CPUShares != 0 {
		all = append(all, setting{"cpu.weight", strconv.FormatUint(Weight(lim.CPUShares), 10)})
	}
	if lim.CPUQuota != 0 {
		period := lim.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		all = append(all, setting{"cpu.max", orMax(lim.CPUQuota) + " " + strconv.FormatUint(period, 10)})
	}
	if lim.Memory != 0 {
		all = append(all, setting{"memory.max", orMax(lim.Memory)})
	}
	if lim.Pids != 0 {
		all = append(all, setting{"pids.max", orMax(lim.Pids)})
	}
	for file, n := range map[string]int64{"memory.min": lim.MemoryMin, "memory.low": lim.MemoryLow, "memory.high": lim.MemoryHigh} {
		switch {
		case n < 0 && file != "memory.high":
			all = append(all, setting{file, "0"})
		case n != 0:
			all = append(all, setting{file, orMax(n)})
		}
	}
	if lim.HugePages != nil {
		for size, file := range hugePages(dir, ".max") {
			all = append(all, setting{file, strconv.FormatInt(lim.HugePages[size], 10)})
		}
	}
	for _, s := range all {
		if err := write(dir, s.file, s.value); err != nil {
			return err
		}
	}
	return nil
}

// Inside has the kernel kill a container as a whole when it is out of memory,
// rather than leave it with a process less, and keeps it from swapping where
// the kernel accounts for that.
func (u *unified) Inside(group string) map[string]string {
	out := map[string]string{"memory.oom.group": "1"}
	if _, err := os.Stat(filepath.Join(u.root, group, "memory.swap.max")); err == nil {
		out["memory.swap.max"] = "0"
	}
	return out
}

// Weight is the cpu.weight of version 2 that stands for cpu.shares of version
// 1: a curve through (2, 1), (1024, 100) and (262144, 10000), so that a whole
// core weighs what a group weighs that nobody gave a weight. Runtimes convert
// the shares of containers in the same way (OCI runtimes, "cpu.weight").
func Weight(shares uint64) uint64 {
	l := math.Log2(float64(min(max(shares, minShares), maxShares)))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (u *unified) Usage(group string) (Usage, error) {
	dir := filepath.Join(u.root, group)
	var out Usage
	micros, err := readKey(dir, "cpu.stat", "usage_usec")
	if err != nil {
		return out, err
	}
	out.CPUNanos = micros * 1000
	if out.Memory, err = readUint(dir, "memory.current"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	inactive, err := readKey(dir, "memory.stat", "inactive_file")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	out.WorkingSet = out.Memory - min(out.Memory, inactive)
	if out.Pids, err = readUint(dir, "pids.current"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	return out, nil
}
