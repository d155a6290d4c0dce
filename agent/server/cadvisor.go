package server

import (
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/node"
)

// Measured is what a node and the groups of processes on it use.
type Measured struct {
	Info                   v1.NodeSystemInfo
	Cores                  node.Cores
	MemoryTotal, SwapTotal uint64 // bytes
	Groups                 []Group
}

// Group is a control group: of the machine, of all pods, of a pod, of a
// container. What it is not of is empty.
type Group struct {
	ID                        string // the group's path
	Name, Image               string // the runtime's, of containers
	Namespace, Pod, Container string
	Started                   time.Time
	Stat                      cgroup.Stat
	Fs                        *statsv1alpha1.FsStats
	Interfaces                []node.Interface
}

func (g *Group) labels(more ...label) []label {
	return append([]label{
		{"container", g.Container}, {"id", g.ID}, {"image", g.Image}, {"name", g.Name}, {"namespace", g.Namespace}, {"pod", g.Pod},
	}, more...)
}

// series is one that every group has.
type series struct {
	name, help, kind string
	value            func(g *Group) (float64, bool)
}

func counted(f func(s *cgroup.Stat) uint64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) { return float64(f(&g.Stat)), true }
}

func seconds(f func(s *cgroup.Stat) uint64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) { return float64(f(&g.Stat)) / 1e9, true }
}

// limited is of groups of pods alone: the machine has no limits.
func limited(f func(s *cgroup.Stat) uint64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) { return float64(f(&g.Stat)), g.Pod != "" }
}

// quota is of groups with a quota of cpu time.
func quota(f func(s *cgroup.Stat) float64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) { return f(&g.Stat), g.Stat.CPU.Quota > 0 }
}

// pressed is of groups whose pressure the kernel counts.
func pressed(micros func(p *cgroup.Pressures) uint64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) {
		return float64(micros(&g.Stat.Pressure)) / 1e6, g.Stat.Pressure.Counted
	}
}

func written(f func(fs *statsv1alpha1.FsStats) *uint64) func(*Group) (float64, bool) {
	return func(g *Group) (float64, bool) {
		if g.Fs == nil || f(g.Fs) == nil {
			return 0, false
		}
		return float64(*f(g.Fs)), true
	}
}

