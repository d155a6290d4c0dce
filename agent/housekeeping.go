package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
)

// Limits of container logs, those of Kubernetes.
const (
	maxLogSize  = 10 << 20
	maxLogFiles = 5
)

// keepInterval is how often the node is tidied up.
const keepInterval = 10 * time.Second

// keepHouse rotates logs, and evicts pods that use more than they may or, when
// the node is short of something, more than others.
func (a *Agent) keepHouse(ctx context.Context) error {
	tick := a.Clock.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C():
		}
		a.rotateLogs(ctx)
		a.evictOverLimit(ctx)
		a.relieve(ctx)
	}
}

func (a *Agent) rotateLogs(ctx context.Context) {
	for id, file := range a.openLogs() {
		reopen := func() error { return a.Runtime.ReopenLog(ctx, id) }
		if err := logs.Rotate(file, maxLogSize, maxLogFiles, a.Clock.Now(), reopen); err != nil && ctx.Err() == nil {
			a.Log.Warn("container log not rotated", "file", file, "err", err)
		}
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

// evictOverLimit ends pods that keep more on disk than they may.
func (a *Agent) evictOverLimit(ctx context.Context) {
	for _, p := range a.pods() {
		if pod.Terminal(p) || p.DeletionTimestamp != nil || !evict.Limited(p) {
			continue
		}
		if message := evict.OverLimit(p, a.usage(ctx, p)); message != "" {
			a.evict(p, message)
		}
	}
}

func (a *Agent) evict(p *v1.Pod, message string) {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	if w := a.workers[p.UID]; w != nil {
		w.Evict(evict.Reason, message, 0)
	}
}

// usage measures one pod.
func (a *Agent) usage(ctx context.Context, p *v1.Pod) evict.Usage {
	u := evict.Usage{Containers: map[string]int64{}}
	var err error
	if u.EmptyDirs, err = a.volumes.EmptyDirUsage(p); err != nil {
		a.Log.Warn("volumes not measured", "pod", p.Namespace+"/"+p.Name, "err", err)
	}
	dir := logs.PodDir(a.node.LogsDir, p.Namespace, p.Name, string(p.UID))
	for i := range p.Status.ContainerStatuses {
		cs := &p.Status.ContainerStatuses[i]
		u.Containers[cs.Name] = sizes(filepath.Join(dir, cs.Name))
		if cs.State.Running == nil {
			continue
		}
		if stats, err := a.Runtime.ContainerStats(ctx, pod.TrimScheme(cs.ContainerID)); err == nil {
			u.Containers[cs.Name] += int64(stats.GetWritableLayer().GetUsedBytes().GetValue())
		}
	}
	if g, err := a.Groups.Usage(cgroup.PodGroup(pod.QOS(p), string(p.UID))); err == nil {
		u.Memory = int64(g.WorkingSet)
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

// relieve ends one pod when the node is short of something. Before one goes for
// disk space, images that nobody uses do.
func (a *Agent) relieve(ctx context.Context) {
	shortages, err := a.Host.Shortages()
	if err != nil {
		a.Log.Warn("node not measured", "err", err)
		return
	}
	for _, s := range shortages {
		if s.Resource == v1.ResourceEphemeralStorage && a.removeUnusedImages(ctx) {
			a.keeper.Poke()
			return
		}
		var candidates []evict.Candidate
		for _, p := range a.pods() {
			if !pod.Terminal(p) && p.DeletionTimestamp == nil {
				candidates = append(candidates, evict.Candidate{Pod: p, Usage: a.usage(ctx, p)})
			}
		}
		if p := evict.Choose(evict.Shortage(s), candidates); p != nil {
			a.evict(p, evict.Shortage(s).Message())
			a.keeper.Poke()
			return
		}
	}
}

// removeUnusedImages removes the images that no container is made of and that
// are not pinned. It answers whether there were any.
func (a *Agent) removeUnusedImages(ctx context.Context) bool {
	images, err1 := a.Runtime.ListImages(ctx)
	containers, err2 := a.Runtime.Containers(ctx)
	if err1 != nil || err2 != nil {
		return false
	}
	used := map[string]bool{}
	for _, c := range containers {
		used[c.GetImage().GetImage()], used[c.ImageRef], used[c.ImageId] = true, true, true
	}
	removed := false
	for _, i := range images {
		names := slices.Concat([]string{i.Id}, i.RepoTags, i.RepoDigests)
		if i.Pinned || slices.ContainsFunc(names, func(n string) bool { return used[n] }) {
			continue
		}
		if err := a.Runtime.RemoveImage(ctx, i.Id); err == nil {
			removed = true
		}
	}
	return removed
}
