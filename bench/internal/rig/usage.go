package rig

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one of those that a data directory started.
type Process struct {
	PID  int
	Name string
	PSS  int64 // proportional set size, bytes
	Own  int64 // private pages, those of files too, bytes
	Anon int64 // pages that are in no file, bytes
	CPU  time.Duration
}

// Processes are the daemon, and whatever is in a cgroup of the instance or
// descends from one of these: containerd, shims, containers.
func (c *Cluster) Processes() ([]Process, error) {
	parents, ours, err := c.survey()
	if err != nil {
		return nil, err
	}
	var ps []Process
	for pid := range parents {
		if !descends(pid, parents, ours) {
			continue
		}
		p, err := inspect(pid)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // it has ended meanwhile
			}
			return nil, err
		}
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b Process) int { return a.PID - b.PID })
	return ps, nil
}

// survey gives the parent of each process of the machine, and the processes
// that are ours by themselves.
func (c *Cluster) survey() (parents map[int]int, ours map[int]bool, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, nil, err
	}
	group := []byte(":" + c.group() + "/")
	parents, ours = map[int]int{}, map[int]bool{c.PID(): true}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		fields, err := stat(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		parents[pid], _ = strconv.Atoi(fields[1]) //nolint:errcheck // the kernel writes a number
		if groups, err := os.ReadFile(dir + "/cgroup"); err == nil && bytes.Contains(groups, group) {
			ours[pid] = true
		}
	}
	return parents, ours, nil
}

func descends(pid int, parents map[int]int, ours map[int]bool) bool {
	for ; pid > 1; pid = parents[pid] {
		if ours[pid] {
			return true
		}
	}
	return false
}

// stat gives the fields of /proc/PID/stat (proc(5)) from the third, the state,
// on: what stands before may contain spaces.
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// tick is the unit of processor time in /proc: USER_HZ is 100 everywhere.
const tick = 10 * time.Millisecond

// CPU is the processor time that a process has taken so far.
func CPU(pid int) (sum time.Duration, err error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

func inspect(pid int) (p Process, err error) {
	p.PID = pid
	if p.CPU, err = CPU(pid); err != nil {
		return p, err
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return p, err
	}
	p.Name = strings.TrimSpace(string(name))
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return p, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, rest, _ := strings.Cut(lines.Text(), ":")
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		kib, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			continue // the head line
		}
		switch key {
		case "Pss":
			p.PSS = kib << 10
		case "Private_Clean", "Private_Dirty":
			p.Own += kib << 10
		case "Anonymous":
			p.Anon = kib << 10
		}
	}
	return p, lines.Err()
}

// CPU is the processor time that the cluster has taken so far, that of
// processes which have ended included: the daemon's and its cgroup's.
func (c *Cluster) CPU() (time.Duration, error) {
	daemon, err := CPU(c.PID())
	if err != nil {
		return 0, err
	}
	for file, read := range map[string]func(string) (time.Duration, error){
		"/sys/fs/cgroup/cpuacct" + c.group() + "/cpuacct.usage": nanoseconds,
		"/sys/fs/cgroup" + c.group() + "/cpu.stat":              usageUsec,
	} {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the other version of cgroups
		}
		if err != nil {
			return 0, err
		}
		used, err := read(string(b))
		return daemon + used, err
	}
	return 0, fmt.Errorf("no accounting of cgroup %s", c.group())
}

func nanoseconds(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return time.Duration(n), err
}

func usageUsec(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("no usage_usec in cpu.stat")
}

// group is the cgroup of everything but the daemon. Names on the host follow
// from the path of the data directory; DESIGN.md says how.
func (c *Cluster) group() string {
	sum := sha256.Sum256([]byte(c.Dir))
	return "/hansa/" + hex.EncodeToString(sum[:4])
}

// Wait lets time pass.
func Wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
