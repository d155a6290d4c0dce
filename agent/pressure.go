package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/gc"
	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/client/events"
)

// pressure is what the machine is short of, as of the last look.
type pressure struct {
	state evict.State // of the housekeeper's goroutine
	// leaving is the pod that was evicted last, until it has ended or waited
	// for too long: nobody else is evicted before its going shows.
	leaving *v1.Pod
	since   time.Time

	mu   sync.Mutex
	list []v1.NodeConditionType
}

// leaveTime is how long an evicted pod is waited for.
const leaveTime = 30 * time.Second

func (p *pressure) conditions() []v1.NodeConditionType {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// set says whether the conditions changed.
func (p *pressure) set(list []v1.NodeConditionType) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := !slices.Equal(p.list, list)
	p.list = list
	return changed
}

// observe looks at the machine and, where that is enforced, at what all pods may
// use together.
func (a *Agent) observe() (evict.Observations, error) {
	o, err := a.Host.Observe(a.ImageDir)
	if err != nil || !a.Settings.EnforcesPods() {
		return o, err
	}
	limit := a.podsLimits().Memory
	if u, err := a.Groups.Usage(cgroup.PodsGroup); err == nil && limit > 0 {
		o[evict.Allocatable] = evict.Observation{Available: limit - int64(u.WorkingSet), Capacity: limit}
	}
	return o, nil
}

func (a *Agent) thresholds() []evict.Threshold {
	if a.Settings.EnforcesPods() {
		return evict.WithAllocatable(a.Settings.Thresholds)
	}
	return a.Settings.Thresholds
}

// relieve sets the conditions of what the machine is short of, and takes
// something back: what no pod needs, or else one pod ("Node-pressure Eviction").
func (a *Agent) relieve(ctx context.Context) {
	o, err := a.observe()
	if err != nil {
		a.Log.Warn("node not measured", "err", err)
		return
	}
	now := a.Clock.Now()
	found := a.pressure.state.Observe(a.thresholds(), o, a.Settings.EvictionPressureTransitionPeriod.Duration, now)
	if a.pressure.set(found.Conditions) {
		a.keeper.Poke()
	}
	if len(found.Due) == 0 {
		return
	}
	due := found.Due[0]
	if a.stillLeaving(now, due.Signal.Disk()) {
		return
	}
	a.nodeEvent(events.Warning, "EvictionThresholdMet", "Attempting to reclaim "+string(due.Signal.Resource()))
	_, own := o[evict.ImageFS]
	if due.Signal.Disk() && a.clear(ctx, now, !own || !due.Signal.Images(), !own || due.Signal.Images()) {
		return
	}
	var candidates []evict.Candidate
	for _, p := range a.pods() {
		if !pod.Terminal(p) && p.DeletionTimestamp == nil {
			usage := a.usage(ctx, p)
			if own {
				usage = usage.On(due.Signal)
			}
			candidates = append(candidates, evict.Candidate{Pod: p, Usage: usage})
		}
	}
	if c := evict.Choose(due.Signal.Resource(), candidates); c != nil {
		a.pressure.leaving, a.pressure.since = c.Pod, now
		a.evict(c.Pod, string(due.Signal), evict.Message(due, o, *c), evict.Grace(due, c.Pod, a.Settings.EvictionMaxPodGracePeriod))
	}
}

// stillLeaving says that the going of the pod that was evicted last does not show
// yet: it has not ended or, where the disk is short, what its containers wrote
// begins to be removed only now. Without that the next pod would go for room that
// is being made.
func (a *Agent) stillLeaving(now time.Time, disk bool) bool {
	last := a.pressure.leaving
	if last == nil {
		return false
	}
	ended := now.Sub(a.pressure.since) > leaveTime || !slices.ContainsFunc(a.pods(), func(p *v1.Pod) bool {
		return p.UID == last.UID && !pod.Terminal(p)
	})
	if !ended {
		return true
	}
	a.pressure.leaving = nil
	if disk {
		a.shed()
	}
	return disk
}

// shed has the containers of pods that are over removed.
func (a *Agent) shed() {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	for uid, w := range a.workers {
		if p := a.current(uid, w); p != nil && pod.Terminal(p) {
			w.Shed()
		}
	}
}

// clear removes what is on the disk for no pod's sake: containers of pods that
// are over, logs of those that are gone, and images that nobody uses; logs and
// images where they are on the file system that is short. It says whether that was
// enough.
func (a *Agent) clear(ctx context.Context, now time.Time, logs, images bool) bool {
	a.shed()
	if logs && a.releaseLogs() {
		if o, err := a.observe(); err == nil && evict.Relieved(a.thresholds(), o) {
			return true
		}
	}
	if images {
		list, err := a.lookAtImages(ctx, now)
		if err != nil {
			a.Log.Warn("images not looked at", "err", err)
			return false
		}
		a.removeImages(ctx, a.images.Free(list, a.imagePolicy(), 1<<62, now), metrics.ForSpace)
	}
	o, err := a.observe()
	return err == nil && evict.Relieved(a.thresholds(), o)
}

