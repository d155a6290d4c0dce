package node

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Usage is what the machine uses.
type Usage struct {
	CPUNanos uint64
	// In bytes. Memory is without Free.
	Memory, Free, WorkingSet, Available, RSS, Swap, SwapFree uint64
	Faults, MajorFaults                                      uint64
	// Boot is when the machine was started.
	Boot time.Time
}

// tick is the unit of /proc/stat: USER_HZ is 100 on all architectures.
const tick = 10_000_000 // ns

// Usage reads what is used now.
func (h Host) Usage() (Usage, error) {
	m, err := h.meminfo()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{
		Memory: m["MemTotal"] - m["MemFree"], Free: m["MemFree"], WorkingSet: m["MemTotal"] - m["MemAvailable"], Available: m["MemAvailable"],
		RSS: m["AnonPages"], Swap: m["SwapTotal"] - m["SwapFree"], SwapFree: m["SwapFree"],
	}
	for line := range strings.Lines(h.read("proc/stat")) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 1 && fields[0] == "btime":
			if n, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				u.Boot = time.Unix(n, 0)
			}
			continue
		case len(fields) == 0 || fields[0] != "cpu":
			continue
		}
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
	}
	for line := range strings.Lines(h.read("proc/vmstat")) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name {
		case "pgfault":
			u.Faults, _ = strconv.ParseUint(value, 10, 64)
		case "pgmajfault":
			u.MajorFaults, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return u, nil
}

// Cores is how many CPUs, cores and sockets there are.
type Cores struct{ CPUs, Cores, Sockets int }

// Cores counts them.
func (h Host) Cores() Cores {
	cores, sockets, c := map[string]bool{}, map[string]bool{}, Cores{}
	socket := ""
	for line := range strings.Lines(h.read("proc/cpuinfo")) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "processor":
			c.CPUs++
		case "physical id":
			socket = value
			sockets[value] = true
		case "core id":
			cores[socket+"/"+value] = true
		}
	}
	c.Cores, c.Sockets = len(cores), len(sockets)
	if c.Cores == 0 { // the kernel does not say
		c.Cores, c.Sockets = c.CPUs, 1
	}
	return c
}

// FileSystem measures the file system that a path is on; nil when it cannot.
func (h Host) FileSystem(path string, at metav1.Time) *statsv1alpha1.FsStats {
	var st unix.Statfs_t
	if path == "" || unix.Statfs(path, &st) != nil {
		return nil
	}
	block := uint64(st.Bsize)
	capacity, available, used := st.Blocks*block, st.Bavail*block, (st.Blocks-st.Bfree)*block
	inodes, free := st.Files, st.Ffree
	taken := inodes - free
	return &statsv1alpha1.FsStats{
		Time: at, CapacityBytes: &capacity, AvailableBytes: &available, UsedBytes: &used, Inodes: &inodes, InodesFree: &free, InodesUsed: &taken,
	}
}

// Processes are how many there are and may be.
func (h Host) Processes(at metav1.Time) *statsv1alpha1.RlimitStats {
	most, n, err := h.PIDs()
	if err != nil {
		return nil
	}
	return &statsv1alpha1.RlimitStats{Time: at, MaxPID: &most, NumOfRunningProcesses: &n}
}

// Interface is what went through a network interface.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Interfaces are those of the machine.
func (h Host) Interfaces() []Interface { return h.InterfacesOf("self") }

// InterfacesOf are those of the network that a process is in, but for the one to
// itself.
func (h Host) InterfacesOf(pid string) []Interface {
	var out []Interface
	for line := range strings.Lines(h.read(filepath.Join("proc", pid, "net/dev"))) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || name == "lo" || len(fields) < 16 {
			continue
		}
		n := func(i int) uint64 {
			v, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0 // they are numbers
			}
			return v
		}
		// bytes packets errs drop fifo frame compressed multicast, received and sent
		out = append(out, Interface{name, n(0), n(1), n(2), n(3), n(8), n(9), n(10), n(11)})
	}
	return out
}
