package agent

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/server"
)

// Summary is what the node, its pods and their containers use: of cpu and memory
// alone, or of everything. Nothing is measured but when somebody asks.
func (n nodeView) Summary(ctx context.Context, cpuAndMemory bool) (*statsv1alpha1.Summary, error) {
	a := n.a
	now := a.Clock.Now()
	use, err := a.Host.Usage()
	if err != nil {
		return nil, err
	}
	if !cpuAndMemory && a.meter.stale("", now) { // rates need two times
		a.meter.note("", now, use.CPUNanos)
		n.rates()
		select {
		case <-a.Clock.After(ratePause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		now = a.Clock.Now()
		if use, err = a.Host.Usage(); err != nil {
			return nil, err
		}
	}
	at := metav1.NewTime(now)
	out := &statsv1alpha1.Summary{Node: statsv1alpha1.NodeStats{
		NodeName: a.NodeName, StartTime: metav1.NewTime(use.Boot),
		CPU: &statsv1alpha1.CPUStats{Time: at, UsageCoreNanoSeconds: &use.CPUNanos, UsageNanoCores: a.meter.note("", now, use.CPUNanos)},
		Memory: &statsv1alpha1.MemoryStats{
			Time: at, UsageBytes: &use.Memory, WorkingSetBytes: &use.WorkingSet, AvailableBytes: &use.Available,
			RSSBytes: &use.RSS, PageFaults: &use.Faults, MajorPageFaults: &use.MajorFaults,
		},
		Swap: &statsv1alpha1.SwapStats{Time: at, SwapUsageBytes: &use.Swap, SwapAvailableBytes: &use.SwapFree},
	}}
	if p := a.Groups.Pressure(); p.Counted {
		out.Node.CPU.PSI, out.Node.Memory.PSI = psi(p.CPU), psi(p.Memory)
		if !cpuAndMemory {
			out.Node.IO = ioStats(p, at)
		}
	}
	out.Pods = []statsv1alpha1.PodStats{}
	for _, p := range a.pods() {
		if !pod.Terminal(p) {
			out.Pods = append(out.Pods, n.podStats(ctx, p, now, cpuAndMemory))
		}
	}
	if !cpuAndMemory {
		n.rest(&out.Node, at)
		out.Node.SystemContainers = n.systemContainers(now)
	}
	a.meter.tidy(now)
	return out, nil
}

// rates notes what all containers have used, for rates that follow.
func (n nodeView) rates() {
	for _, p := range n.a.pods() {
		groups := []string{cgroup.PodGroup(pod.QOS(p), string(p.UID))}
		for _, cs := range running(p) {
			groups = append(groups, groups[0]+"/"+pod.TrimScheme(cs.ContainerID))
		}
		for _, g := range groups {
			if s, err := n.a.Groups.Stat(g); err == nil {
				n.a.meter.note(g, n.a.Clock.Now(), s.CPU.Nanos)
			}
		}
	}
}

// running are the statuses of a pod's containers that run, of whatever kind.
func running(p *v1.Pod) []*v1.ContainerStatus {
	var out []*v1.ContainerStatus
	for _, list := range [][]v1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].State.Running != nil {
				out = append(out, &list[i])
			}
		}
	}
	return out
}

func (n nodeView) podStats(ctx context.Context, p *v1.Pod, now time.Time, cpuAndMemory bool) statsv1alpha1.PodStats {
	a := n.a
	out := statsv1alpha1.PodStats{
		PodRef:     statsv1alpha1.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)},
		Containers: []statsv1alpha1.ContainerStats{},
	}
	if p.Status.StartTime != nil {
		out.StartTime = *p.Status.StartTime
	}
	at, group := metav1.NewTime(now), cgroup.PodGroup(pod.QOS(p), string(p.UID))
	if s, err := a.Groups.Stat(group); err == nil {
		out.CPU, out.Memory, out.Swap = a.groupStats(group, s, now)
		if !cpuAndMemory {
			out.IO = ioStats(s.Pressure, at)
		}
		out.ProcessStats = &statsv1alpha1.ProcessStats{ProcessCount: &s.Pids}
	}
	for _, cs := range running(p) {
		id := pod.TrimScheme(cs.ContainerID)
		s, err := a.Groups.Stat(group + "/" + id)
		if err != nil {
			continue // it may have ended since
		}
		c := statsv1alpha1.ContainerStats{Name: cs.Name, StartTime: cs.State.Running.StartedAt}
		c.CPU, c.Memory, c.Swap = a.groupStats(group+"/"+id, s, now)
		if !cpuAndMemory {
			c.IO = ioStats(s.Pressure, at)
			c.Rootfs = a.rootfs(ctx, id, now)
			c.Logs = a.logsOf(p, cs.Name, at)
		}
		out.Containers = append(out.Containers, c)
	}
	if cpuAndMemory {
		return out
	}
	if !p.Spec.HostNetwork {
		out.Network = networkStats(a.interfaces(group), at)
	}
	out.VolumeStats = a.volumeStats(p, now)
	out.EphemeralStorage = ephemeral(out, at)
	return out
}

