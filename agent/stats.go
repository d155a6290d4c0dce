package agent

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
)

// Summary is what the node, its pods and their containers use of cpu and
// memory.
func (n nodeView) Summary(ctx context.Context) (*statsv1alpha1.Summary, error) {
	a := n.a
	now := metav1.NewTime(a.Clock.Now())
	use, err := a.Host.Usage()
	if err != nil {
		return nil, err
	}
	out := &statsv1alpha1.Summary{Node: statsv1alpha1.NodeStats{
		NodeName: a.NodeName,
		CPU:      &statsv1alpha1.CPUStats{Time: now, UsageCoreNanoSeconds: &use.CPUNanos},
		Memory:   &statsv1alpha1.MemoryStats{Time: now, UsageBytes: &use.Memory, WorkingSetBytes: &use.WorkingSet, AvailableBytes: &use.Available},
	}}
	for _, p := range a.pods() {
		if pod.Terminal(p) {
			continue
		}
		stats := statsv1alpha1.PodStats{
			PodRef:     statsv1alpha1.PodReference{Name: p.Name, Namespace: p.Namespace, UID: string(p.UID)},
			Containers: []statsv1alpha1.ContainerStats{},
		}
		if p.Status.StartTime != nil {
			stats.StartTime = *p.Status.StartTime
		}
		if u, err := a.Groups.Usage(cgroup.PodGroup(pod.QOS(p), string(p.UID))); err == nil {
			stats.CPU = &statsv1alpha1.CPUStats{Time: now, UsageCoreNanoSeconds: &u.CPUNanos}
			stats.Memory = &statsv1alpha1.MemoryStats{Time: now, UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet}
			stats.ProcessStats = &statsv1alpha1.ProcessStats{ProcessCount: &u.Pids}
		}
		for i := range p.Status.ContainerStatuses {
			cs := &p.Status.ContainerStatuses[i]
			if cs.State.Running == nil {
				continue
			}
			got, err := a.Runtime.ContainerStats(ctx, pod.TrimScheme(cs.ContainerID))
			if err != nil {
				continue // it may have ended since
			}
			c := containerStats(got)
			c.Name, c.StartTime = cs.Name, cs.State.Running.StartedAt
			stats.Containers = append(stats.Containers, c)
		}
		out.Pods = append(out.Pods, stats)
	}
	return out, nil
}

func containerStats(s *cri.ContainerStats) statsv1alpha1.ContainerStats {
	var out statsv1alpha1.ContainerStats
	if c := s.GetCpu(); c != nil {
		out.CPU = &statsv1alpha1.CPUStats{Time: nanoTime(c.Timestamp), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds), UsageNanoCores: value(c.UsageNanoCores)}
	}
	if m := s.GetMemory(); m != nil {
		out.Memory = &statsv1alpha1.MemoryStats{
			Time: nanoTime(m.Timestamp), WorkingSetBytes: value(m.WorkingSetBytes), AvailableBytes: value(m.AvailableBytes),
			UsageBytes: value(m.UsageBytes), RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
		}
	}
	if w := s.GetWritableLayer(); w != nil {
		out.Rootfs = &statsv1alpha1.FsStats{Time: nanoTime(w.Timestamp), UsedBytes: value(w.UsedBytes), InodesUsed: value(w.InodesUsed)}
	}
	return out
}

func value(v *cri.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func nanoTime(nanos int64) metav1.Time { return metav1.Unix(0, nanos) }