func (a *Agent) imagePolicy() gc.Policy {
	set := a.Settings
	return gc.Policy{
		Min: set.ImageMinimumGCAge.Duration, Max: set.ImageMaximumGCAge.Duration,
		High: int(*set.ImageGCHighThresholdPercent), Low: int(*set.ImageGCLowThresholdPercent),
	}
}

// imageInterval is how often images are looked at, beside each time that one was
// pulled: as often as the kubelet does it, or as an age asks for that is shorter.
func (a *Agent) imageInterval() time.Duration {
	interval := 5 * time.Minute
	if most := a.Settings.ImageMaximumGCAge.Duration; most > 0 {
		interval = min(interval, max(most, keepInterval))
	}
	return interval
}

// imagePulled has images looked at soon: the disk is fuller than it was.
func (a *Agent) imagePulled() {
	select {
	case a.pulled <- struct{}{}:
	default:
	}
}

// collectImages removes images that were not used for too long, and, when the
// disk is filled above the high threshold, the unused ones down to the low one.
func (a *Agent) collectImages(ctx context.Context) {
	now, policy := a.Clock.Now(), a.imagePolicy()
	images, err := a.lookAtImages(ctx, now)
	if err != nil {
		a.Log.Warn("images not looked at", "err", err)
		return
	}
	a.removeImages(ctx, a.images.Old(images, policy, now), metrics.ForAge)
	o, err := a.Host.Observe(a.ImageDir)
	if err != nil {
		a.Log.Warn("disk of images not measured", "err", err)
		return
	}
	disk, ok := o[evict.ImageFS]
	if !ok {
		disk = o[evict.NodeFS]
	}
	missing := policy.Missing(disk)
	if missing == 0 {
		return
	}
	freed := a.removeImages(ctx, a.images.Free(images, policy, missing, now), metrics.ForSpace)
	if freed < missing {
		a.nodeEvent(events.Warning, "FreeDiskSpaceFailed", fmt.Sprintf(
			"Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", missing, freed))
	}
}

// usedImages are the names and IDs of images that containers have, and the names of
// those that pods which are not over have or wait for: what was pulled for one is not
// taken away before its container is made.
func usedImages(containers []*cri.Container, pods []*v1.Pod) map[string]bool {
	used := map[string]bool{}
	for _, c := range containers {
		used[c.GetImage().GetImage()], used[c.ImageRef], used[c.ImageId] = true, true, true
	}
	use := func(name string) { used[name], used[image.FullName(name)] = true, true }
	for _, p := range pods {
		if pod.Terminal(p) {
			continue
		}
		for i := range p.Spec.Volumes {
			if v := p.Spec.Volumes[i].Image; v != nil {
				use(v.Reference)
			}
		}
		for c := range pod.Containers(&p.Spec) {
			use(c.Image)
		}
		for i := range p.Spec.EphemeralContainers {
			use(p.Spec.EphemeralContainers[i].Image)
		}
	}
	return used
}

// lookAtImages notes which images there are and which are in use.
func (a *Agent) lookAtImages(ctx context.Context, now time.Time) ([]gc.Image, error) {
	list, err := a.Runtime.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := a.Runtime.Containers(ctx, nil)
	if err != nil {
		return nil, err
	}
	used := usedImages(containers, a.pods())
	var images []gc.Image
	for _, i := range list {
		names := slices.Concat([]string{i.Id}, i.RepoTags, i.RepoDigests)
		images = append(images, gc.Image{
			ID: i.Id, Size: int64(i.Size), Pinned: i.Pinned,
			Used: slices.ContainsFunc(names, func(n string) bool { return used[n] }),
		})
	}
	a.images.Look(images, now)
	return images, nil
}

// removeImages answers with the bytes that were freed.
func (a *Agent) removeImages(ctx context.Context, images []gc.Image, why string) int64 {
	var freed int64
	for _, i := range images {
		if err := a.Runtime.RemoveImage(ctx, i.ID); err != nil {
			a.Log.Warn("image not removed", "image", i.ID, "err", err)
			continue
		}
		a.metrics.Collected(why)
		freed += i.Size
	}
	if freed > 0 {
		a.keeper.Poke()
	}
	return freed
}

// nodeEvent says something about the node.
func (a *Agent) nodeEvent(kind, reason, message string) {
	a.events.Event(v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: a.NodeName, UID: nodeUID(a)}, kind, reason, message)
}
