// Package scheduler gives pods their nodes.
//
// One goroutine owns all that is decided on: the cluster as package core sees
// it, and the queue of pods without a node. It notes in subscriptions which
// objects changed, looks at what they are now, decides for the pods that may be
// tried, and puts each on its node at once in its own books. Writing that to the
// API is done beside it, in batches:
//
//	view ─keys─▶ sync ─▶ cluster, queue ─▶ decide ─▶ writer ─bindings─▶ API
//	                          ▲                        │
//	                          └──────── results ───────┘
//
// Invariant: bound ⊆ assumed. A pod leaves the books only when the API says that
// it has no node, or is gone; a binding of which nobody knows whether it was
// written is looked up first.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/scheduler/core"
)

// Name is the scheduler that pods ask for by default, and the name under which
// events are written.
const Name = corev1.DefaultSchedulerName

// batch bounds the decisions between two looks at what has changed.
const batch = 256

// Config is what a scheduler needs. All of it is required but for Metrics.
type Config struct {
	// Client acts as system:kube-scheduler.
	Client client.Interface
	Events events.Recorder
	Clock  clock.WithTicker
	Log    *slog.Logger
	// Metrics is where the scheduler's are registered.
	Metrics prometheus.Registerer
}

// Scheduler serves the pods with schedulerName "default-scheduler".
type Scheduler struct {
	client client.Interface
	view   client.View
	events events.Recorder
	clock  clock.WithTicker
	log    *slog.Logger

	pods, nodes, namespaces, services, replicaSets, budgets *api.Resource

	inbox   inbox
	writer  *writer
	metrics *metrics

	// What follows belongs to the goroutine of Run.
	cluster  *core.Cluster
	queue    *queue
	owners   owners
	assigned map[api.Key]types.UID // pods that the view shows on a node
}

// New makes a scheduler; nothing happens before Run.
func New(c Config) *Scheduler {
	r := c.Client.Registry()
	s := &Scheduler{
		client: c.Client, view: c.Client.View(), events: c.Events, clock: c.Clock, log: c.Log,
		pods: r.Must("", "pods"), nodes: r.Must("", "nodes"), namespaces: r.Must("", "namespaces"),
		services: r.Must("", "services"), replicaSets: r.Must("apps", "replicasets"), budgets: r.Must(policyv1.GroupName, "poddisruptionbudgets"),
		cluster: core.NewCluster(), queue: newQueue(), owners: newOwners(), assigned: map[api.Key]types.UID{},
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	s.metrics = newMetrics(c.Metrics)
	s.queue.counts = s.metrics.pendingBy()
	s.inbox.init()
	s.writer = newWriter(s)
	return s
}

// Run schedules until the context ends, and returns its error. It is called
// once.
func (s *Scheduler) Run(ctx context.Context) error {
	sources := []*api.Resource{s.nodes, s.namespaces, s.services, s.pods}
	for _, r := range sources {
		cancel := s.view.Subscribe(r, func(old, new api.Object) {
			obj := new
			if obj == nil {
				obj = old
			}
			s.inbox.note(r, api.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()})
		})
		defer cancel()
	}
	if err := s.view.WaitSynced(ctx, append(sources, s.replicaSets, s.budgets)...); err != nil {
		return err
	}
	// Subscriptions may still be telling what there was; the first decision must
	// not come before all of it is known.
	for _, r := range sources {
		for obj := range s.view.List(r, "") {
			s.inbox.note(r, api.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()})
		}
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range writersAtOnce {
		writers.Go(func() { s.writer.run(ctx) })
	}
	for ctx.Err() == nil {
		busy := s.step()
		if !busy {
			s.sleep(ctx)
		}
	}
	return ctx.Err()
}

// step takes in what has changed and decides on some pods. It answers false when
// there is nothing more to do for now.
func (s *Scheduler) step() bool {
	changes, results, questions := s.inbox.take()
	s.sync(changes)
	for _, r := range results {
		s.finish(r)
	}
	for _, ask := range questions {
		ask()
	}
	now := s.clock.Now()
	for range batch {
		it := s.queue.pop(now)
		if it == nil {
			return false
		}
		s.schedule(it, now)
	}
	return true
}

// sleep waits for the inbox, or for the time of a pod that waits.
func (s *Scheduler) sleep(ctx context.Context) {
	var due <-chan time.Time
	if next := s.queue.next(); !next.IsZero() {
		timer := s.clock.NewTimer(next.Sub(s.clock.Now()))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-s.inbox.wake:
	case <-due:
	}
}

