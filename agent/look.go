package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/runtime"
)

// look asks the runtime for everything it has with these labels, by pod.
func (a *Agent) look(ctx context.Context, labels map[string]string) (map[types.UID]work.Known, error) {
	sandboxes, err := a.Runtime.Sandboxes(ctx, labels)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := a.Runtime.Containers(ctx, labels)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var mu sync.Mutex
	out := map[types.UID]work.Known{}
	add := func(uid string, f func(*work.Known)) {
		mu.Lock()
		defer mu.Unlock()
		k := out[types.UID(uid)]
		if k.SandboxOf == nil {
			k.SandboxOf = map[string]string{}
		}
		f(&k)
		out[types.UID(uid)] = k
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, s := range sandboxes {
		g.Go(func() error {
			st, err := a.Runtime.SandboxStatus(ctx, s.Id)
			if errors.Is(err, runtime.ErrNotFound) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("look at sandbox %s: %w", s.Id, err)
			}
			add(s.Labels[work.LabelUID], func(k *work.Known) { k.Sandboxes = append(k.Sandboxes, st) })
			return nil
		})
	}
	for _, c := range containers {
		g.Go(func() error {
			st, err := a.Runtime.ContainerStatus(ctx, c.Id)
			if errors.Is(err, runtime.ErrNotFound) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("look at container %s: %w", c.Id, err)
			}
			add(c.Labels[work.LabelUID], func(k *work.Known) {
				k.Containers = append(k.Containers, st)
				k.SandboxOf[c.Id] = c.PodSandboxId
			})
			return nil
		})
	}
	return out, g.Wait()
}

// firstLook adopts what runs, begins what shall run, and clears away what is
// left of pods that the API has no more.
func (a *Agent) firstLook(ctx context.Context) error {
	known, err := a.look(ctx, nil)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for obj := range a.Client.View().ByIndex(a.rows.pods, api.IndexNode, a.NodeName) {
		p, ok := obj.(*v1.Pod)
		if !ok || pod.IsMirror(p) {
			continue
		}
		a.begin(ctx, p, known[p.UID])
	}
	a.adopted = true
	a.completeClaims()
	a.tidy(ctx, known)
	return nil
}

// startOrphan removes what is left of a pod, unless that goes on already.
func (a *Agent) startOrphan(ctx context.Context, uid types.UID, k work.Known) {
	if a.orphans[uid] {
		return
	}
	a.orphans[uid] = true
	if len(k.Sandboxes) > 0 {
		a.metrics.Orphan()
	}
	a.running.Go(func() {
		a.removeOrphan(ctx, uid, k)
		a.post(func(ctx context.Context) {
			delete(a.orphans, uid)
			a.syncStatic(ctx) // it may be one that is wanted again
		})
	})
}

// tidy takes away what there is of pods that have no worker, because the API has
// them no more: they were deleted while no agent ran, or something was made for
// them after all, when the runtime died while it made it. known is what the
// runtime has, nil when it was not asked.
func (a *Agent) tidy(ctx context.Context, known map[types.UID]work.Known) {
	if !a.adopted {
		return // whose pods there are is not known yet
	}
	remains := maps.Clone(known)
	if remains == nil {
		remains = map[types.UID]work.Known{}
	}
	dirs, err := a.volumes.Known()
	groups, groupsErr := a.podGroups()
	if err := errors.Join(err, groupsErr); err != nil {
		a.Log.Warn("remains of deleted pods may be left", "err", err)
	}
	for _, uid := range append(dirs, groups...) {
		remains[uid] = known[uid]
	}
	for obj := range a.Client.View().ByIndex(a.rows.pods, api.IndexNode, a.NodeName) {
		if p, ok := obj.(*v1.Pod); ok {
			delete(remains, p.UID)
		}
	}
	for uid, k := range remains {
		if uid != "" && a.workers[uid] == nil {
			a.startOrphan(ctx, uid, k)
		}
	}
	for _, uid := range groups {
		if w := a.workers[uid]; w != nil {
			w.Grouped()
		}
	}
}

// podGroups are the pods that have a control group.
func (a *Agent) podGroups() (uids []types.UID, err error) {
	for _, qos := range []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		names, err := a.Groups.Children(cgroup.QOSGroup(qos))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			uids = append(uids, types.UID(name))
		}
	}
	return uids, nil
}

// removeOrphan tries until nothing is left, and looks again each time.
func (a *Agent) removeOrphan(ctx context.Context, uid types.UID, k work.Known) {
	err := a.node.RemoveOrphan(ctx, uid, k)
	for err != nil && ctx.Err() == nil {
		a.Log.Warn("remains of a deleted pod are left", "uid", uid, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-a.Clock.After(orphanPause):
		}
		var known map[types.UID]work.Known
		if known, err = a.look(ctx, map[string]string{work.LabelUID: string(uid)}); err == nil {
			err = a.node.RemoveOrphan(ctx, uid, known[uid])
		}
	}
}

// reconnected looks at everything at once, and again later: a moment, for a
// stream of events may begin only after the call that opened it has returned; and
// as long as calls may go on in the runtime that an agent before this one made.
// The looks after an earlier reconnection are not needed any more.
func (a *Agent) reconnected(ctx context.Context) {
	a.connected()
	a.post(a.lookAgain)
	if a.link.endLooks != nil {
		a.link.endLooks()
	}
	ctx, a.link.endLooks = context.WithCancel(ctx)
	a.running.Go(func() {
		for _, pause := range []time.Duration{lookPause, callsPause} {
			select {
			case <-ctx.Done():
				return
			case <-a.Clock.After(pause):
				a.post(a.lookAgain)
			}
		}
	})
}

// lookAgain tells every worker what there is, after events may have been lost,
// and clears away what nobody has.
func (a *Agent) lookAgain(ctx context.Context) {
	a.keeper.Poke()
	known, err := a.look(ctx, nil)
	if err == nil {
		for uid, w := range a.workers {
			w.Look(ctx, known[uid])
		}
		a.tidy(ctx, known)
		if a.Looked != nil {
			a.running.Go(func() {
				a.Looked()
				a.post(func(ctx context.Context) { a.tidy(ctx, nil) })
			})
		}
		return
	}
	if ctx.Err() != nil || a.looksSoon {
		return
	}
	a.Log.Warn("runtime not looked at yet", "err", err)
	a.looksSoon = true
	a.running.Go(func() {
		select {
		case <-ctx.Done():
		case <-a.Clock.After(lookPause):
			a.post(func(ctx context.Context) {
				a.looksSoon = false
				a.lookAgain(ctx)
			})
		}
	})
}
