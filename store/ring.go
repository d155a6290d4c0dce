package store

import (
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"

	"hansa.dev/hansa/api"
)

// Bounds of what is kept of a resource's recent events. Age is bounded too: see
// Store.Run.
const (
	ringEvents = 10_000
	ringBytes  = 16 << 20
	// ringEncoded is how many of the newest keep their encodings: by then all
	// watchers but the slowest have been told.
	ringEncoded = 1_000
)

// record is one change as it happened. Immutable but for the encodings.
type record struct {
	rv       int64
	old, cur *entry // nil for an addition, a deletion
	size     int
	enc      encodings

	once sync.Once
	gone api.Object
}

func (r *record) key() string {
	if r.cur != nil {
		return r.cur.key
	}
	return r.old.key
}

// last is the object's last state under the record's version: what a watcher is
// told when the object is gone, or no longer matches.
func (r *record) last() api.Object {
	r.once.Do(func() { r.gone = withVersion(r.old.obj, r.rv) })
	return r.gone
}

// encodings are bytes shared by all who were told of one change.
type encodings struct {
	bytes *atomic.Int64 // of the ring, to which their size is added

	mu   sync.Mutex
	done []encoded // few: looked through
}

type encoded struct {
	encodingKey
	data []byte
}

// The same change is an ADDED to one watcher and a DELETED to another, with
// another object: hence the type.
type encodingKey struct {
	typ watch.EventType
	key string
}

func (c *encodings) get(key encodingKey, encode func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.done {
		if c.done[i].encodingKey == key {
			return c.done[i].data, nil
		}
	}
	b, err := encode()
	if err != nil {
		return nil, err
	}
	c.done = append(c.done, encoded{key, b})
	if c.bytes != nil {
		c.bytes.Add(int64(len(b)))
	}
	return b, nil
}

// drop forgets everything kept. Whoever asks again has it encoded again.
func (c *encodings) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes.Add(-int64(c.size()))
	c.done = nil
}

func (c *encodings) size() (n int) {
	for i := range c.done {
		n += len(c.done[i].data)
	}
	return n
}

// retire answers the size of everything kept, which is then no longer counted.
func (c *encodings) retire() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes = nil
	return c.size()
}

// ring keeps the recent records of a resource. Watchers have no queue of their
// own: each remembers how far it has come, and is lost when that is no longer
// here. All records are in the main lane; watchers of one object or of one
// value of an index share a lane that holds only what concerns them, so that
// nobody else's changes wake them.
type ring struct {
	main *lane
	// lanes are the others, by index and value, as long as they have watchers:
	// an index that nobody watches by costs a change nothing.
	lanes map[int]map[string]*lane
	bytes *atomic.Int64
}

// laneKey names a lane: an object (index -1, value its key) or an index value.
type laneKey struct {
	index int
	value string
}

var mainLane = laneKey{index: -2}

// lane is a window of records.
// Invariant: every record of the lane with rv > floor is in recs, in order.
type lane struct {
	recs  []*record
	floor int64
	wake  chan struct{} // non-nil when somebody waits for recs to grow
	users []*Watcher
}

func (r *ring) init() {
	r.main = &lane{}
	r.lanes = map[int]map[string]*lane{}
	r.bytes = new(atomic.Int64)
}

// after gives at most n records that come after a version, and more only where
// several have the same. ok is false if some of them are gone.
func (l *lane) after(rv int64, n int) (recs []*record, ok bool) {
	if rv < l.floor {
		return nil, false
	}
	i := sort.Search(len(l.recs), func(i int) bool { return l.recs[i].rv > rv })
	j := min(i+n, len(l.recs))
	for j > i && j < len(l.recs) && l.recs[j].rv == l.recs[j-1].rv {
		j++
	}
	return slices.Clone(l.recs[i:j]), true
}

func (l *lane) push(r *record) {
	l.recs = append(l.recs, r)
	l.rouse()
}

// waiting is closed when the lane changes.
func (l *lane) waiting() <-chan struct{} {
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return l.wake
}

func (l *lane) rouse() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

func (l *lane) pop() {
	l.floor = l.recs[0].rv
	l.recs[0] = nil
	l.recs = l.recs[1:]
}

// concerns calls f with every lane but the main one that a record belongs to.
func (t *table) concerns(r *record, f func(*lane)) {
	for index, lanes := range t.recent.lanes {
		values := []string{r.key()}
		if index >= 0 {
			values = t.valuesOf(index, r)
		}
		for _, v := range values {
			if l := lanes[v]; l != nil {
				f(l)
			}
		}
	}
}

