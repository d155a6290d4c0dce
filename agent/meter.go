package agent

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"hansa.dev/hansa/agent/node"
)

const (
	// ratePause is between two measurements when there was none for long.
	ratePause = 250 * time.Millisecond
	// rateLeast is the shortest time that a rate is told from.
	rateLeast = 200 * time.Millisecond
	// rateMost is the time after which a measurement says nothing of the present.
	rateMost = time.Minute
	// diskEvery is how often disk space is measured, at most.
	diskEvery = 15 * time.Second
)

// meter remembers what was measured last. It may be used from any goroutine.
type meter struct {
	mu   sync.Mutex
	cpu  map[string]metered // by group
	disk map[string]spaces  // by container or pod
}

type metered struct {
	at    time.Time
	nanos uint64
	rate  *uint64 // nanocores; nil: not known yet
}

type spaces struct {
	at      time.Time
	rootfs  *statsv1alpha1.FsStats
	volumes []statsv1alpha1.VolumeStats
}

func newMeter() *meter { return &meter{cpu: map[string]metered{}, disk: map[string]spaces{}} }

// stale says whether no rate of a group can be told.
func (m *meter) stale(group string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, ok := m.cpu[group]
	return !ok || now.Sub(was.at) > rateMost || was.rate == nil && now.Sub(was.at) < rateLeast
}

// note takes in what a group has used since its beginning, and answers with the
// rate since the last time, in nanocores, if that can be told.
func (m *meter) note(group string, now time.Time, nanos uint64) *uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, ok := m.cpu[group]
	passed := now.Sub(was.at)
	switch {
	case ok && passed < rateLeast:
		return was.rate
	case ok && passed <= rateMost && nanos >= was.nanos:
		rate := uint64(float64(nanos-was.nanos) / passed.Seconds())
		m.cpu[group] = metered{now, nanos, &rate}
		return &rate
	}
	m.cpu[group] = metered{at: now, nanos: nanos}
	return nil
}

// tidy forgets what is of no use any more.
func (m *meter) tidy(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.cpu, func(_ string, c metered) bool { return now.Sub(c.at) > rateMost })
	maps.DeleteFunc(m.disk, func(_ string, s spaces) bool { return now.Sub(s.at) > rateMost })
}

// space is what measure finds out, or found out a little while ago.
func (m *meter) space(key string, now time.Time, measure func() spaces) spaces {
	m.mu.Lock()
	was, ok := m.disk[key]
	m.mu.Unlock()
	if ok && now.Sub(was.at) < diskEvery {
		return was
	}
	s := measure()
	s.at = now
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk[key] = s
	return s
}

// rootfs is what a container has written to its root file system; nil when the
// runtime does not know.
func (a *Agent) rootfs(ctx context.Context, id string, now time.Time) *statsv1alpha1.FsStats {
	return a.meter.space(id, now, func() spaces {
		got, err := a.Runtime.ContainerStats(ctx, id)
		if err != nil || got.GetWritableLayer() == nil {
			return spaces{}
		}
		w := got.GetWritableLayer()
		at := metav1.Unix(0, w.GetTimestamp())
		fs := a.Host.FileSystem(w.GetFsId().GetMountpoint(), at)
		if fs == nil {
			fs = &statsv1alpha1.FsStats{Time: at}
		}
		used, inodes := w.GetUsedBytes().GetValue(), w.GetInodesUsed().GetValue()
		fs.UsedBytes, fs.InodesUsed = &used, &inodes
		return spaces{rootfs: fs}
	}).rootfs
}

// volumeStats are those of a pod's volumes that are on this node's disks or in its
// memory.
func (a *Agent) volumeStats(p *v1.Pod, now time.Time) []statsv1alpha1.VolumeStats {
	return a.meter.space(string(p.UID), now, func() spaces {
		used, err := a.volumes.Usage(p)
		if err != nil {
			a.Log.Debug("volumes not measured", "pod", p.Namespace+"/"+p.Name, "err", err)
			return spaces{}
		}
		var out []statsv1alpha1.VolumeStats
		for _, u := range used {
			v := statsv1alpha1.VolumeStats{Name: u.Name}
			if fs := a.Host.FileSystem(u.Dir, metav1.NewTime(now)); fs != nil {
				v.FsStats = *fs
			}
			v.UsedBytes, v.InodesUsed = &u.Bytes, &u.Inodes
			out = append(out, v)
		}
		return spaces{volumes: out}
	}).volumes
}

// ephemeral is what a pod has on the node's disk: what its containers wrote and
// logged, and its volumes.
func ephemeral(p statsv1alpha1.PodStats, at metav1.Time) *statsv1alpha1.FsStats {
	var used, inodes uint64
	add := func(fs *statsv1alpha1.FsStats) {
		if fs != nil && fs.UsedBytes != nil {
			used += *fs.UsedBytes
		}
		if fs != nil && fs.InodesUsed != nil {
			inodes += *fs.InodesUsed
		}
	}
	var out *statsv1alpha1.FsStats
	for i := range p.Containers {
		add(p.Containers[i].Rootfs)
		add(p.Containers[i].Logs)
		if l := p.Containers[i].Logs; l != nil {
			out = &statsv1alpha1.FsStats{AvailableBytes: l.AvailableBytes, CapacityBytes: l.CapacityBytes, InodesFree: l.InodesFree, Inodes: l.Inodes}
		}
	}
	for i := range p.VolumeStats {
		add(&p.VolumeStats[i].FsStats)
	}
	if out == nil {
		return nil
	}
	out.Time, out.UsedBytes, out.InodesUsed = at, &used, &inodes
	return out
}

// rest are the node's file systems, network and processes.
func (n nodeView) rest(out *statsv1alpha1.NodeStats, at metav1.Time) {
	a := n.a
	out.Network = networkStats(a.Host.Interfaces(), at)
	if fs := a.Host.FileSystem(a.DataDir, at); fs != nil {
		out.Fs, out.Runtime = fs, &statsv1alpha1.RuntimeStats{ImageFs: fs, ContainerFs: fs}
		if images := a.Host.FileSystem(a.ImageDir, at); images != nil {
			out.Runtime.ImageFs, out.Runtime.ContainerFs = images, images
		}
	}
	out.Rlimit = a.Host.Processes(at)
}

// interfaces are the network interfaces of a pod, by one of its processes.
func (a *Agent) interfaces(group string) []node.Interface {
	pid := a.Groups.Process(group)
	if pid == 0 {
		return nil
	}
	return a.Host.InterfacesOf(strconv.Itoa(pid))
}

// networkStats has the interface through which pods and nodes reach others, by
// Kubernetes' convention the one named eth0, apart.
func networkStats(list []node.Interface, at metav1.Time) *statsv1alpha1.NetworkStats {
	if len(list) == 0 {
		return nil
	}
	out := &statsv1alpha1.NetworkStats{Time: at}
	for _, i := range list {
		s := statsv1alpha1.InterfaceStats{Name: i.Name, RxBytes: &i.RxBytes, RxErrors: &i.RxErrors, TxBytes: &i.TxBytes, TxErrors: &i.TxErrors}
		out.Interfaces = append(out.Interfaces, s)
		if i.Name == "eth0" || out.Name == "" {
			out.InterfaceStats = s
		}
	}
	return out
}
