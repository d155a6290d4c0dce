// Package resourcequota holds what is written in a namespace to its
// ResourceQuotas: a write that may count more is charged to them before it is
// stored, and refused where it does not fit.
//
// Writes of one namespace take turns, all that came meanwhile in one: each quota
// is written once a turn, by compare-and-swap, so several servers can charge the
// same quota. Charges are never taken back here; the loop counts anew what was
// charged for writes that failed.
package resourcequota

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/quota"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
	"hansa.dev/hansa/internal/charges"
	"hansa.dev/hansa/store"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Store writes quotas.
type Store interface {
	Update(ctx context.Context, ref api.Ref, o store.WriteOptions, change func(cur api.Object) (store.Outcome, error)) (api.Object, error)
}

// patience is how long the quotas of a turn may take to be written.
const patience = 10 * time.Second

// Plugin is a validator.
type Plugin struct {
	view               View
	store              Store
	book               *charges.Book
	clock              clock.PassiveClock
	kinds              *quota.Kinds
	quotas, namespaces *api.Resource
	limited            []Limited

	mu    sync.Mutex
	lines map[string]*line // by namespace, while somebody is there
}

// New is the plugin over a view. It notes in book what it charges, and refuses
// what limited says must be covered by a quota and is not.
func New(reg *api.Registry, view View, s Store, book *charges.Book, clk clock.PassiveClock, limited []Limited) *Plugin {
	return &Plugin{
		view: view, store: s, book: book, clock: clk, kinds: quota.NewKinds(reg, view), limited: limited,
		quotas: reg.Must("", "resourcequotas"), namespaces: reg.Must("", "namespaces"), lines: map[string]*line{},
	}
}

// Waits says whether a write may have to wait for its quotas to be written.
func (p *Plugin) Waits(a *admission.Attributes) bool {
	return a.Namespace != "" && a.Resource != p.namespaces && len(p.list(a.Namespace)) > 0
}

func (p *Plugin) list(namespace string) []*corev1.ResourceQuota {
	var all []*corev1.ResourceQuota
	for obj := range p.view.List(p.quotas, namespace) {
		all = append(all, obj.(*corev1.ResourceQuota))
	}
	return all
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Namespace == "" || a.Resource == p.namespaces || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	if len(p.limited) == 0 && len(p.list(a.Namespace)) == 0 {
		return nil
	}
	kind := p.kinds.Of(a.Resource)
	obj, ok := a.Object.(api.Object)
	if kind == nil || !ok || !kind.Charges(obj, a.Old, a.Subresource) {
		return nil
	}
	w := &write{p: p, a: a, kind: kind, obj: obj, done: make(chan struct{})}
	p.queue(w)
	if w.err == nil && w.charge != nil {
		a.OnEnd(func(err error) { w.charge.End(err == nil) })
	}
	return w.err
}

// write is one that waits to be charged.
type write struct {
	p    *Plugin
	a    *admission.Attributes
	kind *quota.Kind
	obj  api.Object
	// done is closed when it is decided, or when it is to lead the next turn.
	done  chan struct{}
	leads bool

	err    error
	charge *charges.Charge // once a quota has been charged
}

// line is those who wait in one namespace.
type line struct{ waiting []*write }

// queue returns when the write is decided. The first who comes leads: it decides
// for all that have come meanwhile, and hands the lead to the next. Nobody leaves
// the line, so that what was charged is known; a turn ends in time by itself.
func (p *Plugin) queue(w *write) {
	namespace := w.a.Namespace
	p.mu.Lock()
	l := p.lines[namespace]
	if l != nil {
		l.waiting = append(l.waiting, w)
		p.mu.Unlock()
		<-w.done
		if !w.leads {
			return
		}
		p.mu.Lock()
	} else {
		l = &line{waiting: []*write{w}}
		p.lines[namespace] = l
	}
	turn := l.waiting
	l.waiting = nil
	p.mu.Unlock()

	p.decide(namespace, turn)
	p.mu.Lock()
	if len(l.waiting) == 0 {
		delete(p.lines, namespace)
	} else {
		l.waiting[0].leads = true
		close(l.waiting[0].done)
	}
	p.mu.Unlock()
	for _, other := range turn {
		if other != w {
			close(other.done)
		}
	}
}

// decide charges a turn to every quota of the namespace.
func (p *Plugin) decide(namespace string, turn []*write) {
	space := p.book.Open(namespace)
	defer space.Close()
	space.Lock()
	quotas := p.list(namespace)
	// First what the copy says: who is refused by one quota is not charged to
	// another.
	seen := make([]*corev1.ResourceQuota, len(quotas))
	for i := range quotas {
		seen[i] = quotas[i].DeepCopy()
	}
	changed := map[types.UID]bool{}
	for _, w := range turn {
		amounts, err := w.against(seen)
		if w.err = err; err != nil || w.a.DryRun {
			continue
		}
		for i, q := range seen {
			if len(amounts[i]) > 0 {
				quota.Add(q.Status.Used, amounts[i])
				changed[q.UID] = true
			}
		}
	}
	for _, q := range quotas {
		if changed[q.UID] {
			p.charge(space, q, turn)
		}
	}
	space.Unlock()
	for _, w := range turn {
		if w.err != nil && w.charge != nil {
			w.charge.End(false)
			w.charge = nil
		}
	}
}

