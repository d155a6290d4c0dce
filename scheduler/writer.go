package scheduler

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/internal/podstate"
)

const (
	// writesAtOnce is how many objects one transaction of the store may have.
	writesAtOnce = 64
	// writersAtOnce is how many batches are under way at a time; while they wait
	// for the disk the next ones gather.
	writersAtOnce = 4
	// writeAttempts bounds how often a status is tried that others keep changing.
	writeAttempts = 5
	// lookupPause is between two looks at a pod of which it is not known whether
	// it was bound.
	lookupPause = time.Second
)

// writer writes bindings and statuses. Its methods may be called from any
// goroutine and return at once.
type writer struct {
	s    *Scheduler
	wake chan struct{}

	mu       sync.Mutex
	bindings []bindingTask
	reports  map[api.Key]statusTask // the newest of each pod
	order    []api.Key              // of reports
	others   []func(context.Context)
}

type bindingTask struct {
	key      api.Key
	pod      *corev1.Pod
	node     string
	came     time.Time // when the pod could first be tried
	began    time.Time // when it was decided on
	attempts int       // this one too
}

type statusTask struct {
	uid      types.UID
	change   statusChange
	attempts int
}

// statusChange is what is to become of a pending pod's status.
type statusChange struct {
	reason, message string  // of the condition PodScheduled, if reason is set
	nominated       *string // nominatedNodeName, if not nil
}

func newWriter(s *Scheduler) *writer {
	return &writer{s: s, wake: make(chan struct{}, 1), reports: map[api.Key]statusTask{}}
}

func (w *writer) bind(t bindingTask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bindings = append(w.bindings, t)
	delete(w.reports, t.key) // nothing is left to report
	w.signal()
}

func (w *writer) report(key api.Key, uid types.UID, change statusChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(key, statusTask{uid: uid, change: change})
}

// add queues a report; w.mu is held.
func (w *writer) add(key api.Key, t statusTask) {
	if _, queued := w.reports[key]; !queued {
		w.order = append(w.order, key)
	}
	w.reports[key] = t
	w.signal()
}

// do runs f beside the other writes.
func (w *writer) do(f func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.others = append(w.others, f)
	w.signal()
}

// forget drops what was to be reported of a pod.
func (w *writer) forget(key api.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.reports, key)
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run writes until the context ends. Several of them may run.
func (w *writer) run(ctx context.Context) {
	for {
		if work := w.take(); work != nil && ctx.Err() == nil {
			work(ctx)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
	}
}

// take gives what to do next: a batch of bindings if there are any, else an
// eviction, else a batch of reports. Nil when there is nothing.
func (w *writer) take() func(context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := min(len(w.bindings), writesAtOnce); n > 0 {
		taken := w.bindings[:n:n]
		if w.bindings = w.bindings[n:]; len(w.bindings) == 0 {
			w.bindings = nil
		}
		w.signal() // for the next writer
		return func(ctx context.Context) { w.writeBindings(ctx, taken) }
	}
	if len(w.others) > 0 {
		f := w.others[0]
		w.others = w.others[1:]
		w.signal()
		return f
	}
	var keys []api.Key
	var reports []statusTask
	for len(w.order) > 0 && len(reports) < writesAtOnce {
		key := w.order[0]
		w.order = w.order[1:]
		if t, ok := w.reports[key]; ok {
			delete(w.reports, key)
			keys, reports = append(keys, key), append(reports, t)
		}
	}
	if len(reports) == 0 {
		return nil
	}
	w.signal()
	return func(ctx context.Context) { w.writeReports(ctx, keys, reports) }
}

func (w *writer) writeBindings(ctx context.Context, tasks []bindingTask) {
	writes := make([]client.Write, len(tasks))
	for i, t := range tasks {
		writes[i] = client.Write{
			Ref: api.RefTo(w.s.pods, t.pod),
			Bind: &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Namespace: t.pod.Namespace, Name: t.pod.Name, UID: t.pod.UID},
				Target:     corev1.ObjectReference{Kind: "Node", Name: t.node},
			},
		}
	}
	for i, r := range w.s.client.Batch(ctx, writes) {
		t, err := tasks[i], r.Err
		if err != nil && !nothingWritten(err) {
			if err = w.lookUp(ctx, t, err); ctx.Err() != nil {
				return
			}
		}
		w.measure(t, err)
		if err == nil {
			w.s.events.Event(about(t.pod), events.Normal, "Scheduled",
				"Successfully assigned "+t.key.String()+" to "+t.node)
		}
		w.s.inbox.answer(result{key: t.key, uid: t.pod.UID, node: t.node, err: err})
	}
}

