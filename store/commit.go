package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hansa.dev/hansa/api"
)

// Bounds of a transaction, and of transactions under way at once. More of them
// would make each smaller: what waits for one is what shares the next.
const (
	txnObjects = 64
	txnBytes   = 1 << 20
	txnFlying  = 3
)

// txnTimeout is how long an engine may take before the outcome counts as
// unknown.
const txnTimeout = 15 * time.Second

// pending is a write that waits for its transaction.
type pending struct {
	ctx   context.Context
	table *table
	ref   api.Ref
	key   string     // of etcd
	obj   api.Object // nil deletes
	mod   int64      // expected modification revision of key; 0: absent
	lease int64
	fence *Fence
	sides []Side

	value  []byte // encoded
	slot   int    // that was encoded
	result committed
	done   chan struct{} // closed when result is there
}

// committed is what became of a pending write.
type committed struct {
	err error // of the transaction as a whole, or of the encoding
	StepResult
	revision int64
	rv       int64
}

// committer groups writes of many callers into transactions: while some are
// under way, the next ones collect. A write that comes when nothing is under
// way leaves at once.
type committer struct {
	store *Store

	mu     sync.Mutex
	queue  []*pending
	flying int
	idle   *sync.Cond
}

func newCommitter(s *Store) *committer {
	c := &committer{store: s}
	c.idle = sync.NewCond(&c.mu)
	return c
}

// submit hands over writes, which together make as few transactions as
// possible. Each is answered by its done channel.
func (c *committer) submit(writes ...*pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, writes...)
	if c.flying < txnFlying && len(c.queue) > 0 {
		c.flying++
		go c.run()
	}
}

// wait returns when nothing is under way.
func (c *committer) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.flying > 0 {
		c.idle.Wait()
	}
}

// run flushes until nothing is left to do.
func (c *committer) run() {
	for {
		c.mu.Lock()
		batch := c.take()
		if len(batch) == 0 {
			c.flying--
			c.idle.Broadcast()
			c.mu.Unlock()
			return
		}
		if len(c.queue) > 0 && c.flying < txnFlying {
			c.flying++
			go c.run()
		}
		c.mu.Unlock()
		c.flush(batch)
	}
}

// take gives the next batch. Writes that touch what another one of the batch
// writes stay behind: within a transaction neither would see the other.
func (c *committer) take() (batch []*pending) {
	touched := map[string]bool{} // true: written
	rest := c.queue[:0]
	for _, p := range c.queue {
		if len(batch) < txnObjects && p.fits(touched) {
			batch = append(batch, p)
			continue
		}
		rest = append(rest, p)
	}
	clear(c.queue[len(rest):])
	c.queue = rest
	return batch
}

// fits says whether a write may join those that touched keys, and if so adds
// its own.
func (p *pending) fits(touched map[string]bool) bool {
	if _, ok := touched[p.key]; ok {
		return false
	}
	for _, side := range p.sides {
		if _, ok := touched[root+side.Key]; ok {
			return false
		}
	}
	if p.fence != nil {
		if touched[p.fence.Key] {
			return false
		}
		touched[p.fence.Key] = false
	}
	touched[p.key] = true
	for _, side := range p.sides {
		touched[root+side.Key] = true
	}
	return true
}

// flush does one transaction. What does not fit by size goes into another.
func (c *committer) flush(batch []*pending) {
	for len(batch) > 0 {
		var ready, rest []*pending
		size := 0
		for i, p := range batch {
			if err := p.prepare(len(ready)); err != nil {
				p.answer(committed{err: err})
				continue
			}
			if size += p.size(); size > txnBytes && len(ready) > 0 {
				rest = batch[i:]
				break
			}
			ready = append(ready, p)
		}
		if len(ready) > 0 {
			c.transact(ready)
		}
		batch = rest
	}
}

// prepare encodes the object for its place in the transaction.
func (p *pending) prepare(slot int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.obj == nil {
		return nil
	}
	value, err := p.table.codec.encode(p.obj, slot)
	if err != nil {
		return fmt.Errorf("encode %s: %w", p.ref, err)
	}
	p.value, p.slot = value, slot
	return nil
}

func (p *pending) size() int {
	n := len(p.value)
	for _, side := range p.sides {
		n += len(side.Value)
	}
	return n
}

// step puts the conditions in this order: the object, the fence, the sides.
func (p *pending) step() Step {
	step := Step{If: []Condition{{Key: p.key, Revision: p.mod}}}
	if p.obj != nil {
		step.Then = append(step.Then, Put{Key: p.key, Value: p.value, Lease: p.lease})
	} else {
		step.Then = append(step.Then, Put{Key: p.key, Delete: true})
	}
	if p.fence != nil {
		step.If = append(step.If, Condition{Key: p.fence.Key, Revision: p.fence.CreateRevision, Create: true})
	}
	for _, side := range p.sides {
		key := root + side.Key
		step.If = append(step.If, Condition{Key: key, Revision: side.Revision})
		step.Then = append(step.Then, Put{Key: key, Value: side.Value, Delete: side.Value == nil})
	}
	return step
}

func (c *committer) transact(batch []*pending) {
	steps := make([]Step, len(batch))
	for i, p := range batch {
		steps[i] = p.step()
	}
	ctx, cancel := context.WithTimeout(c.store.life, txnTimeout)
	defer cancel()
	resp, err := c.store.engine.Txn(ctx, steps)
	if errors.Is(err, ErrLeaseGone) && len(batch) > 1 {
		// Nothing was written. Only those with the lease are to suffer.
		for i := range batch {
			c.transact(batch[i : i+1])
		}
		return
	}
	if err != nil {
		for _, p := range batch {
			p.answer(committed{err: err})
		}
		return
	}
	order := slotter{}
	for i, p := range batch {
		result := committed{StepResult: resp.Steps[i], revision: resp.Revision}
		if result.OK && p.obj == nil {
			result.rv = order.deletion(resp.Revision)
		} else if result.OK {
			result.rv = versionOf(resp.Revision, p.slot)
			order.written(&entry{mod: resp.Revision, rv: result.rv})
		}
		p.answer(result)
	}
}

func (p *pending) answer(result committed) {
	p.result = result
	close(p.done)
}
