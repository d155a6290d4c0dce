// Package definition keeps the status of CustomResourceDefinitions: which names a
// definition has, and whether it is established. It deletes the objects of
// definitions that are being deleted, and then lets them go. Serving what is
// defined is the API server's own affair.
package definition

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Name is the loop's name. It acts as the API server does: it is a part of that
// upstream.
const Name = "customresourcedefinition-controller"

// again is when a definition is looked at again whose objects are about to go.
const again = time.Second

// Loop is the controller. Its keys are the names of definitions.
type Loop struct {
	client      client.Interface
	definitions *api.Resource
	// looked has the generations whose schemas were looked into: that takes long,
	// and they do not change.
	looked map[types.UID]int64

	mu sync.Mutex
	// waiting are the definitions that the server has not yet taken notice of:
	// accepted ones that it does not serve, deleted ones that it does not close.
	waiting map[api.Key]bool
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{client: c, definitions: c.Registry().Must(apiextensionsv1.GroupName, "customresourcedefinitions"), looked: map[types.UID]int64{}, waiting: map[api.Key]bool{}}
}

// Name is the loop's name.
func (l *Loop) Name() string { return Name }

// Sources are the definitions, which may wait for each other's names, and what
// vanishes of those that are being deleted.
func (l *Loop) Sources() []controller.Source {
	sources := []controller.Source{{Resource: l.definitions, Keys: l.keys}}
	for _, r := range l.client.Registry().Resources() {
		if r.View == nil {
			continue
		}
		key := api.Key{Name: r.Plural + "." + r.Group}
		sources = append(sources, controller.Source{Resource: r, Keys: func(_, new api.Object) []api.Key {
			if new != nil || r.Closed == "" {
				return nil
			}
			return []api.Key{key}
		}})
	}
	return sources
}

func (l *Loop) keys(old, new api.Object) []api.Key {
	var keys []api.Key
	if new != nil {
		keys = append(keys, api.Key{Name: new.GetName()})
	}
	if old == nil || new != nil && !freed(old.(*definition), new.(*definition)) {
		return keys
	}
	for _, other := range l.group(old.(*definition).Spec.Group) {
		if waits(other) {
			keys = append(keys, api.Key{Name: other.Name})
		}
	}
	return keys
}

// freed says whether a definition has given up a name that it had.
func freed(old, new *definition) bool {
	a, b := &old.Status.AcceptedNames, &new.Status.AcceptedNames
	gone := func(had, has string) bool { return had != "" && had != has }
	return gone(a.Plural, b.Plural) || gone(a.Singular, b.Singular) || gone(a.Kind, b.Kind) || gone(a.ListKind, b.ListKind) ||
		slices.ContainsFunc(a.ShortNames, func(name string) bool { return !slices.Contains(b.ShortNames, name) })
}

// waits says whether a definition wants a name that it does not have.
func waits(d *definition) bool {
	return !equality.Semantic.DeepEqual(d.Spec.Names, d.Status.AcceptedNames)
}

// group are the definitions of a group.
func (l *Loop) group(name string) (out []*definition) {
	for obj := range l.client.View().List(l.definitions, "") {
		if d := obj.(*definition); d.Spec.Group == name {
			out = append(out, d)
		}
	}
	return out
}

// Waiting hands over the definitions that wait for the server.
func (l *Loop) Waiting() []api.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	keys := slices.Collect(maps.Keys(l.waiting))
	clear(l.waiting)
	return keys
}

func (l *Loop) wait(key api.Key, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on {
		l.waiting[key] = true
	} else {
		delete(l.waiting, key)
	}
}

// Step looks at one definition. It waits for the server before it looks at what
// is served, so that it misses no change.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	l.wait(key, true)
	after, pending, err := l.look(ctx, key, now)
	if !pending {
		l.wait(key, false)
	}
	return after, err
}

// look does one step; pending: the server has to do something next.
func (l *Loop) look(ctx context.Context, key api.Key, now time.Time) (after time.Duration, pending bool, err error) {
	d, ok := l.client.View().Get(l.definitions, key).(*definition)
	if !ok {
		return 0, false, nil
	}
	if d.DeletionTimestamp != nil {
		delete(l.looked, d.UID)
		return l.remove(ctx, d, now)
	}
	served := l.served(d)
	next := plan(d, l.group(d.Spec.Group), served != nil, l.looked[d.UID] != d.Generation, metav1.NewTime(now.Truncate(time.Second)))
	if next != nil {
		return 0, false, l.update(ctx, next)
	}
	l.looked[d.UID] = d.Generation
	return 0, served == nil && apihelpers.IsCRDConditionTrue(d, apiextensionsv1.NamesAccepted), nil
}

// served is the row of what a definition defines, or nil.
func (l *Loop) served(d *definition) *api.Resource {
	return l.client.Registry().ByPrefix(d.Spec.Group + "/" + d.Spec.Names.Plural)
}

func (l *Loop) update(ctx context.Context, d *definition) error {
	_, err := l.client.Update(ctx, l.definitions, d, "status")
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("update status of definition %s: %w", d.Name, err)
}

// remove deletes what a definition defines, and once nothing is left lets the
// definition go. What vanishes wakes the loop.
func (l *Loop) remove(ctx context.Context, d *definition, now time.Time) (after time.Duration, pending bool, err error) {
	if !apihelpers.CRDHasFinalizer(d, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return 0, false, nil
	}
	next := d.DeepCopy()
	set := func(c condition) { kinds.SetDefinitionCondition(next, c, metav1.NewTime(now.Truncate(time.Second))) }
	r := l.served(d)
	switch {
	case r == nil && apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established):
		// A kind of the server's own has the name.
		set(terminating(apiextensionsv1.ConditionFalse, "OverlappingBuiltInResource", "instances overlap with built-in resources in storage"))
	case r == nil:
		set(terminating(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established"))
	default:
		if c := apihelpers.FindCRDCondition(d, apiextensionsv1.Terminating); c == nil || c.Reason == "InstanceDeletionPending" {
			set(terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress"))
			return 0, false, l.update(ctx, next)
		}
		if r.Closed == "" {
			return 0, true, nil // something may still be created
		}
		left, err := l.clear(ctx, r)
		if err != nil {
			set(terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", "could not issue all deletes: "+err.Error()))
			_ = l.update(ctx, next)
			return 0, false, fmt.Errorf("delete all %s: %w", r.GroupResource(), err)
		}
		if left {
			return again, false, nil // what vanishes wakes us earlier
		}
		set(terminating(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances"))
	}
	apihelpers.CRDRemoveFinalizer(next, apiextensionsv1.CustomResourceCleanupFinalizer)
	return 0, false, l.update(ctx, next)
}

// clear deletes all objects of a resource, and says whether some take their time.
func (l *Loop) clear(ctx context.Context, r *api.Resource) (left bool, err error) {
	var live []api.Object
	for o := range l.client.View().List(r, "") {
		if o.GetDeletionTimestamp() == nil {
			live = append(live, o)
		}
	}
	err = controller.AtOnce(ctx, len(live), func(ctx context.Context, i int) error {
		uid := live[i].GetUID()
		err := l.client.Delete(ctx, api.RefTo(r, live[i]), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
	for range l.client.View().List(r, "") {
		return true, err
	}
	return false, err
}