// measure notes how an attempt that found a node ended.
func (w *writer) measure(t bindingTask, err error) {
	now := w.s.clock.Now()
	if err != nil {
		w.s.metrics.attempted(failure, now.Sub(t.began))
		return
	}
	w.s.metrics.attempted(scheduled, now.Sub(t.began))
	w.s.metrics.placed(t.attempts, now.Sub(t.came))
}

// nothingWritten says whether an error tells that much.
func nothingWritten(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsForbidden(err) ||
		apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsUnauthorized(err)
}

// lookUp finds out whether a pod was bound by a write that failed with err. It
// answers nil if it was.
func (w *writer) lookUp(ctx context.Context, t bindingTask, err error) error {
	for ctx.Err() == nil {
		obj, getErr := w.s.client.Get(ctx, api.RefTo(w.s.pods, t.pod))
		switch {
		case apierrors.IsNotFound(getErr):
			return getErr
		case getErr == nil && obj.GetUID() == t.pod.UID && obj.(*corev1.Pod).Spec.NodeName == t.node:
			return nil
		case getErr == nil:
			return err
		}
		select {
		case <-ctx.Done():
		case <-w.s.clock.After(lookupPause):
		}
	}
	return ctx.Err()
}

// writeReports writes statuses that differ from what is there. Each write names
// the version it starts from: a pod that was bound meanwhile keeps its status.
func (w *writer) writeReports(ctx context.Context, keys []api.Key, tasks []statusTask) {
	var writes []client.Write
	var of []int
	for i, t := range tasks {
		pod := w.current(ctx, keys[i], t)
		if pod == nil || pod.UID != t.uid || pod.Spec.NodeName != "" {
			continue
		}
		if status, differs := t.change.apply(pod, metav1.NewTime(w.s.clock.Now())); differs {
			changed := pod.DeepCopy()
			changed.Status = status
			writes = append(writes, client.Write{Resource: w.s.pods, Update: changed, Subresource: "status"})
			of = append(of, i)
		}
	}
	if len(writes) == 0 {
		return
	}
	for i, r := range w.s.client.Batch(ctx, writes) {
		key, t := keys[of[i]], tasks[of[i]]
		t.attempts++
		switch {
		case r.Err == nil, apierrors.IsNotFound(r.Err), ctx.Err() != nil:
		case t.attempts < writeAttempts:
			w.retry(key, t)
		default:
			w.s.log.Warn("status of pod not written", "pod", key, "err", r.Err)
		}
	}
}

// retry queues a report again, unless there is a newer one.
func (w *writer) retry(key api.Key, t statusTask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, newer := w.reports[key]; !newer {
		w.add(key, t)
	}
}

// current is the pod as the view shows it; as the API has it if the view's has
// already turned out to be old.
func (w *writer) current(ctx context.Context, key api.Key, t statusTask) *corev1.Pod {
	if t.attempts == 0 {
		pod, _ := w.s.view.Get(w.s.pods, key).(*corev1.Pod)
		return pod
	}
	obj, err := w.s.client.Get(ctx, api.Ref{Resource: w.s.pods, Namespace: key.Namespace, Name: key.Name})
	if err != nil {
		return nil
	}
	pod, _ := obj.(*corev1.Pod)
	return pod
}

// apply answers with the status that a pod is to have, and whether that differs
// from what it has.
func (c statusChange) apply(p *corev1.Pod, now metav1.Time) (corev1.PodStatus, bool) {
	status := p.Status
	if c.nominated != nil {
		status.NominatedNodeName = *c.nominated
	}
	differs := status.NominatedNodeName != p.Status.NominatedNodeName
	if c.reason == "" {
		return status, differs
	}
	want := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: c.reason, Message: c.message,
		ObservedGeneration: p.Generation, LastTransitionTime: now,
	}
	status.Conditions = slices.Clone(p.Status.Conditions)
	has := podstate.Condition(&corev1.Pod{Status: status}, corev1.PodScheduled)
	if has == nil {
		status.Conditions = append(status.Conditions, want)
		return status, true
	}
	if has.Status == want.Status {
		want.LastTransitionTime = has.LastTransitionTime
	}
	want.LastProbeTime = has.LastProbeTime
	differs = differs || *has != want
	*has = want
	return status, differs
}
