// Package memory is a store engine without a disk, for fast tests. It keeps the whole
// history since the last compaction.
package memory

import (
	"context"
	"fmt"
	"math"
	"sort"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"k8s.io/utils/third_party/forked/golang/btree"

	"hansa.dev/hansa/store"
)

// Options of New.
type Options struct {
	// Clock ends leases; nil is the real one.
	Clock clock.Clock
	// Quota in bytes; 0 is none.
	Quota int64
}

// New makes an empty engine at revision 1, as a new etcd has.
func New(opts Options) *Engine {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	return &Engine{
		opts:    opts,
		rev:     1,
		keys:    btree.New(32, func(a, b *history) bool { return a.key < b.key }),
		leases:  map[int64]map[string]bool{},
		changed: make(chan struct{}),
		closed:  make(chan struct{}),
	}
}

// Engine implements store.Engine.
type Engine struct {
	opts   Options
	closed chan struct{}
	done   sync.WaitGroup // lease timers

	mu        sync.Mutex
	rev       int64
	compacted int64
	size      int64
	keys      *btree.BTree[*history]
	log       []store.RawEvent // since compacted, in order
	leases    map[int64]map[string]bool
	lastLease int64
	changed   chan struct{} // closed and replaced when log grows
}

// history is all versions of a key that can still be read, oldest first.
type history struct {
	key      string
	versions []version
}

type version struct {
	store.KV
	lease   int64
	deleted bool
}

// at is the version visible at a revision, or nil.
func (h *history) at(rev int64) *version {
	i := sort.Search(len(h.versions), func(i int) bool { return h.versions[i].ModRevision > rev })
	if i == 0 || h.versions[i-1].deleted {
		return nil
	}
	return &h.versions[i-1]
}

func (e *Engine) find(key string, rev int64) *version {
	h, ok := e.keys.Get(&history{key: key})
	if !ok {
		return nil
	}
	return h.at(rev)
}

// check must be called with the lock held.
func (e *Engine) check(ctx context.Context) error {
	select {
	case <-e.closed:
		return store.ErrClosed
	default:
		return ctx.Err()
	}
}

// Range implements store.Engine.
func (e *Engine) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return store.RangeResponse{}, err
	}
	rev := r.Revision
	switch {
	case rev == 0:
		rev = e.rev
	case rev > e.rev:
		return store.RangeResponse{}, store.ErrFutureRevision
	case rev < e.compacted:
		return store.RangeResponse{}, &store.CompactedError{Compacted: e.compacted}
	}
	resp := store.RangeResponse{Revision: e.rev}
	end := r.End
	if end == "" {
		end = r.Start + "\x00"
	}
	e.keys.AscendRange(&history{key: r.Start}, &history{key: end}, func(h *history) bool {
		v := h.at(rev)
		if v == nil {
			return true
		}
		resp.Count++
		if r.CountOnly {
			return true
		}
		if r.Limit > 0 && int64(len(resp.KVs)) == r.Limit {
			resp.More = true
			return true
		}
		resp.KVs = append(resp.KVs, v.KV)
		return true
	})
	return resp, nil
}

// Txn implements store.Engine.
func (e *Engine) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return store.TxnResponse{}, err
	}
	if err := checkSteps(steps); err != nil {
		return store.TxnResponse{}, err
	}
	if e.opts.Quota > 0 && e.size > e.opts.Quota {
		return store.TxnResponse{}, store.ErrNoSpace
	}
	if !e.leasesHold(steps) {
		return store.TxnResponse{}, store.ErrLeaseGone
	}
	resp := store.TxnResponse{Steps: make([]store.StepResult, len(steps))}
	for i, step := range steps {
		resp.Steps[i] = e.compare(step.If)
	}
	wrote := false
	for i, step := range steps {
		if !resp.Steps[i].OK {
			continue
		}
		for _, p := range step.Then {
			wrote = e.write(p, e.rev+1) || wrote
		}
	}
	e.advance(wrote)
	resp.Revision = e.rev
	return resp, nil
}

// checkSteps refuses what etcd refuses, and what would not be serial.
func checkSteps(steps []store.Step) error {
	written := map[string]int{}
	for i, s := range steps {
		for _, p := range s.Then {
			if _, twice := written[p.Key]; twice {
				return fmt.Errorf("key %q is written twice in one transaction", p.Key)
			}
			written[p.Key] = i
		}
	}
	for i, s := range steps {
		for _, c := range s.If {
			if j, ok := written[c.Key]; ok && i != j {
				return fmt.Errorf("key %q is compared by one step and written by another", c.Key)
			}
		}
	}
	return nil
}