// schedule decides on one pod.
func (s *Scheduler) schedule(it *item, now time.Time) {
	began := s.clock.Now()
	it.pending = core.NewPending(it.pod, s.defaultSpread(it.pod))
	node, refusal := s.cluster.Choose(it.pending)
	if refusal != nil {
		s.refuse(it, refusal, now)
		s.metrics.attempted(unschedulable, s.clock.Since(began))
		return
	}
	s.metrics.decision.Observe(s.clock.Since(began).Seconds())
	s.cluster.Withdraw(it.pod.UID)
	s.cluster.Add(it.pending.Pod, node)
	s.queue.placed(it, now)
	s.queue.wakeIf(s.helped(core.Event{Came: it.pending.Pod, At: node}), now)
	s.writer.bind(bindingTask{key: it.key, pod: it.pod, node: node, came: it.came, began: began, attempts: it.refusals + 1})
}

// left tells those who wait that a pod has left a node: above all those to whom
// that node was promised.
func (s *Scheduler) left(p *core.Pod, node string, now time.Time) {
	for _, o := range s.cluster.Nominated(node) {
		if it := s.queue.items[api.Key{Namespace: o.Object.Namespace, Name: o.Object.Name}]; it != nil {
			s.queue.wake(it, now)
		}
	}
	s.queue.wakeIf(s.helped(core.Event{Gone: p, At: node}), now)
}

func (s *Scheduler) helped(e core.Event) func(*core.Pending, core.Filter) bool {
	return func(p *core.Pending, refused core.Filter) bool { return s.cluster.MayHelp(e, p, refused) }
}

// refuse says why a pod has no node, and makes room for it if that is possible
// and right.
func (s *Scheduler) refuse(it *item, r *core.Refusal, now time.Time) {
	preemption := s.cluster.Preempt(it.pending, r, s.disruptionBudgets)
	s.metrics.preemptions.Inc()
	message := r.Message
	if preemption.Message != "" {
		message += " " + preemption.Message
	}
	if !preemption.Keep {
		s.cluster.Withdraw(it.pod.UID)
	}
	it.preempting = preemption.Eviction != nil
	s.queue.refuse(it, r.Filters, now)
	if it.preempting {
		s.metrics.victims.Observe(float64(len(preemption.Eviction.Victims)))
		s.cluster.Nominate(it.pending.Pod, preemption.Eviction.Node)
		s.evict(it, preemption.Eviction)
	}
	s.reportFailure(it, corev1.PodReasonUnschedulable, message)
}

// reportFailure tells the user by event and condition.
func (s *Scheduler) reportFailure(it *item, reason, message string) {
	s.events.Event(about(it.pod), events.Warning, "FailedScheduling", truncate(message))
	nominated := s.cluster.NominatedTo(it.pod.UID)
	s.writer.report(it.key, it.pod.UID, statusChange{reason: reason, message: message, nominated: &nominated})
}

// maxNote is the length of an event's message that the API takes.
const maxNote = 1024

func truncate(message string) string {
	const dots = " ..."
	if len(message) <= maxNote {
		return message
	}
	return message[:maxNote-len(dots)] + dots
}

func about(p *corev1.Pod) corev1.ObjectReference {
	return events.About(corev1.SchemeGroupVersion.WithKind("Pod"), p, "")
}

// finish takes in what became of a write.
func (s *Scheduler) finish(r result) {
	now := s.clock.Now()
	it := s.queue.items[r.key]
	if it == nil || it.pod.UID != r.uid {
		return // the view has told what became of the pod
	}
	if r.evicted {
		it.preempting = false
		if it.helped || r.err != nil {
			s.queue.wake(it, now)
		}
		return
	}
	if r.err == nil {
		return // the view is about to show it
	}
	s.queue.fail(it, now)
	if p, node := s.cluster.Remove(r.uid); p != nil {
		s.left(p, node, now)
	}
	s.log.Warn("binding failed; the pod is tried again", "pod", r.key, "node", r.node, "err", r.err)
	s.reportFailure(it, corev1.PodReasonSchedulerError, fmt.Sprintf("binding rejected: %v", r.err))
}

// ErrNotPending says that a pod is not waiting for this scheduler.
var ErrNotPending = errors.New("the pod does not wait for a node, or not for this scheduler")

// Explain says for every node why a pending pod is refused there, or what the
// node scores. Any goroutine may ask while Run runs.
func (s *Scheduler) Explain(ctx context.Context, key api.Key) ([]core.Verdict, error) {
	type answer struct {
		verdicts []core.Verdict
		err      error
	}
	answers := make(chan answer, 1)
	s.inbox.ask(func() {
		it := s.queue.items[key]
		if it == nil {
			answers <- answer{err: fmt.Errorf("explain pod %s: %w", key, ErrNotPending)}
			return
		}
		answers <- answer{verdicts: s.cluster.Explain(core.NewPending(it.pod, s.defaultSpread(it.pod)))}
	})
	select {
	case a := <-answers:
		return a.verdicts, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
