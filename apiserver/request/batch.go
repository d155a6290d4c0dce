package request

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// Batch collects writes of one process and commits them in as few transactions
// as possible. Each succeeds or fails alone; none is done before Commit. It
// belongs to one goroutine.
type Batch struct {
	h       *Handler
	ctx     context.Context
	writes  []store.Write
	answers []func(store.Result)
	// alone are what cannot share a transaction, or has to be tried again.
	alone []func()
	// slow are those that may have to wait, for others who are asked or for their
	// turn at a quota. They do so together: what hangs holds up nothing else.
	slow []slow
}

type slow struct {
	do     func() (runtime.Object, error)
	answer func(runtime.Object, error)
}

// together is how many of a batch may wait at once.
const together = 64

// NewBatch begins a batch.
func (h *Handler) NewBatch(ctx context.Context) *Batch { return &Batch{h: h, ctx: ctx} }

// Create adds a create. answer is called with the outcome, at the latest by
// Commit.
func (b *Batch) Create(info *Info, body Body, opts *metav1.CreateOptions, answer func(runtime.Object, error)) {
	if b.h.Admission.Asks(info.row()) {
		b.slow = append(b.slow, slow{func() (runtime.Object, error) {
			return b.h.Create(info.Audit.Context(b.ctx), info, body, opts)
		}, answer})
		return
	}
	c, obj, err := b.h.prepareCreate(b.ctx, info, body, opts)
	if err != nil {
		answer(nil, err)
		return
	}
	fresh := obj
	again := func() { answer(c.store(b.ctx, obj)) }
	if b.h.Admission.Waits(c.attributes(obj)) {
		b.slow = append(b.slow, slow{func() (runtime.Object, error) { return c.store(b.ctx, obj) }, answer})
		return
	}
	if c.dryRun || b.h.allocates(info.row()) {
		b.alone = append(b.alone, again)
		return
	}
	generated := obj.GetName() == "" && obj.GetGenerateName() != ""
	if generated {
		obj = c.name(fresh)
	}
	b.h.fillSystemFields(fresh)
	if _, err := c.finish(b.ctx, fresh); err != nil {
		c.end(err)
		answer(nil, err)
		return
	}
	b.add(store.Write{Ref: api.RefTo(info.row(), fresh), Create: fresh, Options: b.h.writeOptions(info.row())}, func(r store.Result) {
		c.end(r.Err)
		if generated && apierrors.IsAlreadyExists(r.Err) {
			b.alone = append(b.alone, again)
			return
		}
		answer(c.stored(b.ctx, api.RefTo(info.row(), fresh), r.Object, r.Err))
	})
}

// Update adds an update.
func (b *Batch) Update(info *Info, body Body, opts *metav1.UpdateOptions, answer func(runtime.Object, error)) {
	if b.h.Admission.Asks(info.row()) {
		b.slow = append(b.slow, slow{func() (runtime.Object, error) {
			obj, _, err := b.h.Update(info.Audit.Context(b.ctx), info, body, opts)
			return obj, err
		}, answer})
		return
	}
	c, err := b.h.prepareUpdate(b.ctx, info, body, opts)
	if err == nil {
		err = checkPathName(info.Name)
	}
	shown := func(obj api.Object, err error) {
		if err != nil {
			answer(nil, err)
			return
		}
		answer(b.h.answer(info, obj))
	}
	switch {
	case err != nil:
		answer(nil, err)
	case c.dryRun || b.h.allocates(info.row()):
		b.alone = append(b.alone, func() { shown(c.run(b.ctx)) })
	default:
		b.add(store.Write{
			Ref:     info.ref(),
			Change:  func(cur api.Object) (store.Outcome, error) { return c.attempt(b.ctx, cur) },
			Options: b.h.writeOptions(info.row()),
		}, func(r store.Result) {
			c.ended(r.Err)
			shown(r.Object, r.Err)
		})
	}
}

// Post adds a body for a subresource that is written into the object: a
// binding.
func (b *Batch) Post(info *Info, body Body, answer func(runtime.Object, error)) {
	if b.h.Admission.Asks(info.row()) {
		b.slow = append(b.slow, slow{func() (runtime.Object, error) {
			return b.h.Create(info.Audit.Context(b.ctx), info, body, &metav1.CreateOptions{})
		}, answer})
		return
	}
	decoded, err := b.h.preparePost(b.ctx, info, body, &metav1.CreateOptions{})
	if err != nil {
		answer(nil, err)
		return
	}
	sub := info.sub()
	if sub == nil || sub.Put == nil {
		answer(nil, apierrors.NewMethodNotSupported(info.resource(), "create"))
		return
	}
	b.add(store.Write{
		Ref:     info.ref(),
		Change:  putInto(info, decoded, b.h.Clock.Now()),
		Options: b.h.writeOptions(info.row()),
	}, func(r store.Result) { answer(r.Object, r.Err) })
}

func (b *Batch) add(w store.Write, answer func(store.Result)) {
	b.writes = append(b.writes, w)
	b.answers = append(b.answers, answer)
}

// Commit does all writes and calls all answers.
func (b *Batch) Commit() {
	type result struct {
		obj runtime.Object
		err error
	}
	results := make([]result, len(b.slow))
	under := make(chan struct{}, together)
	var done sync.WaitGroup
	for i, a := range b.slow {
		done.Go(func() {
			under <- struct{}{}
			results[i].obj, results[i].err = a.do()
			<-under
		})
	}
	for i, r := range b.h.Store.Batch(b.ctx, b.writes) {
		b.answers[i](r)
	}
	for _, do := range b.alone {
		do()
	}
	done.Wait()
	for i, a := range b.slow {
		a.answer(results[i].obj, results[i].err)
	}
	b.writes, b.answers, b.alone, b.slow = nil, nil, nil, nil
}
