package controller

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// Backoff of a key whose Step failed: 5 ms doubling to 1000 s, as Kubernetes'
// own loops have it.
const (
	firstBackoff = 5 * time.Millisecond
	mostBackoff  = 1000 * time.Second
)

// Queue holds the keys that a loop has to look at. A key is in it once however
// often it was added; one that is being worked on is given out again only after
// Done.
//
//	add ─▶ ready ─Next─▶ running ─Done─▶ gone
//	         ▲              │ added meanwhile, or failed
//	         └──────────────┘ (at once, or after a delay)
type Queue struct {
	clock   clock.WithTicker
	metrics *queueMetrics // nil: not measured

	mu       sync.Mutex
	ready    []api.Key
	waiting  map[api.Key]time.Time // in ready, since when
	running  map[api.Key]*look
	failures map[api.Key]int
	later    laterHeap
	due      map[api.Key]time.Time // earliest entry of later
	wake     chan struct{}         // has a value when ready or later changed
}

// look is that a key is being looked at.
type look struct {
	began time.Time
	again bool // it was added meanwhile
}

// NewQueue makes an empty queue.
func NewQueue(c clock.WithTicker) *Queue {
	return &Queue{
		clock:    c,
		waiting:  map[api.Key]time.Time{},
		running:  map[api.Key]*look{},
		failures: map[api.Key]int{},
		due:      map[api.Key]time.Time{},
		wake:     make(chan struct{}, 1),
	}
}

// Add asks for a key to be looked at. It never blocks.
func (q *Queue) Add(key api.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(key)
}

func (q *Queue) add(key api.Key) {
	if l := q.running[key]; l != nil {
		l.again = true
		return
	}
	if _, waiting := q.waiting[key]; waiting {
		return
	}
	q.waiting[key] = q.clock.Now()
	q.metrics.added()
	q.ready = append(q.ready, key)
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// AddAfter asks for a key to be looked at after a while; of several such
// requests the earliest counts.
func (q *Queue) AddAfter(key api.Key, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.addAfter(key, d)
}

func (q *Queue) addAfter(key api.Key, d time.Duration) {
	if d <= 0 {
		q.add(key)
		return
	}
	at := q.clock.Now().Add(d)
	if due, ok := q.due[key]; ok && !at.Before(due) {
		return
	}
	q.due[key] = at
	heap.Push(&q.later, laterKey{key, at})
	q.signal()
}

// Next gives the next key, once there is one. The caller calls Done for it.
func (q *Queue) Next(ctx context.Context) (api.Key, error) {
	for {
		q.mu.Lock()
		q.promote()
		if len(q.ready) > 0 {
			key := q.ready[0]
			q.ready = q.ready[1:]
			now := q.clock.Now()
			q.metrics.given(now.Sub(q.waiting[key]))
			delete(q.waiting, key)
			q.running[key] = &look{began: now}
			if len(q.ready) > 0 || len(q.later) > 0 {
				q.signal() // for the next worker
			}
			q.mu.Unlock()
			return key, nil
		}
		var timer clock.Timer
		var timeout <-chan time.Time
		if len(q.later) > 0 {
			timer = q.clock.NewTimer(q.later[0].at.Sub(q.clock.Now()))
			timeout = timer.C()
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-timeout:
		}
		if timer != nil {
			timer.Stop()
		}
		if err := ctx.Err(); err != nil {
			q.signal()
			return api.Key{}, err
		}
	}
}

// promote moves what is due from later to ready.
func (q *Queue) promote() {
	now := q.clock.Now()
	for len(q.later) > 0 && !q.later[0].at.After(now) {
		l := heap.Pop(&q.later).(laterKey)
		if q.due[l.key].Equal(l.at) {
			delete(q.due, l.key)
			q.add(l.key)
		}
	}
}

// Done says that a key was looked at. With failed it comes back after its
// backoff, which a success forgets; with a positive after it comes back then.
func (q *Queue) Done(key api.Key, after time.Duration, failed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.running[key]
	delete(q.running, key)
	q.metrics.done(q.clock.Since(l.began), failed)
	if failed {
		n := q.failures[key]
		q.failures[key] = n + 1
		q.addAfter(key, min(firstBackoff<<min(n, 20), mostBackoff))
	} else {
		delete(q.failures, key)
		if after > 0 {
			q.addAfter(key, after)
		}
	}
	if l.again {
		q.add(key)
	}
}

// Len is the number of keys that wait to be looked at now.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready)
}

// underWay is for how long keys have been looked at, in all and at most.
func (q *Queue) underWay() (all, longest time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.clock.Now()
	for _, l := range q.running {
		d := now.Sub(l.began)
		all, longest = all+d, max(longest, d)
	}
	return all, longest
}

type laterKey struct {
	key api.Key
	at  time.Time
}

type laterHeap []laterKey

func (h laterHeap) Len() int           { return len(h) }
func (h laterHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h laterHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *laterHeap) Push(x any)        { *h = append(*h, x.(laterKey)) }
func (h *laterHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