func (e *Engine) leasesHold(steps []store.Step) bool {
	for _, s := range steps {
		for _, p := range s.Then {
			if _, ok := e.leases[p.Lease]; p.Lease != 0 && !ok {
				return false
			}
		}
	}
	return true
}

func (e *Engine) compare(conds []store.Condition) store.StepResult {
	result := store.StepResult{OK: true}
	for _, c := range conds {
		var found store.KV
		if v := e.find(c.Key, e.rev); v != nil {
			found = v.KV
			found.Value = nil
		}
		have := found.ModRevision
		if c.Create {
			have = found.CreateRevision
		}
		result.OK = result.OK && have == c.Revision
		result.Found = append(result.Found, found)
	}
	if result.OK {
		result.Found = nil
	}
	return result
}

// write does one put at a revision and reports whether it changed anything.
func (e *Engine) write(p store.Put, rev int64) bool {
	h, ok := e.keys.Get(&history{key: p.Key})
	if !ok {
		h = &history{key: p.Key}
		e.keys.ReplaceOrInsert(h)
	}
	cur := h.at(math.MaxInt64)
	if cur == nil && p.Delete {
		return false
	}
	kv := store.KV{Key: p.Key, ModRevision: rev}
	if !p.Delete {
		kv.Value, kv.CreateRevision = p.Value, rev
		e.size += int64(len(p.Value))
	}
	event := store.RawEvent{KV: kv, Delete: p.Delete}
	if cur != nil {
		prev := cur.KV
		event.Prev = &prev
		if !p.Delete {
			event.CreateRevision = cur.CreateRevision
		}
		if cur.lease != 0 {
			delete(e.leases[cur.lease], p.Key)
		}
	}
	if p.Lease != 0 {
		e.leases[p.Lease][p.Key] = true
	}
	h.versions = append(h.versions, version{KV: event.KV, lease: p.Lease, deleted: p.Delete})
	e.log = append(e.log, event)
	return true
}

func (e *Engine) advance(wrote bool) {
	if wrote {
		e.rev++
		close(e.changed)
		e.changed = make(chan struct{})
	}
}

// CurrentRevision implements store.Engine.
func (e *Engine) CurrentRevision(ctx context.Context) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rev, e.check(ctx)
}

// Compact implements store.Engine.
func (e *Engine) Compact(ctx context.Context, rev int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return err
	}
	if rev > e.rev {
		return store.ErrFutureRevision
	}
	if rev <= e.compacted {
		return nil
	}
	e.compacted = rev
	i := sort.Search(len(e.log), func(i int) bool { return e.log[i].ModRevision > rev })
	e.log = append([]store.RawEvent(nil), e.log[i:]...)
	var gone []*history
	e.keys.Ascend(func(h *history) bool {
		e.trim(h, rev)
		if len(h.versions) == 0 {
			gone = append(gone, h)
		}
		return true
	})
	for _, h := range gone {
		e.keys.Delete(h)
	}
	return nil
}

// trim keeps the version visible at rev and all newer ones.
func (e *Engine) trim(h *history, rev int64) {
	i := sort.Search(len(h.versions), func(i int) bool { return h.versions[i].ModRevision > rev })
	if i > 0 && !h.versions[i-1].deleted {
		i--
	}
	for _, v := range h.versions[:i] {
		e.size -= int64(len(v.Value))
	}
	h.versions = append([]version(nil), h.versions[i:]...)
}

// Grant implements store.Engine.
func (e *Engine) Grant(ctx context.Context, ttlSeconds int64) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	e.lastLease++
	id := e.lastLease
	e.leases[id] = map[string]bool{}
	timer := e.opts.Clock.NewTimer(time.Duration(ttlSeconds) * time.Second)
	e.done.Add(1)
	go func() {
		defer e.done.Done()
		defer timer.Stop()
		select {
		case <-timer.C():
			e.expire(id)
		case <-e.closed:
		}
	}()
	return id, nil
}

func (e *Engine) expire(lease int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var keys []string
	for key := range e.leases[lease] {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	wrote := false
	for _, key := range keys {
		wrote = e.write(store.Put{Key: key, Delete: true}, e.rev+1) || wrote
	}
	delete(e.leases, lease)
	e.advance(wrote)
}

// Status implements store.Engine.
func (e *Engine) Status(ctx context.Context) (store.Status, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return store.Status{DBSize: e.size, InUse: e.size, Quota: e.opts.Quota}, e.check(ctx)
}

// Close implements store.Engine.
func (e *Engine) Close() error {
	e.mu.Lock()
	select {
	case <-e.closed:
	default:
		close(e.closed)
	}
	e.mu.Unlock()
	e.done.Wait()
	return nil
}
