package store

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
)

// leaseGroup's objects may be created although the database is nearly full:
// without them the cluster would not even know its leaders and live nodes.
const leaseGroup = "coordination.k8s.io"

// Create stores a new object under its namespace and name, or fails with
// AlreadyExists.
func (s *Store) Create(ctx context.Context, r *api.Resource, obj api.Object, o WriteOptions) (api.Object, error) {
	return s.do(ctx, &attempt{write: Write{Ref: api.RefTo(r, obj), Create: obj, Options: o}})
}

// Update calls change with the newest object (nil if there is none; then an
// Outcome.Object creates it) and writes the outcome, again and again until no
// other write came in between. change must be pure; cur is frozen. An error of
// change is answered as it is.
//
// A deletion answers the last state with the resource version of the deletion.
func (s *Store) Update(ctx context.Context, ref api.Ref, o WriteOptions, change func(cur api.Object) (Outcome, error)) (api.Object, error) {
	return s.do(ctx, &attempt{write: Write{Ref: ref, Change: change, Options: o}})
}

// Delete removes an object if check (which may be nil) has no objection, and
// answers its last state with the resource version of the deletion.
func (s *Store) Delete(ctx context.Context, ref api.Ref, o WriteOptions, check func(cur api.Object) error) (api.Object, error) {
	return s.Update(ctx, ref, o, func(cur api.Object) (Outcome, error) {
		if cur == nil {
			return Outcome{}, errNotFound(ref)
		}
		if check != nil {
			if err := check(cur); err != nil {
				return Outcome{}, err
			}
		}
		return Outcome{Delete: true}, nil
	})
}

// Batch does many writes in few transactions. Each succeeds or fails alone, and
// their order is not kept. Results are in the order of ws.
func (s *Store) Batch(ctx context.Context, ws []Write) []Result {
	results := make([]Result, len(ws))
	open := map[int]*attempt{}
	for i := range ws {
		open[i] = &attempt{write: ws[i]}
	}
	for len(open) > 0 {
		var writes []*pending
		for i := range ws {
			a := open[i]
			if a == nil {
				continue
			}
			p, obj, err := s.begin(ctx, a)
			if p == nil {
				results[i] = Result{obj, err}
				delete(open, i)
				continue
			}
			writes = append(writes, p)
		}
		s.commits.submit(writes...)
		for i := range ws {
			a := open[i]
			if a == nil {
				continue
			}
			if obj, again, err := s.conclude(ctx, a); !again {
				results[i] = Result{obj, err}
				delete(open, i)
			}
		}
	}
	return results
}

// attempt is a write on its way; it may take several transactions.
type attempt struct {
	write Write
	cur   *entry // what it was derived from
	out   Outcome
	sent  *pending
}

func (s *Store) do(ctx context.Context, a *attempt) (api.Object, error) {
	for {
		p, obj, err := s.begin(ctx, a)
		if p == nil {
			return obj, err
		}
		s.commits.submit(p)
		obj, again, err := s.conclude(ctx, a)
		if !again {
			return obj, err
		}
	}
}

// begin derives the write from the copy. Without a pending write, the answer
// is there already.
func (s *Store) begin(ctx context.Context, a *attempt) (*pending, api.Object, error) {
	ref := a.write.Ref
	t := s.table(ref.Resource)
	key := t.key(ref)
	if !t.owns(key) {
		return nil, nil, apierrors.NewInternalError(fmt.Errorf("%s cannot be stored under this name", ref))
	}
	if err := s.reached.err(); err != nil {
		return nil, nil, err
	}
	if !s.layout.Load().has(t) {
		return nil, nil, errGone(ref.Resource)
	}
	for {
		a.cur = s.snap.Load().of(t).get(key)
		obj, err := a.derive(s)
		if obj == nil && err == nil {
			break
		}
		// The answer rests on the copy alone, which may be old.
		if stale := s.sync(ctx); stale != nil {
			return nil, nil, stale
		}
		if s.snap.Load().of(t).get(key) == a.cur {
			return nil, obj, err
		}
	}
	lease, err := s.leases.get(ctx, a.write.Options.TTL)
	if err != nil {
		return nil, nil, errWrite(ref, err)
	}
	p := &pending{
		ctx:   ctx,
		table: t,
		ref:   ref,
		key:   t.prefix + key,
		obj:   a.out.Object,
		lease: lease,
		fence: a.write.Options.Fence,
		sides: append(append([]Side(nil), a.write.Options.With...), a.out.With...),
		done:  make(chan struct{}),
	}
	if a.out.Delete {
		p.obj = nil
	}
	if a.cur != nil {
		p.mod = a.cur.mod
	}
	a.sent = p
	return p, nil, nil
}

