// Package resourcequota keeps the status of ResourceQuotas right: what is limited,
// and what is used of it. Admission adds to what is used before an object is
// written; this loop counts anew when something is gone, or a write that had been
// charged failed, and now and then in any case.
package resourcequota

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/quota"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/charges"
)

const (
	// resync is how often every quota is counted anew.
	resync = 5 * time.Minute
	// second is when a quota whose limits are new is counted once more: what was
	// admitted before it was there may be stored after it was counted.
	second = 2 * time.Second
)

// Loop is the resource quota controller. Its keys are quotas.
type Loop struct {
	client client.Interface
	quotas *api.Resource
	kinds  *quota.Kinds
	book   *charges.Book
}

// New makes the loop; it acts as the client's identity. book has what admission
// in this process has charged for writes under way.
func New(c client.Interface, book *charges.Book) *Loop {
	return &Loop{client: c, quotas: c.Registry().Must("", "resourcequotas"), kinds: quota.NewKinds(c.Registry(), c.View()), book: book}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "resourcequota-controller" }

// Sources are quotas whose limits change, and objects that go or count less. That
// admission has charged a quota wakes nobody.
func (l *Loop) Sources() []controller.Source {
	var sources []controller.Source
	for _, r := range l.client.Registry().Resources() {
		kind := l.kinds.Of(r)
		if kind == nil || !r.Offers("delete") {
			continue
		}
		sources = append(sources, controller.Source{Resource: r, Keys: func(old, new api.Object) []api.Key {
			var keys []api.Key
			if r == l.quotas && new != nil && (old == nil || changed(new.(*corev1.ResourceQuota), old.(*corev1.ResourceQuota))) {
				keys = append(keys, api.Key{Namespace: new.GetNamespace(), Name: new.GetName()})
			}
			if old == nil || new != nil && !kind.Frees(new, old) {
				return keys
			}
			for obj := range l.client.View().List(l.quotas, old.GetNamespace()) {
				if len(kind.Among(obj.(*corev1.ResourceQuota).Spec.Hard)) > 0 {
					keys = append(keys, api.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()})
				}
			}
			return keys
		}})
	}
	return sources
}

// changed says whether what a quota limits has changed, or somebody has set what
// it says of that.
func changed(q, old *corev1.ResourceQuota) bool {
	return !equality.Semantic.DeepEqual(q.Spec, old.Spec) || !equality.Semantic.DeepEqual(q.Status.Hard, old.Status.Hard)
}

// Listen wakes the quotas of a namespace in which a write that was charged failed.
func (l *Loop) Listen(wake func(api.Key)) (cancel func()) {
	return l.book.Listen(func(namespace string) {
		for obj := range l.client.View().List(l.quotas, namespace) {
			wake(api.Key{Namespace: namespace, Name: obj.GetName()})
		}
	})
}

// Waiting are the quotas that limit what nobody could count so far: objects of
// kinds that were not served.
func (l *Loop) Waiting() []api.Key {
	var keys []api.Key
	for obj := range l.client.View().List(l.quotas, "") {
		q := obj.(*corev1.ResourceQuota)
		for name := range q.Spec.Hard {
			if _, counted := q.Status.Used[name]; !counted {
				keys = append(keys, api.Key{Namespace: q.Namespace, Name: q.Name})
				break
			}
		}
	}
	return keys
}

// Step counts what is used of one quota.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	q, pending := l.read(key)
	if q == nil {
		return 0, nil
	}
	after := resync
	status, due := l.count(q, pending, now)
	if !due.IsZero() {
		after = min(after, due.Sub(now)+time.Millisecond)
	}
	if !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
		after = min(after, second)
	} else if q.Status.Used != nil && quota.Equal(q.Status.Used, status.Used) {
		return after, nil
	}
	next := q.DeepCopy()
	next.Status = status
	if _, err := l.client.Update(ctx, l.quotas, next, "status"); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("write usage of quota %s: %w", key, err)
	}
	return after, nil
}

// read gives a quota as it is, and what it counts for writes under way. What is
// charged later changes the quota, and so makes the loop's write a conflict.
func (l *Loop) read(key api.Key) (*corev1.ResourceQuota, []charge) {
	space := l.book.Open(key.Namespace)
	defer space.Close()
	space.Lock()
	defer space.Unlock()
	q, ok := l.client.View().Get(l.quotas, key).(*corev1.ResourceQuota)
	if !ok {
		return nil, nil
	}
	var pending []charge
	for _, c := range space.All() {
		if amounts := c.Amounts[q.UID]; amounts != nil {
			pending = append(pending, charge{uid: c.UID, old: c.Old, amounts: amounts})
		}
	}
	return q, pending
}

// charge is what is counted for the write of one object, until it is seen.
type charge struct {
	uid     types.UID
	old     string // version that is replaced; empty: none
	amounts corev1.ResourceList
}

// count is the status that a quota should have. due is when a pod counts no more
// although nothing happens to it; zero for never.
func (l *Loop) count(q *corev1.ResourceQuota, pending []charge, now time.Time) (status corev1.ResourceQuotaStatus, due time.Time) {
	used := corev1.ResourceList{}
	waits := map[types.UID]string{}
	for _, c := range pending {
		waits[c.uid] = c.old
	}
	seen := map[types.UID]bool{}
	known := corev1.ResourceList{}
	for _, r := range l.client.Registry().Resources() {
		kind := l.kinds.Of(r)
		if kind == nil {
			continue
		}
		names := kind.Among(q.Spec.Hard)
		if len(names) == 0 {
			continue
		}
		for _, name := range names {
			known[name] = resource.Quantity{Format: resource.DecimalSI}
		}
		for obj := range l.client.View().List(r, q.Namespace) {
			if old, ok := waits[obj.GetUID()]; ok && obj.GetResourceVersion() != old {
				seen[obj.GetUID()] = true
			}
			if !kind.InScopes(obj, &q.Spec) {
				continue
			}
			quota.Add(used, kind.Usage(obj, now))
			if p, ok := obj.(*corev1.Pod); ok {
				if at, ok := quota.Overdue(p); ok && at.After(now) && (due.IsZero() || at.Before(due)) {
					due = at
				}
			}
		}
	}
	for _, c := range pending {
		if !seen[c.uid] {
			quota.Add(used, c.amounts)
		}
	}
	quota.Add(known, quota.Mask(used, known))
	// What nobody can count stays as it was.
	for name, amount := range quota.Mask(q.Status.Used, q.Spec.Hard) {
		if _, ok := known[name]; !ok {
			known[name] = amount
		}
	}
	hard := corev1.ResourceList{}
	quota.Add(hard, q.Spec.Hard)
	return corev1.ResourceQuotaStatus{Hard: hard, Used: known}, due
}
