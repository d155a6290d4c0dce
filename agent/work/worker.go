package work

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/downward"
	"hansa.dev/hansa/agent/pod"
)

// Worker runs one pod, by its UID.
type Worker struct {
	node *Node
	uid  types.UID
	log  *slog.Logger
	wake chan struct{}
	done chan struct{}
	// pending says that a resize is asked for and not granted.
	pending atomic.Bool

	mu        sync.Mutex
	mail      []func(now time.Time)
	addresses downward.Addresses
	logs      map[string]string // files by container ID; not written to
	ended     []pod.Ended       // not written to

	// Of the worker's goroutine:
	state  *pod.State
	probes probes
	// shown is the status that was last handed on.
	shown *v1.PodStatus
	// kills holds, by container, the kill in progress.
	kills map[string]*killing
	// ends holds, by run, the channel that is closed at its end.
	ends map[string]chan struct{}
	// settled says that the node was told last that the pod holds what it has been
	// granted and wants nothing else.
	settled bool
	// resizing is the generation whose resize is in progress, 0 for none, as the pod's
	// events tell it; resizeError is what they say has failed.
	resizing    int64
	resizeError string
	// starts are the starts under way, which end by themselves.
	starts sync.WaitGroup
	// regroup says that the pod's group does not have what was granted yet.
	regroup  bool
	measures measures
	// hooks is cancelled when the pod has to end: no postStart hook and no pull
	// is waited for then.
	hooks    context.Context
	endHooks context.CancelFunc
}

// NewWorker makes the worker of a pod that has not been seen before by this
// process. known is what the runtime already has of it: the pod is adopted.
// Refused, when not nil, says that the node does not admit it.
func (n *Node) NewWorker(p *v1.Pod, known Known, refused *pod.Refusal) *Worker {
	now := n.Clock.Now()
	w := &Worker{
		node:  n,
		uid:   p.UID,
		log:   n.Log.With("pod", p.Namespace+"/"+p.Name, "uid", p.UID),
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		state: pod.New(p, n.IPs, now),
		kills: map[string]*killing{}, measures: newMeasures(p, known, now),
	}
	w.addresses.Host = n.IPs
	w.state.Refused, w.state.MaxRestartDelay, w.state.Keep = refused, n.MaxRestartDelay, n.Keep
	w.observe(known)
	w.recall()
	w.state.Adopt()
	w.resize(now)
	w.shareAddresses()
	return w
}

// Done is closed when nothing of the pod is left on the node.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Addresses are what is known of the pod's and the node's.
func (w *Worker) Addresses() downward.Addresses {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addresses
}

// Update tells of a newer version of the object.
func (w *Worker) Update(p *v1.Pod) {
	w.post(func(now time.Time) {
		old := w.state.Pod
		w.state.SetPod(p, now)
		w.measures.updated = true
		if !equality.Semantic.DeepEqual(old.Labels, p.Labels) || !equality.Semantic.DeepEqual(old.Annotations, p.Annotations) {
			w.state.Refresh.Stale = true // downward volumes show them
		}
		if pod.Terminal(p) && !pod.Terminal(old) {
			w.node.PodsChanged() // what it asked for is free
		}
		if old.Status.Phase != p.Status.Phase || !equality.Semantic.DeepEqual(old.Status.Conditions, p.Status.Conditions) {
			w.shown = nil // what others wrote may change what we say
		}
	})
}

// Gone tells that the API has the object no more.
func (w *Worker) Gone() { w.post(func(now time.Time) { w.state.SetGone(now) }) }

// Refresh tells that an object changed that the pod shows or waits for.
func (w *Worker) Refresh() {
	w.post(func(time.Time) {
		w.state.Refresh.Stale = true
		w.state.Refresh.RetryAt = time.Time{}
		if w.state.Volumes.Err != nil {
			w.state.Volumes.Again()
		}
		for _, c := range w.state.Containers {
			if f := c.Failure; f != nil && f.Reason == createConfigError {
				c.Start.RetryAt = time.Time{}
			}
		}
	})
}

// Evict ends the pod for a reason of the node's.
func (w *Worker) Evict(reason, message string, grace time.Duration) {
	w.post(func(now time.Time) {
		w.podEvent(w.state.Pod, v1.EventTypeWarning, reason, message)
		w.state.Terminate(pod.Stop{Since: now, Grace: grace, Reason: reason, Message: message, Fail: true})
	})
}

// Terminate ends the pod for a reason of the node's that its events tell of.
func (w *Worker) Terminate(reason, message string, grace time.Duration) {
	w.post(func(now time.Time) {
		w.state.Terminate(pod.Stop{Since: now, Grace: grace, Reason: reason, Message: message, Fail: true})
	})
}

// Shed removes the containers of a pod that is over, with their logs, to make
// room on the disk.
func (w *Worker) Shed() {
	w.post(func(time.Time) { w.state.Shed = true })
}

// Collect removes ended runs of containers that the node has too many of. What
// is asked for last holds.
func (w *Worker) Collect(ids []string) {
	excess := map[string]bool{}
	for _, id := range ids {
		excess[id] = true
	}
	w.post(func(time.Time) { w.state.Excess = excess })
}

// Event tells what the runtime reports of the pod.
func (w *Worker) Event(e *cri.ContainerEventResponse) {
	w.post(func(time.Time) { w.event(e) })
}