// derive computes the outcome from a.cur. It answers the object or the error
// with which the write ends, or neither if there is something to write.
func (a *attempt) derive(s *Store) (api.Object, error) {
	w := &a.write
	if w.Create != nil {
		a.out = Outcome{Object: w.Create}
		if a.cur != nil {
			return nil, errExists(w.Ref)
		}
		if s.full.Load() && w.Ref.Resource.Group != leaseGroup {
			return nil, errFull(fmt.Sprintf("cannot create %s", w.Ref))
		}
		return nil, nil
	}
	var cur api.Object
	if a.cur != nil {
		cur = a.cur.obj
	}
	var err error
	if a.out, err = w.Change(cur); err != nil {
		return nil, err
	}
	switch {
	case a.out.Unchanged || a.out.Delete:
		if cur == nil {
			return nil, errNotFound(w.Ref)
		}
		if a.out.Unchanged && !s.stale(a.cur, w.Ref.Resource) {
			return cur, nil
		}
		if a.out.Unchanged {
			a.out = Outcome{Object: cur.DeepCopyObject().(api.Object)}
		}
	case a.out.Object == nil:
		return nil, apierrors.NewInternalError(fmt.Errorf("the update of %s came to nothing", w.Ref))
	}
	return nil, nil
}

// conclude waits for a write that was sent. It says whether to try again, as
// somebody else wrote in between.
func (s *Store) conclude(ctx context.Context, a *attempt) (obj api.Object, again bool, err error) {
	p := a.sent
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	r := p.result
	if errors.Is(r.err, ErrLeaseGone) {
		s.leases.forget(p.lease)
		return nil, true, nil
	}
	if r.err != nil {
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		return nil, false, errWrite(p.ref, r.err)
	}
	if err := s.reached.wait(ctx, r.revision); err != nil {
		return nil, false, err
	}
	if r.OK {
		obj, err := s.written(a)
		return obj, false, err
	}
	return s.refused(a)
}

// written gives the object that a successful write left.
func (s *Store) written(a *attempt) (api.Object, error) {
	p, rv := a.sent, a.sent.result.rv
	if p.obj == nil {
		last := a.cur.obj
		if a.out.Object != nil {
			last = a.out.Object
		}
		return withVersion(last, rv), nil
	}
	key := p.table.key(p.ref)
	if e := s.snap.Load().of(p.table).get(key); e != nil && e.rv == rv {
		return e.obj, nil
	}
	// Written again already: the copy has a newer one.
	e, err := p.table.entry(key, KV{Key: p.key, Value: p.value, ModRevision: p.result.revision})
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("read back %s: %w", p.ref, err))
	}
	return e.obj, nil
}

// refused finds out which condition did not hold.
func (s *Store) refused(a *attempt) (obj api.Object, again bool, err error) {
	p, found := a.sent, a.sent.result.Found
	if p.fence != nil && found[1].CreateRevision != p.fence.CreateRevision {
		return nil, false, conflictBecause(p.ref, CauseFenced,
			fmt.Sprintf("the writer is no longer the leader of %s", p.fence.Key))
	}
	if found[0].ModRevision != p.mod {
		if a.write.Create != nil {
			return nil, false, errExists(p.ref)
		}
		return nil, true, nil
	}
	for i, side := range p.sides {
		if found[len(found)-len(p.sides)+i].ModRevision != side.Revision {
			return nil, false, conflictBecause(p.ref, CauseSide, fmt.Sprintf("key %s was modified meanwhile", side.Key))
		}
	}
	return nil, false, apierrors.NewInternalError(errors.New("a transaction was refused although its conditions hold"))
}

// stale says that an entry is not kept as it would be written now (KV.Stale).
func (s *Store) stale(e *entry, r *api.Resource) bool {
	if o, ok := s.engine.(Outdater); ok && e.mod <= o.Outdated(s.table(r).prefix+e.key) {
		return true
	}
	return e.stale
}