// cadvisor are the series of cAdvisor that the kubelet shows, but for those that
// are about devices, sockets and what the kernel does not count by group. Names
// and texts are cAdvisor's.
var cadvisor = []series{
	{"container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "counter", quota(func(s *cgroup.Stat) float64 { return float64(s.CPU.Periods) })},
	{"container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", "counter", quota(func(s *cgroup.Stat) float64 { return float64(s.CPU.Throttled) })},
	{"container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", "counter", quota(func(s *cgroup.Stat) float64 { return float64(s.CPU.ThrottledNanos) / 1e9 })},
	{"container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", "counter", seconds(func(s *cgroup.Stat) uint64 { return s.CPU.SystemNanos })},
	{"container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", "counter", seconds(func(s *cgroup.Stat) uint64 { return s.CPU.UserNanos })},
	{"container_fs_inodes_free", "Number of available Inodes", "gauge", written(func(fs *statsv1alpha1.FsStats) *uint64 { return fs.InodesFree })},
	{"container_fs_inodes_total", "Number of Inodes", "gauge", written(func(fs *statsv1alpha1.FsStats) *uint64 { return fs.Inodes })},
	{"container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", "gauge", written(func(fs *statsv1alpha1.FsStats) *uint64 { return fs.CapacityBytes })},
	{"container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", "gauge", written(func(fs *statsv1alpha1.FsStats) *uint64 { return fs.UsedBytes })},
	{"container_memory_cache", "Number of bytes of page cache memory.", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.Cache })},
	{"container_memory_failcnt", "Number of memory usage hits limits", "counter", counted(func(s *cgroup.Stat) uint64 { return s.Memory.Failures })},
	{"container_memory_mapped_file", "Size of memory mapped files in bytes.", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.Mapped })},
	{"container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.MaxUsage })},
	{"container_memory_rss", "Size of RSS in bytes.", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.RSS })},
	{"container_memory_swap", "Container swap usage in bytes.", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.Swap })},
	{"container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.Usage })},
	{"container_memory_working_set_bytes", "Current working set in bytes.", "gauge", counted(func(s *cgroup.Stat) uint64 { return s.Memory.WorkingSet })},
	{"container_oom_events_total", "Count of out of memory events observed for the container", "counter", counted(func(s *cgroup.Stat) uint64 { return s.Memory.OOMKills })},
	{"container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.CPU.Full.Micros })},
	{"container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.CPU.Some.Micros })},
	{"container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.IO.Full.Micros })},
	{"container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.IO.Some.Micros })},
	{"container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.Memory.Full.Micros })},
	{"container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.", "counter", pressed(func(p *cgroup.Pressures) uint64 { return p.Memory.Some.Micros })},
	{"container_processes", "Number of processes running inside the container.", "gauge", limited(func(s *cgroup.Stat) uint64 { return s.Pids })},
	{"container_spec_cpu_period", "CPU period of the container.", "gauge", limited(func(s *cgroup.Stat) uint64 { return s.CPU.Period })},
	{"container_spec_cpu_quota", "CPU quota of the container.", "gauge", quota(func(s *cgroup.Stat) float64 { return float64(s.CPU.Quota) })},
	{"container_spec_cpu_shares", "CPU share of the container.", "gauge", limited(func(s *cgroup.Stat) uint64 { return s.CPU.Shares })},
	{"container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge", limited(func(s *cgroup.Stat) uint64 { return s.Memory.Limit })},
	{"container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", "gauge", limited(func(s *cgroup.Stat) uint64 { return s.Memory.SwapLimit })},
	{"container_start_time_seconds", "Start time of the container since unix epoch in seconds.", "gauge", func(g *Group) (float64, bool) {
		return float64(g.Started.Unix()), g.Started.Unix() > 0
	}},
}

// traffic are the series of interfaces.
var traffic = []struct {
	name, help string
	value      func(i *node.Interface) uint64
}{
	{"container_network_receive_bytes_total", "Cumulative count of bytes received", func(i *node.Interface) uint64 { return i.RxBytes }},
	{"container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", func(i *node.Interface) uint64 { return i.RxErrors }},
	{"container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", func(i *node.Interface) uint64 { return i.RxDropped }},
	{"container_network_receive_packets_total", "Cumulative count of packets received", func(i *node.Interface) uint64 { return i.RxPackets }},
	{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", func(i *node.Interface) uint64 { return i.TxBytes }},
	{"container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", func(i *node.Interface) uint64 { return i.TxErrors }},
	{"container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", func(i *node.Interface) uint64 { return i.TxDropped }},
	{"container_network_transmit_packets_total", "Cumulative count of packets transmitted", func(i *node.Interface) uint64 { return i.TxPackets }},
}

// cadvisorMetrics answers with what monitoring knows from cAdvisor.
func (s *Server) cadvisorMetrics(w http.ResponseWriter, r *http.Request) {
	failed := 0.0
	m, err := s.Node.Measure(r.Context())
	if err != nil {
		s.Log.Warn("node API: metrics lack all containers", "err", err)
		failed = 1
	}
	now, e := s.Clock.Now(), &exposition{}
	e.family("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "counter", func(emit emitter) {
		for i := range m.Groups {
			g := &m.Groups[i]
			l := g.labels()
			emit(float64(g.Stat.CPU.Nanos)/1e9, now, append([]label{l[0], {"cpu", "total"}}, l[1:]...)...)
		}
	})
	for _, one := range cadvisor {
		e.family(one.name, one.help, one.kind, func(emit emitter) {
			for i := range m.Groups {
				if v, ok := one.value(&m.Groups[i]); ok {
					emit(v, now, m.Groups[i].labels()...)
				}
			}
		})
	}
	e.family("container_memory_failures_total", "Cumulative count of memory allocation failures.", "counter", func(emit emitter) {
		for i := range m.Groups {
			g := &m.Groups[i]
			emit(float64(g.Stat.Memory.Faults), now, g.labels(label{"failure_type", "pgfault"}, label{"scope", "hierarchy"})...)
			emit(float64(g.Stat.Memory.MajorFaults), now, g.labels(label{"failure_type", "pgmajfault"}, label{"scope", "hierarchy"})...)
		}
	})
	for _, one := range traffic {
		e.family(one.name, one.help, "counter", func(emit emitter) {
			for i := range m.Groups {
				for j := range m.Groups[i].Interfaces {
					f := &m.Groups[i].Interfaces[j]
					emit(float64(one.value(f)), now, m.Groups[i].labels(label{"interface", f.Name})...)
				}
			}
		})
	}
	e.family("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", "gauge", func(emit emitter) {
		emit(failed, time.Time{})
	})
	if err == nil {
		machine(e, m)
	}
	s.expose(w, e)
}

// machine adds what the machine is.
func machine(e *exposition, m Measured) {
	labels := []label{{"boot_id", m.Info.BootID}, {"machine_id", m.Info.MachineID}, {"system_uuid", m.Info.SystemUUID}}
	for _, one := range []struct {
		name, help string
		value      float64
	}{
		{"machine_cpu_cores", "Number of logical CPU cores.", float64(m.Cores.CPUs)},
		{"machine_cpu_physical_cores", "Number of physical CPU cores.", float64(m.Cores.Cores)},
		{"machine_cpu_sockets", "Number of CPU sockets.", float64(m.Cores.Sockets)},
		{"machine_memory_bytes", "Amount of memory installed on the machine.", float64(m.MemoryTotal)},
		{"machine_swap_bytes", "Amount of swap memory available on the machine.", float64(m.SwapTotal)},
	} {
		e.family(one.name, one.help, "gauge", func(emit emitter) { emit(one.value, time.Time{}, labels...) })
	}
}
