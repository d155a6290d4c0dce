// Package status writes pods' statuses to the API: the newest of each pod,
// many pods in one batch, and never anything that is there already.
//
// There is no timer: a status is written as soon as it is set, and while a
// batch is on its way those that are set meanwhile gather for the next one.
package status

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// maxBatch is how many statuses go into one batch, at most.
const maxBatch = 64

// retryPause is waited after a failed batch.
const retryPause = time.Second

// Pusher writes statuses. Its methods may be called from any goroutine.
type Pusher struct {
	client client.Interface
	row    *api.Resource
	clock  clock.Clock
	log    *slog.Logger
	wake   chan struct{}
	// Wrote, when not nil, is told how long a status waited to be written. It is set
	// before Run.
	Wrote func(took time.Duration)

	mu      sync.Mutex
	pending map[types.UID]*entry
	flying  map[types.UID]bool
	waiters map[types.UID][]chan struct{}
}

type entry struct {
	key    api.Key
	status *v1.PodStatus
	since  time.Time // when the first change was set that is not written
}

// New makes a pusher; nothing is written before Run.
func New(c client.Interface, clk clock.Clock, log *slog.Logger) *Pusher {
	return &Pusher{
		client: c, row: c.Registry().Must("", "pods"), clock: clk, log: log,
		wake:    make(chan struct{}, 1),
		pending: map[types.UID]*entry{}, flying: map[types.UID]bool{}, waiters: map[types.UID][]chan struct{}{},
	}
}

// Set makes st the status to be written for a pod, in place of one that is
// still waiting. st belongs to the pusher afterwards.
func (p *Pusher) Set(pod *v1.Pod, st *v1.PodStatus) {
	e := &entry{key: api.Key{Namespace: pod.Namespace, Name: pod.Name}, status: st, since: p.clock.Now()}
	p.mu.Lock()
	if before := p.pending[pod.UID]; before != nil {
		e.since = before.since
	}
	p.pending[pod.UID] = e
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Forget drops what waits for a pod that is gone.
func (p *Pusher) Forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, uid)
	p.release(uid)
}

// Flush returns once all that was set for a pod has been written, or the
// context's error.
func (p *Pusher) Flush(ctx context.Context, uid types.UID) error {
	p.mu.Lock()
	if p.pending[uid] == nil && !p.flying[uid] {
		p.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	p.waiters[uid] = append(p.waiters[uid], done)
	p.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the status of pod %s to be written: %w", uid, ctx.Err())
	}
}

// release wakes who waits for a pod of which nothing is left to write. p.mu is
// held.
func (p *Pusher) release(uid types.UID) {
	if p.pending[uid] != nil || p.flying[uid] {
		return
	}
	for _, w := range p.waiters[uid] {
		close(w)
	}
	delete(p.waiters, uid)
}

// Run writes until the context ends.
func (p *Pusher) Run(ctx context.Context) error {
	for {
		batch := p.take()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.wake:
			}
			continue
		}
		if !p.write(ctx, batch) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.clock.After(retryPause):
			}
		}
	}
}

func (p *Pusher) take() map[types.UID]*entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := map[types.UID]*entry{}
	for uid, e := range p.pending {
		if len(batch) == maxBatch {
			break
		}
		batch[uid] = e
		delete(p.pending, uid)
		p.flying[uid] = true
	}
	return batch
}

// write writes a batch. It answers false when it is better to wait a moment.
func (p *Pusher) write(ctx context.Context, batch map[types.UID]*entry) bool {
	var writes []client.Write
	var uids []types.UID
	var seen []string // the version that each was made from
	for uid, e := range batch {
		if pod := p.changed(uid, e); pod != nil {
			writes = append(writes, client.Write{Resource: p.row, Update: pod, Subresource: "status"})
			uids = append(uids, uid)
			seen = append(seen, pod.ResourceVersion)
		} else {
			p.landed(uid, e, false)
		}
	}
	if len(writes) == 0 {
		return true
	}
	fine := true
	for i, r := range p.client.Batch(ctx, writes) {
		uid := uids[i]
		again := false
		switch {
		case r.Err == nil:
			if p.Wrote != nil {
				p.Wrote(p.clock.Since(batch[uid].since))
			}
		case apierrors.IsNotFound(r.Err):
		case apierrors.IsConflict(r.Err):
			again = true
		case apierrors.IsInvalid(r.Err) || apierrors.IsForbidden(r.Err):
			// Admission sees a write before its version is compared, and a
			// label that somebody has changed meanwhile looks like one that
			// the agent changes back.
			if p.moved(ctx, batch[uid].key, seen[i]) {
				again, fine = true, false
				break
			}
			p.log.Error("pod status refused", "pod", batch[uid].key, "err", r.Err)
		default:
			if ctx.Err() == nil {
				p.log.Warn("pod status not written yet", "pod", batch[uid].key, "err", r.Err)
			}
			again, fine = true, false
		}
		p.landed(uid, batch[uid], again)
	}
	return fine
}

// moved says whether a pod is there in another version than the one seen.
func (p *Pusher) moved(ctx context.Context, key api.Key, seen string) bool {
	now, err := p.client.Get(ctx, api.Ref{Resource: p.row, Namespace: key.Namespace, Name: key.Name})
	return err == nil && now.GetResourceVersion() != seen
}

// landed notes the end of a write; a failed one waits again unless a newer
// status does.
func (p *Pusher) landed(uid types.UID, e *entry, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, uid)
	if again && p.pending[uid] == nil {
		p.pending[uid] = e
	}
	p.release(uid)
}

// changed is the pod's newest object with the wanted status, or nil when there
// is nothing to write.
func (p *Pusher) changed(uid types.UID, e *entry) *v1.Pod {
	pod, ok := p.client.View().Get(p.row, e.key).(*v1.Pod)
	if !ok || pod == nil || pod.UID != uid {
		return nil
	}
	merged := Merge(&pod.Status, e.status)
	if equality.Semantic.DeepEqual(&pod.Status, merged) {
		return nil
	}
	out := pod.DeepCopy()
	out.Status = *merged
	return out
}

// owned are the conditions that the agent writes.
var owned = map[v1.PodConditionType]bool{
	v1.PodReadyToStartContainers: true,
	v1.PodInitialized:            true,
	v1.PodReady:                  true,
	v1.ContainersReady:           true,
	v1.PodScheduled:              true,
	v1.PodResizePending:          true,
	v1.PodResizeInProgress:       true,
	v1.AllContainersRestarting:   true,
}

// Merge is the status in which the agent's fields are those of want, and those
// of others what they are now. It shares nothing with now.
func Merge(now, want *v1.PodStatus) *v1.PodStatus {
	out := want.DeepCopy()
	out.NominatedNodeName = now.NominatedNodeName
	out.ResourceClaimStatuses = now.DeepCopy().ResourceClaimStatuses
	out.ExtendedResourceClaimStatus = now.DeepCopy().ExtendedResourceClaimStatus
	var conditions []v1.PodCondition
	for _, c := range want.Conditions {
		if owned[c.Type] || c.Type == v1.DisruptionTarget && c.Reason == v1.PodReasonTerminationByKubelet {
			conditions = append(conditions, c)
		}
	}
	mine := len(conditions)
	for _, c := range now.Conditions {
		theirs := !owned[c.Type]
		for _, m := range conditions[:mine] {
			theirs = theirs && m.Type != c.Type
		}
		if theirs {
			conditions = append(conditions, c)
		}
	}
	out.Conditions = conditions
	return out
}
