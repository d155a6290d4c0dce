package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"hansa.dev/hansa/agent/evict"
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

// Capacity is what the machine has. It runs at most maxPods pods, and perCore
// for each of its processors unless that is 0.
func (h Host) Capacity(maxPods, perCore int32) (v1.ResourceList, error) {
	pods := int64(maxPods)
	if perCore > 0 {
		pods = min(pods, int64(perCore)*int64(runtime.NumCPU()))
	}
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
		v1.ResourcePods:             *resource.NewQuantity(pods, resource.DecimalSI),
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

// Allocatable is what pods may ask for: the capacity without what is reserved,
// what has to stay free by the hard thresholds, and huge pages, which are
// memory, too.
func Allocatable(capacity, reserved v1.ResourceList, thresholds []evict.Threshold) v1.ResourceList {
	free := evict.Reserved(thresholds, capacity)
	out := v1.ResourceList{}
	for name, q := range capacity {
		left := q.DeepCopy()
		for _, less := range []v1.ResourceList{reserved, free} {
			if r, ok := less[name]; ok {
				left.Sub(r)
			}
		}
		if name == v1.ResourceMemory {
			for other, huge := range capacity {
				if strings.HasPrefix(string(other), v1.ResourceHugePagesPrefix) {
					left.Sub(huge)
				}
			}
		}
		if left.Sign() < 0 {
			left.Set(0)
		}
		out[name] = left
	}
	return out
}

// Overreserved says what less than nothing would be left of, or nil.
func Overreserved(capacity, reserved v1.ResourceList, thresholds []evict.Threshold) error {
	free := evict.Reserved(thresholds, capacity)
	for _, name := range slices.Sorted(maps.Keys(capacity)) {
		sum, have := reserved[name], capacity[name]
		sum.Add(free[name])
		if sum.Cmp(have) > 0 {
			return fmt.Errorf("%s of %s is reserved (kubeReserved, systemReserved and evictionHard together), but there is only %s: reserve less", &sum, name, &have)
		}
	}
	return nil
}

// PIDs is how many processes there may be, and are. The kernel has two limits,
// of which the lesser counts.
func (h Host) PIDs() (limit, used int64, err error) {
	limit, err1 := strconv.ParseInt(h.read("proc/sys/kernel/pid_max"), 10, 64)
	if threads, err := strconv.ParseInt(h.read("proc/sys/kernel/threads-max"), 10, 64); err == nil {
		limit = min(limit, threads)
	}
	_, last, _ := strings.Cut(h.read("proc/loadavg"), "/")
	total, _, _ := strings.Cut(last, " ")
	used, err2 := strconv.ParseInt(total, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("count processes: %w", err)
	}
	return limit, used, nil
}

// Observe looks at what is left of all that thresholds may be about. imageDir
// is where images are; it is looked at where its file system is another one
// than that of the pods.
func (h Host) Observe(imageDir string) (evict.Observations, error) {
	m, err := h.meminfo()
	if err != nil {
		return nil, err
	}
	o := evict.Observations{evict.Memory: {Available: int64(m["MemAvailable"]), Capacity: int64(m["MemTotal"])}}
	var st unix.Statfs_t
	if err := unix.Statfs(h.DataDir, &st); err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", h.DataDir, err)
	}
	o[evict.NodeFS], o[evict.NodeInodes] = space(st)
	var images unix.Statfs_t
	if unix.Statfs(imageDir, &images) == nil && images.Fsid != st.Fsid {
		o[evict.ImageFS], o[evict.ImageInodes] = space(images)
	}
	if limit, used, err := h.PIDs(); err == nil {
		o[evict.PIDs] = evict.Observation{Available: limit - used, Capacity: limit}
	}
	return o, nil
}

// space is what is left of a file system in bytes and inodes.
func space(st unix.Statfs_t) (bytes, inodes evict.Observation) {
	return evict.Observation{Available: int64(st.Bavail) * st.Bsize, Capacity: int64(st.Blocks) * st.Bsize},
		evict.Observation{Available: int64(st.Ffree), Capacity: int64(st.Files)}
}
