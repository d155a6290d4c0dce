package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/gc"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
)

// keepInterval is how often the node is tidied up.
const keepInterval = 10 * time.Second

// keepHouse rotates logs, removes images that nobody needs, and evicts pods that
// use more than they may or, when the node is short of something, more than
// others.
func (a *Agent) keepHouse(ctx context.Context) error {
	tick := a.Clock.NewTicker(keepInterval)
	defer tick.Stop()
	rotation := a.Clock.NewTicker(a.Settings.ContainerLogMonitorInterval.Duration)
	defer rotation.Stop()
	images := a.Clock.NewTicker(a.imageInterval())
	defer images.Stop()
	containers := a.Clock.NewTicker(containerInterval)
	defer containers.Stop()
	a.relieve(ctx) // so that the node is registered with its conditions
	// Ages of images are reckoned from here.
	if _, err := a.lookAtImages(ctx, a.Clock.Now()); err != nil && ctx.Err() == nil {
		a.Log.Warn("images not looked at", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rotation.C():
			a.rotateLogs(ctx)
		case <-images.C():
			a.collectImages(ctx)
		case <-a.pulled:
			a.collectImages(ctx)
		case <-containers.C():
			a.collectContainers()
		case <-tick.C():
			a.makeRoom(ctx)
		}
	}
}

// makeRoom evicts whoever has to go, and forgets what was measured long ago.
func (a *Agent) makeRoom(ctx context.Context) {
	if !a.evictOverLimit(ctx) {
		a.relieve(ctx)
	}
	a.meter.tidy(a.Clock.Now())
}

// containerInterval is how often ended containers of all pods are counted, as
// often as the kubelet does it.
const containerInterval = time.Minute

// collectContainers removes ended containers when the node has too many
// (--maximum-dead-containers). How many each container keeps its worker sees to.
func (a *Agent) collectContainers() {
	if a.Settings.MaxEnded < 0 {
		return
	}
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	var runs []gc.Run
	byWorker := map[types.UID][]string{}
	owner := map[string]types.UID{}
	for uid, w := range a.workers {
		for _, e := range w.Ended() {
			runs = append(runs, gc.Run{ID: e.ID, Of: string(uid) + "/" + e.Container, Created: e.Created})
			owner[e.ID] = uid
		}
	}
	for _, id := range gc.Excess(runs, a.Settings.MaxEnded, a.Settings.Keep.MinAge, a.Clock.Now()) {
		byWorker[owner[id]] = append(byWorker[owner[id]], id)
	}
	for uid, ids := range byWorker {
		a.workers[uid].Collect(ids)
	}
}

func (a *Agent) rotateLogs(ctx context.Context) {
	for id, file := range a.openLogs() {
		reopen := func() error { return a.Runtime.ReopenLog(ctx, id) }
		if err := logs.Rotate(file, a.Settings.LogMaxSize, int(*a.Settings.ContainerLogMaxFiles), a.Clock.Now(), reopen); err != nil && ctx.Err() == nil {
			a.Log.Warn("container log not rotated", "file", file, "err", err)
		}
	}
	if err := a.node.Logs.Prune(); err != nil {
		a.Log.Warn("too many logs of pods that are gone", "err", err)
	}
}

// openLogs are the log files of running containers, by container ID.
func (a *Agent) openLogs() map[string]string {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	out := map[string]string{}
	for _, w := range a.workers {
		for id, file := range w.Logs() {
			out[id] = file
		}
	}
	return out
}

// evictOverLimit ends pods that keep more on disk than they may. It says whether
// there were any.
func (a *Agent) evictOverLimit(ctx context.Context) (any bool) {
	if !*a.Settings.LocalStorageCapacityIsolation {
		return false
	}
	for _, p := range a.pods() {
		if pod.Terminal(p) || p.DeletionTimestamp != nil || pod.IsCritical(p) || !evict.Limited(p) {
			continue
		}
		if message, of := evict.OverLimit(p, a.usage(ctx, p)); message != "" {
			a.evict(p, of, message, 0)
			any = true
		}
	}
	return any
}

// evict ends a pod for good, for a signal or a limit, unless the node cannot do
// without it.
func (a *Agent) evict(p *v1.Pod, signal, message string, grace time.Duration) {
	if pod.IsCritical(p) {
		return
	}
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	if w := a.workers[p.UID]; w != nil {
		a.metrics.Evicted(signal)
		w.Evict(evict.Reason, message, grace)
	}
}

// usage measures one pod. Its control groups are read; what its containers have
// written the runtime is asked now and then, since it looks rarely itself.
func (a *Agent) usage(ctx context.Context, p *v1.Pod) evict.Usage {
	now, group := a.Clock.Now(), cgroup.PodGroup(pod.QOS(p), string(p.UID))
	u := evict.Usage{Containers: map[string]int64{}, Layers: map[string]int64{}, ContainerMemory: map[string]int64{}}
	var err error
	if u.EmptyDirs, u.Inodes, err = a.volumes.EmptyDirUsage(p); err != nil {
		a.Log.Warn("volumes not measured", "pod", p.Namespace+"/"+p.Name, "err", err)
	}
	dir := logs.PodDir(a.node.LogsDir, p.Namespace, p.Name, string(p.UID))
	for _, cs := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		u.Containers[cs.Name] = sizes(filepath.Join(dir, cs.Name))
		if cs.State.Running == nil {
			continue
		}
		id := pod.TrimScheme(cs.ContainerID)
		if fs := a.rootfs(ctx, id, now); fs != nil {
			u.Layers[cs.Name] = int64(*fs.UsedBytes)
			u.Containers[cs.Name] += u.Layers[cs.Name]
			u.LayerInodes += int64(*fs.InodesUsed)
			u.Inodes += int64(*fs.InodesUsed)
		}
		if g, err := a.Groups.Usage(group + "/" + id); err == nil {
			u.ContainerMemory[cs.Name] = int64(g.WorkingSet)
		}
	}
	if g, err := a.Groups.Usage(group); err == nil {
		u.Memory, u.PIDs = int64(g.WorkingSet), int64(g.Pids)
	}
	return u
}

// sizes adds up the files of a directory.
func sizes(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // nothing was logged
	}
	var sum int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// releaseLogs removes half of the logs of pods that are gone. It answers whether
// there were any.
func (a *Agent) releaseLogs() bool {
	any, err := a.node.Logs.Release()
	if err != nil {
		a.Log.Warn("logs of pods that are gone are not removed", "err", err)
	}
	return any
}