// groupStats are cpu, memory and swap of a group.
func (a *Agent) groupStats(group string, s cgroup.Stat, now time.Time) (*statsv1alpha1.CPUStats, *statsv1alpha1.MemoryStats, *statsv1alpha1.SwapStats) {
	at, m := metav1.NewTime(now), s.Memory
	cpu := &statsv1alpha1.CPUStats{Time: at, UsageCoreNanoSeconds: &s.CPU.Nanos, UsageNanoCores: a.meter.note(group, now, s.CPU.Nanos)}
	memory := &statsv1alpha1.MemoryStats{
		Time: at, UsageBytes: &m.Usage, WorkingSetBytes: &m.WorkingSet, RSSBytes: &m.RSS, PageFaults: &m.Faults, MajorPageFaults: &m.MajorFaults,
	}
	if m.Limit > 0 {
		left := m.Limit - min(m.Limit, m.WorkingSet)
		memory.AvailableBytes = &left
	}
	if s.Pressure.Counted {
		cpu.PSI, memory.PSI = psi(s.Pressure.CPU), psi(s.Pressure.Memory)
	}
	if !m.Swaps {
		return cpu, memory, nil
	}
	return cpu, memory, &statsv1alpha1.SwapStats{Time: at, SwapUsageBytes: &m.Swap}
}

// psi is a pressure as the kubelet shows it: the totals are the kernel's microseconds,
// whatever the API says of them.
func psi(p cgroup.Pressure) *statsv1alpha1.PSIStats {
	of := func(s cgroup.Stall) statsv1alpha1.PSIData {
		return statsv1alpha1.PSIData{Total: s.Micros, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
	}
	return &statsv1alpha1.PSIStats{Full: of(p.Full), Some: of(p.Some)}
}

// ioStats is nil where the kernel does not count pressure.
func ioStats(p cgroup.Pressures, at metav1.Time) *statsv1alpha1.IOStats {
	if !p.Counted {
		return nil
	}
	return &statsv1alpha1.IOStats{Time: at, PSI: psi(p.IO)}
}

// systemContainers are what runs beside the pods: the daemon, the runtime, and
// the pods as a whole.
func (n nodeView) systemContainers(now time.Time) []statsv1alpha1.ContainerStats {
	var out []statsv1alpha1.ContainerStats
	for _, c := range []struct{ name, group string }{
		{statsv1alpha1.SystemContainerRuntime, cgroup.SystemGroup},
		{statsv1alpha1.SystemContainerPods, cgroup.PodsGroup},
	} {
		s, err := n.a.Groups.Stat(c.group)
		if err != nil {
			continue // a runtime of somebody else's
		}
		one := statsv1alpha1.ContainerStats{Name: c.name}
		one.CPU, one.Memory, one.Swap = n.a.groupStats(c.group, s, now)
		one.IO = ioStats(s.Pressure, metav1.NewTime(now))
		out = append(out, one)
	}
	return out
}

// Measure is what a node's containers use, for monitoring.
func (n nodeView) Measure(ctx context.Context) (server.Measured, error) {
	a := n.a
	now := a.Clock.Now()
	use, err := a.Host.Usage()
	if err != nil {
		return server.Measured{}, err
	}
	m := server.Measured{Info: a.Host.Info(), Cores: a.Host.Cores(), MemoryTotal: use.Memory + use.Free, SwapTotal: use.Swap + use.SwapFree}
	m.Groups = append(m.Groups, server.Group{ID: "/", Started: use.Boot, Interfaces: a.Host.Interfaces(), Stat: cgroup.Stat{
		CPU:      cgroup.CPUStat{Nanos: use.CPUNanos},
		Memory:   cgroup.MemoryStat{Usage: use.Memory, WorkingSet: use.WorkingSet, RSS: use.RSS, Swap: use.Swap, Swaps: true, Faults: use.Faults, MajorFaults: use.MajorFaults},
		Pressure: a.Groups.Pressure(),
	}})
	for _, name := range []string{cgroup.SystemGroup, cgroup.PodsGroup} {
		if s, err := a.Groups.Stat(name); err == nil {
			m.Groups = append(m.Groups, server.Group{ID: a.Groups.Path(name), Stat: s})
		}
	}
	for _, p := range a.pods() {
		if pod.Terminal(p) {
			continue
		}
		group := cgroup.PodGroup(pod.QOS(p), string(p.UID))
		s, err := a.Groups.Stat(group)
		if err != nil {
			continue
		}
		g := server.Group{ID: a.Groups.Path(group), Namespace: p.Namespace, Pod: p.Name, Stat: s}
		if p.Status.StartTime != nil {
			g.Started = p.Status.StartTime.Time
		}
		if !p.Spec.HostNetwork {
			g.Interfaces = a.interfaces(group)
		}
		m.Groups = append(m.Groups, g)
		for _, cs := range running(p) {
			id := pod.TrimScheme(cs.ContainerID)
			s, err := a.Groups.Stat(group + "/" + id)
			if err != nil {
				continue
			}
			c := server.Group{
				ID: a.Groups.Path(group + "/" + id), Name: id, Image: cs.Image, Namespace: p.Namespace, Pod: p.Name, Container: cs.Name,
				Started: cs.State.Running.StartedAt.Time, Stat: s,
			}
			if fs := a.rootfs(ctx, id, now); fs != nil {
				c.Fs = fs
			}
			m.Groups = append(m.Groups, c)
		}
	}
	return m, nil
}

// logsOf is what a container has logged, rotated files too.
func (a *Agent) logsOf(p *v1.Pod, container string, at metav1.Time) *statsv1alpha1.FsStats {
	size := uint64(sizes(logs.PodDir(a.node.LogsDir, p.Namespace, p.Name, string(p.UID)) + "/" + container))
	fs := a.Host.FileSystem(a.node.LogsDir, at)
	if fs != nil {
		fs.UsedBytes = &size
	}
	return fs
}
