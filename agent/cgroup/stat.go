package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stat is all that is measured of a group, its descendants included. What a
// kernel does not count is zero.
type Stat struct {
	CPU    CPUStat
	Memory MemoryStat
	Pids   uint64
	// Pressure is how long processes waited for what others had.
	Pressure Pressures
}

// CPUStat is cpu time since the group was made.
type CPUStat struct {
	Nanos, UserNanos, SystemNanos uint64
	// Periods are those in which the group ran under a quota, Throttled those in
	// which it had to wait, ThrottledNanos how long.
	Periods, Throttled, ThrottledNanos uint64
	// Shares, Quota and Period (µs) are its limits; a Quota of 0 is none.
	Shares, Quota, Period uint64
}

// MemoryStat is in bytes.
type MemoryStat struct {
	Usage, WorkingSet, MaxUsage, RSS, Cache, Mapped, Swap uint64
	// Limit and SwapLimit are 0 when there is none. SwapLimit is of swap alone.
	Limit, SwapLimit    uint64
	Faults, MajorFaults uint64
	// Failures counts how often the limit was hit, OOMKills the processes that were
	// killed for it.
	Failures, OOMKills uint64
	// Swaps says that swap is counted.
	Swaps bool
}

// Stat reads all that is measured of a group.
func (t *Tree) Stat(group string) (Stat, error) {
	s, err := t.layout.Stat(t.Path(group))
	if err != nil {
		return s, fmt.Errorf("measure control group %s: %w", t.Path(group), err)
	}
	return s, nil
}

// Process is the ID of some process in a group or directly below it, or 0.
func (t *Tree) Process(group string) int {
	root := filepath.Join(t.layout.Roots()[0], t.Path(group))
	for _, pattern := range []string{"cgroup.procs", "*/cgroup.procs"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			continue // the pattern is right
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				continue // the group is gone
			}
			first, _, _ := strings.Cut(string(data), "\n")
			if pid, err := strconv.Atoi(first); err == nil && pid > 0 {
				return pid
			}
		}
	}
	return 0
}

// userTick is the unit of cpu times in files of version 1: USER_HZ is 100 on all
// architectures.
const userTick = 10_000_000 // ns

// unlimited is what version 1 shows for no limit, rounded to pages.
const unlimited = math.MaxInt64 &^ 0xffff

func (l *legacy) Stat(group string) (Stat, error) {
	var s Stat
	cpuacct, cpu := filepath.Join(l.dir("cpuacct"), group), filepath.Join(l.dir("cpu"), group)
	memory := filepath.Join(l.dir("memory"), group)
	r := reader{}
	s.CPU.Nanos = r.number(cpuacct, "cpuacct.usage")
	times := r.table(cpuacct, "cpuacct.stat")
	s.CPU.UserNanos, s.CPU.SystemNanos = times["user"]*userTick, times["system"]*userTick
	throttling := r.table(cpu, "cpu.stat")
	s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledNanos = throttling["nr_periods"], throttling["nr_throttled"], throttling["throttled_time"]
	s.CPU.Shares, s.CPU.Quota, s.CPU.Period = r.number(cpu, "cpu.shares"), r.number(cpu, "cpu.cfs_quota_us"), r.number(cpu, "cpu.cfs_period_us")

	m, stat := &s.Memory, r.table(memory, "memory.stat")
	m.Usage = r.number(memory, "memory.usage_in_bytes")
	m.WorkingSet = m.Usage - min(m.Usage, stat["total_inactive_file"])
	m.MaxUsage, m.Failures = r.number(memory, "memory.max_usage_in_bytes"), r.number(memory, "memory.failcnt")
	m.RSS, m.Cache, m.Mapped = stat["total_rss"], stat["total_cache"], stat["total_mapped_file"]
	m.Faults, m.MajorFaults = stat["total_pgfault"], stat["total_pgmajfault"]
	if swap, counted := stat["total_swap"]; counted {
		m.Swap, m.Swaps = swap, true
	}
	if m.Limit = r.number(memory, "memory.limit_in_bytes"); m.Limit >= unlimited {
		m.Limit = 0
	}
	if both := r.number(memory, "memory.memsw.limit_in_bytes"); both > m.Limit && both < unlimited {
		m.SwapLimit = both - m.Limit
	}
	m.OOMKills = r.table(memory, "memory.oom_control")["oom_kill"]
	s.Pids = r.number(filepath.Join(l.dir("pids"), group), "pids.current")
	return s, r.missing(filepath.Join(cpuacct, "cpuacct.usage"))
}

func (u *unified) Stat(group string) (Stat, error) {
	var s Stat
	dir := filepath.Join(u.root, group)
	r := reader{}
	cpu := r.table(dir, "cpu.stat")
	s.CPU.Nanos, s.CPU.UserNanos, s.CPU.SystemNanos = cpu["usage_usec"]*1000, cpu["user_usec"]*1000, cpu["system_usec"]*1000
	s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledNanos = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"]*1000
	if fields := strings.Fields(r.text(dir, "cpu.max")); len(fields) == 2 {
		s.CPU.Quota, s.CPU.Period = parse(fields[0]), parse(fields[1])
	}
	if weight := r.number(dir, "cpu.weight"); weight > 0 {
		s.CPU.Shares = shares(weight)
	}
	m, stat := &s.Memory, r.table(dir, "memory.stat")
	m.Usage = r.number(dir, "memory.current")
	m.WorkingSet = m.Usage - min(m.Usage, stat["inactive_file"])
	m.MaxUsage = r.number(dir, "memory.peak")
	m.RSS, m.Cache, m.Mapped = stat["anon"], stat["file"], stat["file_mapped"]
	m.Faults, m.MajorFaults = stat["pgfault"], stat["pgmajfault"]
	m.Limit = r.number(dir, "memory.max")
	if text := r.text(dir, "memory.swap.current"); text != "" {
		m.Swap, m.Swaps = parse(text), true
	}
	m.SwapLimit = r.number(dir, "memory.swap.max")
	events := r.table(dir, "memory.events")
	m.Failures, m.OOMKills = events["max"], events["oom_kill"]
	s.Pids = r.number(dir, "pids.current")
	s.Pressure = u.Pressure(group)
	return s, r.missing(filepath.Join(dir, "cpu.stat"))
}

// shares of version 1 that Weight makes a weight of, roughly.
func shares(weight uint64) uint64 {
	low, high := uint64(minShares), uint64(maxShares)
	for low < high {
		if mid := (low + high) / 2; Weight(mid) < weight {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// reader reads files of groups; those that are not there, since a controller is
// not on, are empty. It remembers the first other error.
type reader struct {
	err  error
	gone []string
}

func (r *reader) text(dir, file string) string {
	path := filepath.Join(dir, file)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.gone = append(r.gone, path)
	case err != nil && r.err == nil:
		r.err = err
	}
	return strings.TrimSpace(string(data))
}

// number is 0 for "max" and -1, which are no limit.
func (r *reader) number(dir, file string) uint64 { return parse(r.text(dir, file)) }

func parse(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// table reads "key value" lines.
func (r *reader) table(dir, file string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(r.text(dir, file)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[key] = parse(value)
		}
	}
	return out
}

// missing is the first error, or one when the file is not there without which
// nothing was measured.
func (r *reader) missing(file string) error {
	for _, path := range r.gone {
		if path == file && r.err == nil {
			return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
	}
	return r.err
}
