package agent

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
)

// podChanged is called on the view's goroutine: it notes the key of a pod that
// is or was this node's.
func (a *Agent) podChanged(old, new api.Object) {
	for _, obj := range []api.Object{old, new} {
		if p, ok := obj.(*v1.Pod); ok && p != nil && p.Spec.NodeName == a.NodeName {
			if pod.IsMirror(p) {
				a.statics.poke()
				return
			}
			key := api.Key{Namespace: p.Namespace, Name: p.Name}
			a.post(func(ctx context.Context) { a.dispatch(ctx, key) })
			return
		}
	}
}

// dispatch gives the newest version of a pod to its worker.
func (a *Agent) dispatch(ctx context.Context, key api.Key) {
	p := a.podOf(key)
	for uid, w := range a.workers {
		if w.key == key && w.static == nil && (p == nil || p.UID != uid) {
			w.Gone()
		}
	}
	if p == nil || pod.IsMirror(p) {
		return
	}
	if w := a.workers[p.UID]; w != nil {
		a.objects.users.add(p) // ephemeral containers may use more
		w.Update(p)
		return
	}
	a.begin(ctx, p, work.Known{})
}

// podOf is a pod as the view shows it, if it is this node's.
func (a *Agent) podOf(key api.Key) *v1.Pod {
	p, _ := a.Client.View().Get(a.rows.pods, key).(*v1.Pod)
	if p == nil || p.Spec.NodeName != a.NodeName {
		return nil
	}
	return p
}

// current is the object of a worker: as the view shows it or, of a static pod,
// as its file says, with the status that its worker gives. Nil when it is gone.
func (a *Agent) current(uid types.UID, w *entry) *v1.Pod {
	if w.static == nil {
		if p := a.podOf(w.key); p != nil && p.UID == uid {
			return p
		}
		return nil
	}
	out := *w.static
	if st := a.statics.status(uid); st != nil {
		out.Status = *st
	}
	return &out
}

// begin starts the worker of a pod.
func (a *Agent) begin(ctx context.Context, p *v1.Pod, known work.Known) {
	own := pod.IsStatic(p)
	var refused *pod.Refusal
	if p.Status.StartTime == nil && !pod.Terminal(p) && p.DeletionTimestamp == nil && len(known.Sandboxes) == 0 {
		if refused = a.admit(p); refused == nil {
			a.metrics.Admitted(len(p.Spec.Containers))
		}
	}
	w := &entry{Worker: a.node.NewWorker(p, known, refused), key: keyOf(p)}
	if own {
		w.static = p
	}
	a.workersMu.Lock()
	a.workers[p.UID] = w
	a.workersMu.Unlock()
	a.objects.users.add(p)
	a.running.Go(func() {
		w.Run(ctx)
		select {
		case <-w.Done():
			a.post(func(context.Context) { a.forget(p.UID) })
		default: // the agent stops
		}
	})
}

func (a *Agent) forget(uid types.UID) {
	a.objects.users.remove(uid)
	a.workersMu.Lock()
	if w := a.workers[uid]; w != nil {
		a.node.Probes.Forget(w.key.Namespace, w.key.Name, string(uid))
	}
	own := a.workers[uid] != nil && a.workers[uid].static != nil
	delete(a.workers, uid)
	a.workersMu.Unlock()
	a.claims.forget(uid)
	if own {
		if a.statics.forget(uid) {
			a.metrics.Restarted()
		}
		a.post(a.syncStatic) // another one may have waited for the name
	}
	a.podsChanged()
}

// nodeUID is that of the node's object, as far as it is known.
func nodeUID(a *Agent) types.UID {
	if n, ok := a.Client.View().Get(a.rows.nodes, api.Key{Name: a.NodeName}).(*v1.Node); ok {
		return n.UID
	}
	return ""
}

// pods are the objects of all pods that have a worker.
func (a *Agent) pods() []*v1.Pod {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	var out []*v1.Pod
	for uid, w := range a.workers {
		if p := a.current(uid, w); p != nil {
			out = append(out, p)
		}
	}
	return out
}

// refresh tells pods that something they show has changed.
func (a *Agent) refresh(uids []types.UID) {
	a.post(func(context.Context) {
		for _, uid := range uids {
			if w := a.workers[uid]; w != nil {
				w.Refresh()
			}
		}
	})
}
