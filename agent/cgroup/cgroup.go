// Package cgroup keeps the tree of control groups of one Hansa instance:
//
//	/hansa/ID/pods/QOS/UID
//
// in every hierarchy of version 1 (and hybrid) hosts, or once in the unified
// hierarchy. The runtime puts the containers below the pod's group; what a pod
// as a whole may use is set here.
//
// Limits are given in one vocabulary, that of version 1; the unified layout
// converts them.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what a group may use. Zero values set nothing; -1 takes a limit
// away.
type Limits struct {
	CPUShares uint64 // relative weight, 2 to 262144
	CPUQuota  int64  // µs of cpu time per CPUPeriod
	CPUPeriod uint64 // µs
	Memory    int64  // bytes
	Pids      int64
	// HugePages are bytes by the kernel's name of the page size ("2MB"). When it
	// is not nil, pages of the sizes that it lacks may not be used at all. Where
	// the kernel has no controller for them, nothing is set.
	HugePages map[string]int64
	// MemoryMin, MemoryLow (protection from reclaim) and MemoryHigh (throttling)
	// are bytes; version 1 has nothing like them.
	MemoryMin, MemoryLow, MemoryHigh int64
}

func (l Limits) empty() bool { return reflect.DeepEqual(l, Limits{}) }

// Usage is what a group uses, its descendants included.
type Usage struct {
	CPUNanos   uint64 // since it was made
	Memory     uint64 // bytes
	WorkingSet uint64 // Memory without inactive file pages
	Pids       uint64
}

// Layout is one way of mounting control groups.
type Layout interface {
	// Name is "v1" or "v2".
	Name() string
	// Roots are the directories in which a group's path begins.
	Roots() []string
	// Make creates a group (its parent exists) so that limits can be set.
	Make(group string) error
	// Set writes limits to an existing group.
	Set(group string, l Limits) error
	// Usage reads what an existing group uses.
	Usage(group string) (Usage, error)
	// Stat reads all that is measured of an existing group.
	Stat(group string) (Stat, error)
	// Pressure reads what an existing group waits for, the root (/) for one; version 1
	// does not count it.
	Pressure(group string) Pressures
	// Inside is what the groups of containers inside an existing group are to
	// have beside their limits, by file: nothing on version 1.
	Inside(group string) map[string]string
}

// Detect finds the layout that is mounted at root (/sys/fs/cgroup). It fails
// with a sentence that names what is missing.
func Detect(root string) (Layout, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("look at control groups in %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return newUnified(root)
	}
	return newLegacy(root)
}

// Tree is the groups of one instance. Its methods may be called from any
// goroutine as long as no two are about the same group.
type Tree struct {
	layout Layout
	base   string
	record func(kind, name string) error
}

// LedgerKind is the kind of this package's entries in the ledger.
const LedgerKind = "cgroup"

// New is the tree below base ("/hansa/ID"). record notes the base in the ledger
// before anything in it is made: all below it is ours.
func New(layout Layout, base string, record func(kind, name string) error) *Tree {
	return &Tree{layout: layout, base: path.Clean("/" + base), record: record}
}

// Base is the path of the instance's group, as the runtime is to be given it.
func (t *Tree) Base() string { return t.base }

// Path is the absolute path of a group below the base, in the form that a
// runtime takes as a parent.
func (t *Tree) Path(group string) string { return path.Join(t.base, group) }

// Ensure makes a group ("pods/burstable/UID") and the ones above it, and sets
// its limits.
func (t *Tree) Ensure(group string, l Limits) error {
	full := t.Path(group)
	if err := t.record(LedgerKind, t.base); err != nil {
		return fmt.Errorf("record control group %s: %w", t.base, err)
	}
	at := ""
	for part := range strings.SplitSeq(strings.TrimPrefix(full, "/"), "/") {
		at += "/" + part
		if err := t.layout.Make(at); err != nil {
			return fmt.Errorf("make control group %s: %w", at, err)
		}
	}
	if l.empty() {
		return nil
	}
	return t.Set(group, l)
}