// charge writes one quota with what the writes that are still wanted count in it.
// The caller holds the space.
func (p *Plugin) charge(space *charges.Space, q *corev1.ResourceQuota, turn []*write) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	refused := make([]error, len(turn))
	amounts := make([]corev1.ResourceList, len(turn))
	change := func(cur api.Object) (store.Outcome, error) {
		clear(refused)
		clear(amounts)
		if cur == nil || cur.GetUID() != q.UID {
			return store.Outcome{Unchanged: true}, nil // who removes a quota lifts its limits
		}
		next := cur.DeepCopyObject().(*corev1.ResourceQuota)
		some := false
		for i, w := range turn {
			if w.err != nil || w.a.DryRun {
				continue
			}
			amounts[i], refused[i] = w.fits(next)
			if refused[i] == nil && len(amounts[i]) > 0 {
				some = true
				quota.Add(next.Status.Used, amounts[i])
			}
		}
		return store.Outcome{Object: next, Unchanged: !some}, nil
	}
	_, err := p.store.Update(ctx, api.RefTo(p.quotas, q), store.WriteOptions{}, change)
	if apierrors.IsNotFound(err) {
		return
	}
	for i, w := range turn {
		switch {
		case w.err != nil || w.a.DryRun:
			continue
		case refused[i] != nil:
			w.err = refused[i]
			continue
		case err != nil && w.matches(q, w.obj):
			w.err = refusal.Forbidden(w.a, "cannot charge quota %s: %v; try again", q.Name, err)
		}
		if len(amounts[i]) == 0 {
			continue
		}
		// Also when it is not known whether the quota was written.
		if w.charge == nil {
			w.charge = &charges.Charge{UID: w.obj.GetUID(), Amounts: map[types.UID]corev1.ResourceList{}}
			if w.a.Old != nil {
				w.charge.Old = w.a.Old.GetResourceVersion()
			}
			space.Add(w.charge)
		}
		w.charge.Amounts[q.UID] = amounts[i]
	}
}

// fits answers with what a write counts in one quota, or why it may not.
func (w *write) fits(q *corev1.ResourceQuota) (corev1.ResourceList, error) {
	if !w.matches(q, w.obj) {
		return nil, nil
	}
	if err := w.ready(q); err != nil {
		return nil, err
	}
	requested := quota.Mask(w.grows(w.old(q)), q.Status.Hard)
	if w.a.Subresource == "status" {
		return requested, nil // what a driver has done already
	}
	exceeded := corev1.ResourceList{}
	for name, amount := range requested {
		sum := q.Status.Used[name].DeepCopy()
		sum.Add(amount)
		if sum.Cmp(q.Status.Hard[name]) > 0 {
			exceeded[name] = amount
		}
	}
	if len(exceeded) > 0 {
		return nil, refusal.Forbidden(w.a, "exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
			amountsOf(exceeded), amountsOf(quota.Mask(q.Status.Used, exceeded)), amountsOf(quota.Mask(q.Status.Hard, exceeded)))
	}
	return requested, nil
}

// ready says why a write cannot be held to a quota that it counts in.
func (w *write) ready(q *corev1.ResourceQuota) error {
	limited := w.kind.Among(q.Status.Hard)
	if err := w.kind.Lacks(w.obj, limited); err != nil {
		return refusal.Forbidden(w.a, "failed quota: %s: %v", q.Name, err)
	}
	for _, name := range limited {
		if _, known := q.Status.Used[name]; !known {
			slices.Sort(limited)
			return refusal.Forbidden(w.a, "status unknown for quota: %s, resources: %s", q.Name, join(limited))
		}
	}
	return nil
}

// matches says whether an object counts in a quota at all.
func (w *write) matches(q *corev1.ResourceQuota, obj api.Object) bool {
	return len(w.kind.Among(q.Status.Hard)) > 0 && w.kind.InScopes(obj, &q.Spec)
}

// old is the object of an update where the quota counts it already, else nil: who
// comes into a scope counts as if new.
func (w *write) old(q *corev1.ResourceQuota) api.Object {
	if w.a.Old == nil || !w.matches(q, w.a.Old) {
		return nil
	}
	return w.a.Old
}

// grows is what a write counts more than the object it replaces.
func (w *write) grows(old api.Object) corev1.ResourceList {
	now := w.p.clock.Now()
	var before corev1.ResourceList
	if old != nil {
		before = w.kind.Usage(old, now)
	}
	return quota.More(w.kind.Usage(w.obj, now), before)
}

// against answers with what a write counts in each quota, in their order.
func (w *write) against(quotas []*corev1.ResourceQuota) ([]corev1.ResourceList, error) {
	for _, q := range quotas {
		if w.matches(q, w.obj) {
			if err := w.ready(q); err != nil {
				return nil, err
			}
		}
	}
	if err := w.covered(quotas); err != nil {
		return nil, err
	}
	amounts := make([]corev1.ResourceList, len(quotas))
	for i, q := range quotas {
		var err error
		if amounts[i], err = w.fits(q); err != nil {
			return nil, err
		}
	}
	return amounts, nil
}

// amountsOf writes a list as refusals have it.
func amountsOf(list corev1.ResourceList) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		q := list[name]
		parts = append(parts, string(name)+"="+q.String())
	}
	return strings.Join(parts, ",")
}

func join(names []corev1.ResourceName) string {
	var parts []string
	for _, n := range names {
		parts = append(parts, string(n))
	}
	return strings.Join(parts, ",")
}