// Look tells all that the runtime had of the pod a moment ago, after events may
// have been lost.
func (w *Worker) Look(ctx context.Context, known Known) {
	w.post(func(time.Time) {
		w.observe(known)
		w.verify(ctx, known)
	})
}

// Grouped tells that the pod has a control group. After it was given back this is
// what a runtime that died made of it again.
func (w *Worker) Grouped() {
	w.post(func(time.Time) {
		if w.state.Release.Done {
			w.state.Release.Again()
		}
	})
}

func (w *Worker) post(f func(now time.Time)) {
	w.mu.Lock()
	w.mail = append(w.mail, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) take() []func(time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	mail := w.mail
	w.mail = nil
	return mail
}

// Run works until nothing of the pod is left or the context ends; what runs is
// then left running, and what is being started is waited for.
func (w *Worker) Run(ctx context.Context) {
	defer w.starts.Wait()
	w.hooks, w.endHooks = context.WithCancel(ctx)
	defer w.endHooks()
	defer w.stopProbes()
	timer := w.node.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := w.node.Clock.Now()
		for _, f := range w.take() {
			f(now)
		}
		w.resize(now)
		w.tellResize()
		before := w.state.Stop
		actions, wake := w.state.Plan(now)
		if stop := w.state.Stop; stop != before {
			w.podEvent(w.state.Pod, v1.EventTypeNormal, stop.Reason, stop.Message) // the deadline
		}
		for _, a := range actions {
			w.begin(ctx, a, now)
		}
		w.rested(now)
		if w.state.Stop != nil {
			w.endHooks()
		}
		w.shareAddresses()
		w.shareLogs()
		w.closeEnds()
		w.syncProbes(ctx)
		w.report(now)
		if w.state.Over() {
			w.node.Statuses.Forget(w.uid)
			close(w.done)
			return
		}
		pause := time.Hour
		if !wake.IsZero() {
			pause = max(wake.Sub(now), 0)
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C():
		}
	}
}

// reportBackoff tells that a container waits before it is tried again. Waiting
// for an image is no fault of its own, as with the kubelet; that the container
// cannot start for it is one.
func (w *Worker) reportBackoff(a pod.Action) {
	if a.Reason != pod.ImagePullBackOff {
		w.containerEvent(a.Container, v1.EventTypeWarning, a.Reason, a.Message)
		return
	}
	w.containerEvent(a.Container, v1.EventTypeNormal, "BackOff", a.Message)
	w.containerEvent(a.Container, v1.EventTypeWarning, "Failed", "Error: "+a.Reason)
}

// begin starts the step of an action.
func (w *Worker) begin(ctx context.Context, a pod.Action, now time.Time) {
	w.state.Begin(a, now)
	if a.Verb == pod.Report {
		w.reportBackoff(a)
		return
	}
	step, ended := w.step(ctx, a), w.begun(a, now)
	run := func() {
		note, err := step(ctx)
		w.post(func(now time.Time) {
			ended(err, now)
			if note != nil {
				note()
			}
			if ctx.Err() == nil {
				if err != nil && takesAway[a.Verb] { // no event tells of it: the pod is gone, or about to be
					w.log.Warn("something of a pod is left", "step", a.String(), "err", err)
				}
				w.state.End(a, err, now)
			}
		})
	}
	if a.Verb == pod.Start {
		w.starts.Go(run)
		return
	}
	go run()
}

// takesAway are the verbs by which a pod goes.
var takesAway = map[pod.Verb]bool{
	pod.StopSandbox: true, pod.ReleaseHost: true, pod.FinishPod: true, pod.RemoveContainer: true, pod.RemoveSandbox: true, pod.RemovePod: true,
}

// step is one action's work. note, if any, runs on the worker's goroutine
// afterwards, before the outcome is noted.
type step func(ctx context.Context) (note func(), err error)

func (w *Worker) step(ctx context.Context, a pod.Action) step {
	switch a.Verb {
	case pod.Prepare:
		return w.prepare()
	case pod.Mount:
		return w.mount()
	case pod.RefreshVolumes:
		return w.refresh()
	case pod.RunSandbox:
		return w.runSandbox(uint32(a.Attempt))
	case pod.StopSandbox:
		return w.stopSandbox(a.ID)
	case pod.RemoveSandbox:
		return w.removeSandbox(a.ID)
	case pod.PullImage:
		return w.pull(a.Container)
	case pod.Start:
		return w.start(a.Container, a.Attempt)
	case pod.ResizePod:
		return w.resizePod()
	case pod.Resize:
		return w.resizeContainer(a)
	case pod.Kill:
		return w.kill(ctx, a)
	case pod.RemoveContainer:
		return w.removeContainer(a.Container, a.ID)
	case pod.ReleaseHost:
		return w.release()
	case pod.FinishPod:
		return w.finish()
	case pod.RemovePod:
		return w.remove()
	}
	panic("work: no step for action " + a.String()) // the verbs are constants of agent/pod
}

// report hands the status on if it changed.
func (w *Worker) report(now time.Time) {
	if w.state.Gone {
		return
	}
	st := w.state.Status(now)
	if w.shown != nil && equality.Semantic.DeepEqual(w.shown, st) {
		return
	}
	w.shown = st.DeepCopy()
	w.measure(st, now)
	w.node.Statuses.Set(w.state.Pod, st)
}

func (w *Worker) shareAddresses() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses.Pod = w.state.Sandbox.IPs
}
