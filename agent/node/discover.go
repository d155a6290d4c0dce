package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Host is what a machine is, read from its files below Root ("/" but in tests).
type Host struct {
	Root string
	// DataDir is on the file system that pods use.
	DataDir string
}

func (h Host) read(path string) string {
	data, err := os.ReadFile(filepath.Join(h.Root, path))
	if err != nil {
		return "" // not every machine has every file
	}
	return strings.TrimSpace(string(data))
}

// Info describes the machine for the node's status.
func (h Host) Info() v1.NodeSystemInfo {
	var u unix.Utsname
	kernel := ""
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	info := v1.NodeSystemInfo{
		MachineID:       h.read("etc/machine-id"),
		SystemUUID:      h.read("sys/class/dmi/id/product_uuid"),
		BootID:          h.read("proc/sys/kernel/random/boot_id"),
		KernelVersion:   kernel,
		OSImage:         osImage(h.read("etc/os-release")),
		OperatingSystem: runtime.GOOS,
		Architecture:    runtime.GOARCH,
	}
	if info.MachineID == "" {
		info.MachineID = h.read("var/lib/dbus/machine-id")
	}
	if info.SystemUUID == "" {
		info.SystemUUID = info.MachineID
	}
	if m, err := h.meminfo(); err == nil && m["SwapTotal"] > 0 {
		swap := int64(m["SwapTotal"])
		info.Swap = &v1.NodeSwapStatus{Capacity: &swap}
	}
	return info
}

// AppArmor says whether the kernel enforces profiles.
func (h Host) AppArmor() bool {
	return strings.HasPrefix(h.read("sys/module/apparmor/parameters/enabled"), "Y")
}

func osImage(release string) string {
	for line := range strings.Lines(release) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			if s, err := strconv.Unquote(v); err == nil {
				return s
			}
			return v
		}
	}
	return "Unknown"
}

// meminfo reads /proc/meminfo, in bytes.
func (h Host) meminfo() (map[string]uint64, error) {
	data, err := os.ReadFile(filepath.Join(h.Root, "proc/meminfo"))
	if err != nil {
		return nil, fmt.Errorf("read memory size: %w", err)
	}
	out := map[string]uint64{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			continue
		}
		if len(fields) == 3 && fields[2] == "kB" {
			n <<= 10
		}
		out[strings.TrimSuffix(fields[0], ":")] = n
	}
	return out, nil
}

// MaxPods is how many pods a node runs.
const MaxPods = 110

// Capacity is what the machine has.
func (h Host) Capacity() (v1.ResourceList, error) {
	m, err := h.meminfo()
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(h.DataDir, &st); err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", h.DataDir, err)
	}
	out := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(int64(m["MemTotal"]), resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(st.Blocks)*st.Bsize, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(MaxPods, resource.DecimalSI),
	}
	return out, h.hugePages(out)
}

// hugePages adds the reserved huge pages of each size that the kernel has.
func (h Host) hugePages(out v1.ResourceList) error {
	dir := filepath.Join(h.Root, "sys/kernel/mm/hugepages")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list sizes of huge pages: %w", err)
	}
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(h.read(filepath.Join("sys/kernel/mm/hugepages", e.Name(), "nr_hugepages")), 10, 64)
		if err != nil {
			continue
		}
		size := resource.NewQuantity(kb<<10, resource.BinarySI)
		out[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(n*kb<<10, resource.BinarySI)
	}
	return nil
}

// Thresholds of node pressure, those of Kubernetes.
const (
	memoryThreshold = 100 << 20 // bytes available
	diskThreshold   = 0.10      // of the file system available
	inodeThreshold  = 0.05      // of its inodes free
	pidThreshold    = 0.05      // of the process IDs free
)

// Allocatable is what pods may ask for: the capacity without what is reserved,
// what has to stay free, and huge pages, which are memory, too.
func Allocatable(capacity, reserved v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for name, q := range capacity {
		left := q.DeepCopy()
		if r, ok := reserved[name]; ok {
			left.Sub(r)
		}
		switch name {
		case v1.ResourceMemory:
			left.Sub(*resource.NewQuantity(memoryThreshold, resource.BinarySI))
			for other, huge := range capacity {
				if strings.HasPrefix(string(other), v1.ResourceHugePagesPrefix) {
					left.Sub(huge)
				}
			}
		case v1.ResourceEphemeralStorage:
			left.Sub(*resource.NewQuantity(int64(float64(q.Value())*diskThreshold), resource.BinarySI))
		}
		if left.Sign() < 0 {
			left.Set(0)
		}
		out[name] = left
	}
	return out
}

// Pressure is what the machine is short of.
type Pressure struct{ Memory, Disk, Pid bool }

// Shortage is how short the machine is of one thing: bytes, or process IDs.
type Shortage struct {
	Resource             v1.ResourceName // memory, ephemeral-storage or pids
	Threshold, Available int64
}

// Pressure looks at what is free now.
func (h Host) Pressure() (Pressure, error) {
	var p Pressure
	list, err := h.Shortages()
	for _, s := range list {
		switch s.Resource {
		case v1.ResourceMemory:
			p.Memory = true
		case v1.ResourceEphemeralStorage:
			p.Disk = true
		default:
			p.Pid = true
		}
	}
	return p, err
}

// Shortages lists what there is less of than the thresholds ask for.
func (h Host) Shortages() ([]Shortage, error) {
	var out []Shortage
	check := func(name v1.ResourceName, threshold, available int64) {
		if available < threshold {
			out = append(out, Shortage{name, threshold, available})
		}
	}
	m, err := h.meminfo()
	if err != nil {
		return nil, err
	}
	check(v1.ResourceMemory, memoryThreshold, int64(m["MemAvailable"]))
	var st unix.Statfs_t
	if err := unix.Statfs(h.DataDir, &st); err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", h.DataDir, err)
	}
	check(v1.ResourceEphemeralStorage, int64(diskThreshold*float64(st.Blocks))*st.Bsize, int64(st.Bavail)*st.Bsize)
	if len(out) == 0 || out[len(out)-1].Resource != v1.ResourceEphemeralStorage {
		check(v1.ResourceEphemeralStorage, int64(inodeThreshold*float64(st.Files)), int64(st.Ffree))
	}
	limit, err1 := strconv.ParseInt(h.read("proc/sys/kernel/pid_max"), 10, 64)
	_, last, _ := strings.Cut(h.read("proc/loadavg"), "/")
	total, _, _ := strings.Cut(last, " ")
	used, err2 := strconv.ParseInt(total, 10, 64)
	if errors.Join(err1, err2) == nil {
		check("pids", int64(pidThreshold*float64(limit)), limit-used)
	}
	return out, nil
}

// Usage is what the machine uses.
type Usage struct{ CPUNanos, Memory, WorkingSet, Available uint64 }

// tick is the unit of /proc/stat: USER_HZ is 100 on all architectures.
const tick = 10_000_000 // ns

// Usage reads what is used now.
func (h Host) Usage() (Usage, error) {
	m, err := h.meminfo()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Memory: m["MemTotal"] - m["MemFree"], WorkingSet: m["MemTotal"] - m["MemAvailable"], Available: m["MemAvailable"]}
	line, _, _ := strings.Cut(h.read("proc/stat"), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal
	for i, f := range fields {
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return u, fmt.Errorf("read cpu usage: %w", err)
		}
		u.CPUNanos += n * tick
	}
	return u, nil
}