// belongs is concerns for one lane.
func (t *table) belongs(r *record, key laneKey) bool {
	if key.index < 0 {
		return r.key() == key.value
	}
	return r.old != nil && t.has(key.index, r.old.obj, key.value) || r.cur != nil && t.has(key.index, r.cur.obj, key.value)
}

// valuesOf are the values of an index that a record's states have, each once.
func (t *table) valuesOf(index int, r *record) []string {
	var values []string
	for _, e := range []*entry{r.old, r.cur} {
		if e == nil {
			continue
		}
		for _, v := range t.indexes[index].Values(e.obj) {
			if !slices.Contains(values, v) {
				values = append(values, v)
			}
		}
	}
	return values
}

// publish adds records and drops old ones. Applier only.
func (t *table) publish(recs []*record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range recs {
		r.enc.bytes = t.recent.bytes
		t.recent.bytes.Add(int64(r.size))
		t.recent.main.push(r)
		t.concerns(r, func(l *lane) { l.push(r) })
		if old := len(t.recent.main.recs) - 1 - ringEncoded; old >= 0 {
			t.recent.main.recs[old].enc.drop()
		}
	}
	for len(t.recent.main.recs) > ringEvents || (t.recent.bytes.Load() > ringBytes && len(t.recent.main.recs) > 1) {
		t.dropFirst()
	}
}

// dropUntil drops the records up to a version.
func (t *table) dropUntil(rv int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.recent.main.recs) > 0 && t.recent.main.recs[0].rv <= rv {
		t.dropFirst()
	}
}

func (t *table) dropFirst() {
	r := t.recent.main.recs[0]
	t.recent.main.pop()
	t.recent.bytes.Add(-int64(r.size + r.enc.retire()))
	t.concerns(r, func(l *lane) {
		if len(l.recs) > 0 && l.recs[0] == r {
			l.pop()
		}
	})
}

// reset forgets all records: what happened up to rv is unknown.
func (t *table) reset(rv int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recent.bytes.Store(0)
	for _, lanes := range t.recent.lanes {
		for _, l := range lanes {
			l.forget(rv)
		}
	}
	t.recent.main.forget(rv)
}

func (l *lane) forget(rv int64) {
	l.recs, l.floor = nil, rv
	l.rouse()
}

// relax drops all but the newest records that are worth an encoding, as far as
// all watchers have passed them.
func (t *table) relax() {
	t.mu.Lock()
	defer t.mu.Unlock()
	slowest := map[*lane]int64{}
	awaited := false
	for len(t.recent.main.recs) > ringEncoded {
		r := t.recent.main.recs[0]
		waits := func(l *lane) {
			passed, ok := slowest[l]
			if !ok {
				passed = l.slowest()
				slowest[l] = passed
			}
			awaited = awaited || passed < r.rv
		}
		waits(t.recent.main)
		t.concerns(r, waits)
		if awaited {
			return
		}
		t.dropFirst()
	}
}

// slowest is a version that all who use the lane have passed.
func (l *lane) slowest() int64 {
	passed := int64(math.MaxInt64)
	for _, w := range l.users {
		passed = min(passed, w.passed.Load())
	}
	return passed
}

// enter gives the lane of a key to one more user; leave takes it back.
func (t *table) enter(key laneKey, w *Watcher) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.recent.main
	if key != mainLane {
		l = t.lane(key)
	}
	l.users = append(l.users, w)
	return l
}

// lane gives the lane of a key, which is made if there is none.
func (t *table) lane(key laneKey) *lane {
	lanes := t.recent.lanes[key.index]
	if l := lanes[key.value]; l != nil {
		return l
	}
	l := &lane{floor: t.recent.main.floor}
	for _, r := range t.recent.main.recs {
		if t.belongs(r, key) {
			l.recs = append(l.recs, r)
		}
	}
	if lanes == nil {
		lanes = map[string]*lane{}
		t.recent.lanes[key.index] = lanes
	}
	lanes[key.value] = l
	return l
}

func (t *table) leave(key laneKey, l *lane, w *Watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(l.users, w); i >= 0 {
		last := len(l.users) - 1
		l.users[i], l.users[last] = l.users[last], nil
		l.users = l.users[:last]
	}
	lanes := t.recent.lanes[key.index]
	if key == mainLane || len(l.users) > 0 || lanes[key.value] != l {
		return
	}
	if delete(lanes, key.value); len(lanes) == 0 {
		delete(t.recent.lanes, key.index)
	}
}
