package scheduler

import (
	"cmp"
	"container/heap"
	"container/list"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/scheduler/core"
)

// Waiting times, those of upstream: a pod that was refused n times is not tried
// again before backoff(n) has passed, and is tried again after patience even if
// nothing seems to have changed.
const (
	firstBackoff = time.Second
	mostBackoff  = 10 * time.Second
	patience     = 5 * time.Minute
)

// state is where a pod is on its way to a node.
//
//	new ─▶ active ─pop─▶ decided ─▶ (bound) gone
//	  │     ▲  ▲  ▲        │  │ the binding failed
//	  ▼     │  │  └ failed ◀──┘
//	gated ──┘  │           │ refused
//	           ├─ woken    ▼
//	           │    ▲── waiting
//	           └─ patience ┘
type state int

const (
	gated   state = iota // has scheduling gates
	active               // may be tried now
	decided              // was popped; its binding is being written
	waiting              // refused; nothing has happened since that may help
	woken                // refused; it may help to try again, if not at once
	failed               // met an error; is tried again after its backoff
	states
)

// item is a pod without a node.
type item struct {
	key      api.Key
	pod      *corev1.Pod // as last seen
	state    state
	came     time.Time     // when it could first be tried
	since    time.Time     // when it came into its state, or was last decided on
	serial   uint64        // breaks ties in since
	refusals int           // and errors
	until    time.Time     // when it leaves its state by itself
	index    int           // in the heap of its state
	among    *list.Element // in its class, when waiting

	pending    *core.Pending // as last tried
	refusedBy  core.Filter
	preempting bool // evictions for it are being written: it is not tried again
	helped     bool // something may have helped meanwhile
}

// queue holds the pods without a node. It belongs to one goroutine and reads no
// clock.
type queue struct {
	items   map[api.Key]*item
	heaps   [states]itemHeap    // active, woken: by priority, then by age; others: by until
	classes map[string]*refused // waiting, by class
	serial  uint64
	counts  [states]prometheus.Gauge // how many are in a state; nil: nobody counts
}

// refused are the waiting pods of one class. What helps one helps all, but it may
// help only one: so one is woken, and each that finds a node wakes the next.
type refused struct {
	items *list.List // of *item, in the order in which they were refused
	by    core.Filter
}

func newQueue() *queue {
	q := &queue{items: map[api.Key]*item{}, classes: map[string]*refused{}}
	for i := range q.heaps {
		q.heaps[i].less = func(a, b *item) bool { return a.until.Before(b.until) }
	}
	q.heaps[active].less, q.heaps[woken].less = byPriority, byPriority
	return q
}