// Set writes limits to an existing group.
func (t *Tree) Set(group string, l Limits) error {
	if err := t.layout.Set(t.Path(group), l); err != nil {
		return fmt.Errorf("limit control group %s: %w", t.Path(group), err)
	}
	return nil
}

// SetOther writes limits to an existing group of somebody else, given from the
// root of the hierarchy.
func (t *Tree) SetOther(group string, l Limits) error {
	group = path.Clean("/" + group)
	if !Exists(t.layout, group) {
		return fmt.Errorf("limit control group %s: there is no such group", group)
	}
	if err := t.layout.Set(group, l); err != nil {
		return fmt.Errorf("limit control group %s: %w", group, err)
	}
	return nil
}

// Exists says whether there is a group, given from the root of the hierarchy.
func Exists(layout Layout, group string) bool {
	return slices.ContainsFunc(layout.Roots(), func(root string) bool {
		info, err := os.Stat(filepath.Join(root, path.Clean("/"+group)))
		return err == nil && info.IsDir()
	})
}

// Name is the version of control groups: v1 or v2.
func (t *Tree) Name() string { return t.layout.Name() }

// Usage reads what a group uses.
func (t *Tree) Usage(group string) (Usage, error) {
	u, err := t.layout.Usage(t.Path(group))
	if err != nil {
		return u, fmt.Errorf("read usage of control group %s: %w", t.Path(group), err)
	}
	return u, nil
}

// Inside is what the groups of containers inside an existing group are to have
// beside their limits, by file; the runtime writes it.
func (t *Tree) Inside(group string) map[string]string { return t.layout.Inside(t.Path(group)) }

// Children are the names of the groups directly below one, in any hierarchy.
func (t *Tree) Children(group string) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	for _, root := range t.layout.Roots() {
		entries, err := os.ReadDir(filepath.Join(root, t.Path(group)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list control groups below %s: %w", t.Path(group), err)
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				out = append(out, e.Name())
			}
		}
	}
	return out, nil
}

// Remove takes a group and all below it away in every hierarchy. What is left
// of a pod's processes there is killed first, so nothing outlives its pod. A
// group that does not exist is removed already.
func (t *Tree) Remove(group string) error { return removeAll(t.layout, t.Path(group)) }

// RemoveBase takes the whole tree away, for `hansa down`.
func RemoveBase(layout Layout, base string) error { return removeAll(layout, path.Clean("/"+base)) }

func removeAll(layout Layout, full string) error {
	var errs []error
	for _, root := range layout.Roots() {
		if err := removeDir(filepath.Join(root, full)); err != nil {
			errs = append(errs, fmt.Errorf("remove control group %s: %w", filepath.Join(root, full), err))
		}
	}
	return errors.Join(errs...)
}

// removeDir removes a group's directory bottom up. Only the directories can be
// removed; the files in them belong to the kernel.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDir(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) {
		killAll(dir)
		err = unix.Rmdir(dir)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// killAll kills the processes of one group.
func killAll(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return // the group is gone, or has no processes to be seen
	}
	for _, field := range strings.Fields(string(data)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
	}
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func write(dir, file, value string) error {
	// No O_CREATE: a file that is not there is a controller that is not on.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func readUint(dir, file string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	var n uint64
	if _, err := fmt.Sscan(string(data), &n); err != nil {
		return 0, fmt.Errorf("read %s: %w", filepath.Join(dir, file), err)
	}
	return n, nil
}

// hugePages finds the files that limit huge pages in a group, by the name of
// the page size: hugetlb.2MB.SUFFIX.
func hugePages(dir, suffix string) map[string]string {
	out := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "hugetlb.*"+suffix))
	if err != nil {
		return nil // the pattern is a constant
	}
	for _, f := range files {
		name := filepath.Base(f)
		size := strings.TrimSuffix(strings.TrimPrefix(name, "hugetlb."), suffix)
		if !strings.Contains(size, ".") { // not hugetlb.2MB.rsvd.…, which counts reservations
			out[size] = name
		}
	}
	return out
}

// readKey finds one "key value" line.
func readKey(dir, file, key string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		var name string
		var n uint64
		if _, err := fmt.Sscan(line, &name, &n); err == nil && name == key {
			return n, nil
		}
	}
	return 0, nil
}
