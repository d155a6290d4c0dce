package agent

import (
	goruntime "runtime"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/admit"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/shutdown"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client/events"
)

// claims are what the pods on the node hold and want. Who comes and who grows is
// decided under their lock, so that nothing is granted twice. It is taken before
// workersMu.
type claims struct {
	mu sync.Mutex
	of map[types.UID]*admit.Claim
	// waits is how many of them want something.
	waits int
	// complete says that all pods that there were when the agent began are among
	// them. Nobody grows before.
	complete bool
}

// put notes what a pod claims; nil is nothing any more. The lock is held.
func (c *claims) put(uid types.UID, claim *admit.Claim) {
	if old := c.of[uid]; old != nil && old.Wants != nil {
		c.waits--
	}
	if claim == nil {
		delete(c.of, uid)
		return
	}
	c.of[uid] = claim
	if claim.Wants != nil {
		c.waits++
	}
}

func (c *claims) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(uid, nil)
}

// completeClaims says that all pods that there were have claims: who waits for that may
// grow.
func (a *Agent) completeClaims() {
	a.claims.mu.Lock()
	a.claims.complete = true
	a.claims.mu.Unlock()
	a.podsChanged()
}

// standing are the claims of pods that are not over, but for one. One that has no
// worker yet gets it now. The lock is held.
func (a *Agent) standing(but types.UID) []*admit.Claim {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	var out []*admit.Claim
	for uid, c := range a.claims.of {
		if w := a.workers[uid]; w != nil {
			if p := a.current(uid, w); p == nil || pod.Terminal(p) {
				continue
			}
		}
		if uid != but {
			out = append(out, c)
		}
	}
	return out
}

// admit decides on a pod that is new to the node.
func (a *Agent) admit(p *v1.Pod) *pod.Refusal {
	refused := a.refusal(p)
	if refused != nil {
		a.metrics.Refused(refused.Reason)
		a.events.Event(events.About(v1.SchemeGroupVersion.WithKind("Pod"), p, ""), events.Warning, refused.Reason, refused.Message)
	}
	return refused
}

func (a *Agent) refusal(p *v1.Pod) *pod.Refusal {
	if a.goingDown.Load() {
		return &pod.Refusal{Reason: shutdown.Refused, Message: shutdown.RefusedMessage}
	}
	n := admit.Node{Allocatable: a.node.Allocatable(), OS: goruntime.GOOS, AppArmor: a.Host.AppArmor(), Sysctls: a.Settings.AllowedUnsafeSysctls}
	n.Object, _ = a.Client.View().Get(a.rows.nodes, api.Key{Name: a.NodeName}).(*v1.Node)
	a.claims.mu.Lock()
	defer a.claims.mu.Unlock()
	n.Claims = a.standing(p.UID)
	if r := admit.Pod(p, n); r != nil {
		return r
	}
	a.claims.put(p.UID, &admit.Claim{Pod: p, Holds: pod.Requests(p)})
	return nil
}

// claim notes what a pod holds and wants (nil: nothing else), and grants what there is
// room for now. Who is not p is granted it for as long as it does not ask again, and
// woken to do so.
func (a *Agent) claim(p *v1.Pod, holds, wants v1.ResourceList, since time.Time) (granted bool, why *pod.Failure) {
	a.claims.mu.Lock()
	defer a.claims.mu.Unlock()
	a.claims.put(p.UID, &admit.Claim{Pod: p, Holds: holds, Wants: wants, Since: since})
	if !a.claims.complete || a.claims.waits == 0 {
		return false, nil
	}
	decided := admit.Resize(a.standing(""), a.node.Allocatable())
	for uid, why := range decided {
		if why != nil {
			continue
		}
		c := *a.claims.of[uid]
		c.Holds, c.Wants = pod.Larger(c.Holds, c.Wants), nil
		a.claims.put(uid, &c)
		if uid != p.UID {
			a.reconsider(uid)
		}
	}
	why, ok := decided[p.UID]
	return ok && why == nil, why
}

func (a *Agent) reconsider(uid types.UID) {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	if w := a.workers[uid]; w != nil {
		w.Reconsider()
	}
}