// byPriority is upstream's PrioritySort.
func byPriority(a, b *item) bool {
	if x := cmp.Compare(priority(b.pod), priority(a.pod)); x != 0 {
		return x < 0
	}
	if !a.since.Equal(b.since) {
		return a.since.Before(b.since)
	}
	return a.serial < b.serial
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// add takes in a pod that was not known.
func (q *queue) add(key api.Key, pod *corev1.Pod, now time.Time) *item {
	it := &item{key: key, pod: pod, state: decided, index: -1, came: now}
	q.items[key] = it
	if len(pod.Spec.SchedulingGates) > 0 {
		it.state = gated
		q.count(gated, 1)
	} else {
		q.move(it, active, now)
	}
	return it
}

// change takes in a new version of a pod. One that differs in what decides on
// its place is tried again, whatever it waits for.
func (q *queue) change(it *item, pod *corev1.Pod, now time.Time) {
	old := it.pod
	it.pod = pod
	switch {
	case it.state == gated && len(pod.Spec.SchedulingGates) == 0:
		it.came = now
		q.move(it, active, now)
	case it.state == active:
		heap.Fix(&q.heaps[active], it.index) // its priority may have changed
	case it.state == waiting && !sameDemands(old, pod):
		q.hurry(it, now)
	}
}

// remove forgets a pod.
func (q *queue) remove(it *item) {
	q.leave(it)
	delete(q.items, it.key)
}

// hasHeap says whether items of a state are in its heap; the rest are only in
// items.
func hasHeap(s state) bool { return s != gated && s != decided }

// leave takes an item out of its state.
func (q *queue) leave(it *item) {
	if hasHeap(it.state) {
		heap.Remove(&q.heaps[it.state], it.index)
		it.index = -1
	}
	if it.state == waiting {
		class := q.classes[it.pending.Class()]
		if class.items.Remove(it.among); class.items.Len() == 0 {
			delete(q.classes, it.pending.Class())
		}
		it.among = nil
	}
	q.count(it.state, -1)
	it.state = decided
}

func (q *queue) count(s state, n float64) {
	if g := q.counts[s]; g != nil {
		g.Add(n)
	}
}

// move puts an item into a state; its until is set already.
func (q *queue) move(it *item, to state, now time.Time) {
	q.leave(it)
	it.state = to
	q.count(to, 1)
	if to == active {
		q.serial++
		it.since, it.serial, it.helped = now, q.serial, false
	}
	if hasHeap(to) {
		heap.Push(&q.heaps[to], it)
	}
	if to == waiting {
		class := q.classes[it.pending.Class()]
		if class == nil {
			class = &refused{items: list.New()}
			q.classes[it.pending.Class()] = class
		}
		it.among = class.items.PushBack(it)
		class.by |= it.refusedBy
	}
}

// pop gives the pod to be decided on next, or nil. When no pod is active, one
// that was woken before its backoff is over is better than idling; so backoff
// costs a pod nothing but its turn.
func (q *queue) pop(now time.Time) *item {
	for _, s := range []state{waiting, woken, failed} {
		for it := q.heaps[s].first(); it != nil && !it.until.After(now); it = q.heaps[s].first() {
			if it.preempting {
				it.until = now.Add(patience)
				heap.Fix(&q.heaps[s], it.index)
				continue
			}
			q.move(it, active, now)
		}
	}
	it := q.heaps[active].first()
	if it == nil {
		it = q.heaps[woken].first()
	}
	if it != nil {
		q.leave(it)
	}
	return it
}

// refuse puts away a pod that was popped and found no node.
func (q *queue) refuse(it *item, by core.Filter, now time.Time) {
	it.refusals++
	it.refusedBy, it.since, it.until = by, now, now.Add(patience)
	q.move(it, waiting, now)
}

// fail puts away a pod that was popped and met an error.
func (q *queue) fail(it *item, now time.Time) {
	it.refusals++
	it.since, it.until = now, now.Add(backoff(it.refusals))
	q.move(it, failed, now)
}

// wake says that something happened that may help a waiting pod.
func (q *queue) wake(it *item, now time.Time) {
	if it.state != waiting {
		return
	}
	if it.preempting {
		it.helped = true
		return
	}
	it.until = it.since.Add(backoff(it.refusals))
	if it.until.After(now) {
		q.move(it, woken, now)
	} else {
		q.move(it, active, now)
	}
}

// hurry tries a waiting pod again at once: it is not the one it was.
func (q *queue) hurry(it *item, now time.Time) {
	if it.preempting {
		it.helped = true
		return
	}
	if it.state == waiting {
		q.move(it, active, now)
	}
}

// wakeIf wakes a pod of each class that help says may be helped.
func (q *queue) wakeIf(help func(p *core.Pending, refused core.Filter) bool, now time.Time) {
	for _, class := range q.classes {
		if help(class.items.Front().Value.(*item).pending, class.by) {
			q.wakeOne(class, now)
		}
	}
}

// placed says that a pod found a node: there may be one for another of its
// class.
func (q *queue) placed(it *item, now time.Time) {
	if class := q.classes[it.pending.Class()]; class != nil {
		q.wakeOne(class, now)
	}
}

// wakeOne wakes the pod that was refused first and is free to be tried.
func (q *queue) wakeOne(class *refused, now time.Time) {
	for e := class.items.Front(); e != nil; e = e.Next() {
		it := e.Value.(*item)
		q.wake(it, now)
		if it.state != waiting {
			return
		}
	}
}

// next is when a pod will become active by itself; zero when none will.
func (q *queue) next() time.Time {
	var first time.Time
	for _, s := range []state{waiting, failed} {
		if it := q.heaps[s].first(); it != nil && (first.IsZero() || it.until.Before(first)) {
			first = it.until
		}
	}
	return first
}

// backoff is how long after its nth refusal a pod is left alone.
func backoff(n int) time.Duration {
	return min(firstBackoff<<min(n-1, 10), mostBackoff)
}

// itemHeap orders items; they know their place.
type itemHeap struct {
	items []*item
	less  func(a, b *item) bool
}

func (h *itemHeap) first() *item {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}

func (h *itemHeap) Len() int           { return len(h.items) }
func (h *itemHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }
func (h *itemHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].index, h.items[j].index = i, j
}
func (h *itemHeap) Push(x any) {
	it := x.(*item)
	it.index = len(h.items)
	h.items = append(h.items, it)
}
func (h *itemHeap) Pop() any {
	last := len(h.items) - 1
	it := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	return it
}
