package store

import (
	"context"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"
)

// watchBatch is how many changes a watcher looks at in one go.
const watchBatch = 256

// Watcher delivers the changes of a query. Next and Poll belong to one goroutine;
// Stop, Done and Progress may be called from any. Whoever starts one must stop it.
//
// A watcher goes through three stages, of which it may skip the first two:
//
//	initial (a snapshot's objects) ─→ recent (the ring)
//	history (the engine's, while the version asked for is no longer recent) ─→ recent
//
// It holds no events of its own but a position, and those of the batch that it
// handed out last.
type Watcher struct {
	store *Store
	sel   *selector
	lane  *lane
	key   laneKey

	initial *initial
	history *history

	cursor int64 // every change up to this version was handed out or does not match
	batch  []Event
	passed atomic.Int64 // the cursor when Next was last called; 0 before the initial events are over

	life context.Context // ends with Stop, and with the store
	end  context.CancelFunc
	once sync.Once
}

// initial is where a watcher is within the objects that it begins with.
type initial struct {
	snap     *snapshot
	from     string
	bookmark bool
}

// Watch starts a watch.
func (s *Store) Watch(ctx context.Context, q Query, o WatchOptions) (*Watcher, error) {
	sel, err := s.selector(q)
	if err != nil {
		return nil, err
	}
	rv, err := parseVersion(o.ResourceVersion)
	if err != nil {
		return nil, err
	}
	w := &Watcher{store: s, sel: sel, key: mainLane}
	switch {
	case sel.key != "":
		w.key = laneKey{-1, sel.key}
	case sel.index >= 0:
		w.key = laneKey{sel.index, q.Value}
	}
	if o.SendInitialEvents || rv == 0 {
		if err := s.notOlder(ctx, o.ResourceVersion); err != nil {
			return nil, err
		}
		// The lane comes first: it has everything after the snapshot.
		w.start()
		snap := s.snap.Load()
		w.initial = &initial{snap: snap, bookmark: o.SendInitialEvents}
		w.cursor = lastOf(snap.revision)
		return w, nil
	}
	if err := s.reached.err(); err != nil {
		return nil, err
	}
	w.passed.Store(rv)
	w.start()
	w.cursor = rv
	if sel.table.tooOld(w.lane, rv) {
		if err := w.openHistory(ctx); err != nil {
			w.Stop()
			return nil, err
		}
	}
	return w, nil
}

func (w *Watcher) start() {
	w.life, w.end = context.WithCancel(w.store.life)
	w.lane = w.sel.table.enter(w.key, w)
}

func (t *table) tooOld(l *lane, rv int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return rv < l.floor
}

// Next blocks until there is at least one event and gives a batch, in order.
// The slice is the watcher's and valid until the next call. The error is
// 410 Expired when the watcher fell too far behind, and context.Canceled after
// Stop.
func (w *Watcher) Next(ctx context.Context) ([]Event, error) {
	for {
		events, more, err := w.Poll(ctx)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-more:
		case <-w.life.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Poll is Next for who waits for other things too: when there are no events, it
// gives what will be closed when there may be some. Done tells of an end.
func (w *Watcher) Poll(ctx context.Context) (events []Event, more <-chan struct{}, err error) {
	clear(w.batch)
	w.batch = w.batch[:0]
	for {
		if w.initial == nil {
			w.passed.Store(w.cursor)
		}
		switch {
		case w.initial != nil:
			w.readInitial()
		case w.history != nil:
			err = w.readHistory(ctx)
		default:
			more, err = w.readRecent()
		}
		switch {
		case w.store.life.Err() != nil:
			return nil, nil, w.store.reached.err()
		case w.life.Err() != nil:
			return nil, nil, context.Canceled
		case err != nil:
			return nil, nil, err
		case len(w.batch) > 0:
			return w.batch, nil, nil
		case more != nil:
			return nil, more, nil
		}
	}
}

// Done is closed when the watch was stopped or the store has ended; Next and
// Poll then say which.
func (w *Watcher) Done() <-chan struct{} { return w.life.Done() }

func (w *Watcher) readInitial() {
	in := w.initial
	for e := range w.sel.scan(in.snap.of(w.sel.table), in.from) {
		if len(w.batch) == watchBatch {
			in.from = e.key
			return
		}
		if w.sel.matches(e) {
			w.batch = append(w.batch, Event{Type: watch.Added, Object: e.obj})
		}
	}
	if in.bookmark && len(w.batch) > 0 {
		// In a batch of its own: by then the others were passed on.
		in.from = "\xff"
		return
	}
	w.initial = nil
	if in.bookmark {
		w.passed.Store(w.cursor)
		w.batch = append(w.batch, Event{Type: watch.Bookmark})
	}
}

// readRecent takes what the lane has. If that is nothing, it answers what to
// wait for.
func (w *Watcher) readRecent() (<-chan struct{}, error) {
	t := w.sel.table
	t.mu.Lock()
	recs, ok := w.lane.after(w.cursor, watchBatch)
	floor := w.lane.floor
	var wait <-chan struct{}
	if ok && len(recs) == 0 {
		wait = w.lane.waiting()
	}
	t.mu.Unlock()
	if !ok {
		return nil, errTooOld(w.cursor, floor)
	}
	for _, r := range recs {
		w.tell(r)
	}
	if len(recs) > 0 {
		w.cursor = recs[len(recs)-1].rv
	}
	return wait, nil
}

// tell adds what a change is to this watcher's query.
func (w *Watcher) tell(r *record) {
	was := r.old != nil && w.sel.matches(r.old)
	is := r.cur != nil && w.sel.matches(r.cur)
	switch {
	case is && was:
		w.batch = append(w.batch, Event{Type: watch.Modified, Object: r.cur.obj, enc: &r.enc})
	case is:
		w.batch = append(w.batch, Event{Type: watch.Added, Object: r.cur.obj, enc: &r.enc})
	case was:
		w.batch = append(w.batch, Event{Type: watch.Deleted, Object: r.last(), enc: &r.enc})
	}
}

// Progress is the resource version up to which everything was delivered, for
// bookmarks: a client that resumes from there misses nothing. A batch counts as
// delivered once Next is called again. While initial events are under way the
// answer is ""; when their BOOKMARK is handed out it is the version they show.
func (w *Watcher) Progress() string {
	delivered := lastOf(w.store.delivered.Load())
	passed := w.passed.Load()
	if passed == 0 {
		return ""
	}
	t := w.sel.table
	t.mu.Lock()
	defer t.mu.Unlock()
	// What was delivered to the rings before, and is not in the lane behind this
	// version, does not concern the watcher.
	if recs, ok := w.lane.after(passed, 1); ok && len(recs) == 0 {
		return formatVersion(max(passed, delivered))
	}
	return formatVersion(passed)
}

// Stop ends the watch; a blocked Next returns.
func (w *Watcher) Stop() {
	w.once.Do(func() {
		w.end()
		w.sel.table.leave(w.key, w.lane, w)
	})
}

// Encoded gives what encode gives, computed once for all watchers that see
// this event with this key. It is kept only as long as the event is recent, and
// not at all of those that a watch begins with, which are each watcher's own.
// The bytes are shared and must not be written to.
func (e *Event) Encoded(key string, encode func() ([]byte, error)) ([]byte, error) {
	if e.enc == nil {
		return encode()
	}
	return e.enc.get(encodingKey{e.Type, key}, encode)
}
