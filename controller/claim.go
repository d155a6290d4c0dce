package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// OwnerRef makes owner the controller of what carries the reference.
func OwnerRef(owner metav1.Object, gvk schema.GroupVersionKind) *metav1.OwnerReference {
	return metav1.NewControllerRef(owner, gvk)
}

// ControlledBy says whether owner is the controller of obj.
func ControlledBy(obj, owner metav1.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == owner.GetUID()
}

// Claims sorts what a selector may concern: what the owner has, what it should
// adopt and what it should let go of.
type Claims[T api.Object] struct {
	Owned   []T // stays
	Adopt   []T // matches and has no controller
	Release []T // is ours and matches no more
}

// Claim decides about candidates, as Kubernetes' controllers do: an owner that
// is being deleted adopts nothing, and what is being deleted is neither adopted
// nor released.
func Claim[T api.Object](owner metav1.Object, selector labels.Selector, candidates []T) Claims[T] {
	var c Claims[T]
	for _, o := range candidates {
		ref := metav1.GetControllerOfNoCopy(o)
		matches := selector.Matches(labels.Set(o.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			c.Owned = append(c.Owned, o)
		case ref != nil:
			if owner.GetDeletionTimestamp() == nil {
				c.Release = append(c.Release, o)
			}
		case matches && owner.GetDeletionTimestamp() == nil && o.GetDeletionTimestamp() == nil:
			c.Adopt = append(c.Adopt, o)
		}
	}
	return c
}

// Owned are the objects of a resource that an owner controls.
func Owned[T api.Object](view client.View, r *api.Resource, owner metav1.Object) []T {
	var owned []T
	for o := range view.ByIndex(r, api.IndexOwner, string(owner.GetUID())) {
		if ControlledBy(o, owner) {
			owned = append(owned, o.(T))
		}
	}
	return owned
}

// Candidates are the objects of a resource that Claim may concern: what an owner
// controls, and what nobody does in its namespace. The resource is one that
// api.IndexOrphan is of.
func Candidates[T api.Object](view client.View, r *api.Resource, owner metav1.Object) []T {
	candidates := Owned[T](view, r, owner)
	for o := range view.ByIndex(r, api.IndexOrphan, owner.GetNamespace()) {
		candidates = append(candidates, o.(T))
	}
	return candidates
}

// Owner is the object that claims dependants.
type Owner struct {
	Resource *api.Resource
	Kind     schema.GroupVersionKind
	Object   api.Object
	// Finalizer, unless empty, is put on what is adopted and taken from what is
	// released.
	Finalizer string
}

func (o Owner) ref() api.Ref { return api.RefTo(o.Resource, o.Object) }

// Settle carries out what Claim decided, and answers with everything that is
// owned then. What vanished meanwhile is left out.
//
// The owner is read anew before the first adoption: a stale view must not make
// a deleted owner adopt.
func Settle[T api.Object](ctx context.Context, c client.Interface, owner Owner, r *api.Resource, claims Claims[T]) ([]T, error) {
	owned := claims.Owned
	if len(claims.Adopt) > 0 {
		now, err := c.Get(ctx, owner.ref())
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", r.Plural, err)
		}
		if now.GetUID() != owner.Object.GetUID() || now.GetDeletionTimestamp() != nil {
			return nil, fmt.Errorf("adopt %s: %s is being deleted or was made anew", r.Plural, owner.ref())
		}
	}
	for _, o := range claims.Adopt {
		got, err := c.Patch(ctx, api.RefTo(r, o), types.StrategicMergePatchType, owner.adoption(o), metav1.PatchOptions{}, "")
		if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
			continue // deleted, made anew, or adopted by somebody else
		}
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", api.RefTo(r, o), err)
		}
		if t, ok := got.(T); ok {
			owned = append(owned, t)
		}
	}
	for _, o := range claims.Release {
		_, err := c.Patch(ctx, api.RefTo(r, o), types.StrategicMergePatchType, owner.release(o), metav1.PatchOptions{}, "")
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			return nil, fmt.Errorf("release %s: %w", api.RefTo(r, o), err)
		}
	}
	return owned, nil
}

// adoption is the patch that makes o the owner's; its uid makes it fail on an
// object made anew.
func (o Owner) adoption(of metav1.Object) []byte {
	meta := map[string]any{"uid": of.GetUID(), "ownerReferences": []*metav1.OwnerReference{OwnerRef(o.Object, o.Kind)}}
	if o.Finalizer != "" {
		meta["finalizers"] = []string{o.Finalizer}
	}
	return metaPatch(meta)
}

func (o Owner) release(of metav1.Object) []byte {
	meta := map[string]any{"uid": of.GetUID(), "ownerReferences": []map[string]any{{"$patch": "delete", "uid": o.Object.GetUID()}}}
	if o.Finalizer != "" {
		meta["$deleteFromPrimitiveList/finalizers"] = []string{o.Finalizer}
	}
	return metaPatch(meta)
}

// MetaPatch adds to a patch of an object's metadata.
type MetaPatch func(meta map[string]any)

// OfVersion makes a patch fail with a conflict unless the object is as it was
// seen.
func OfVersion(of metav1.Object) MetaPatch {
	return func(meta map[string]any) { meta["resourceVersion"] = of.GetResourceVersion() }
}

// DropFinalizer is the strategic merge patch that takes a finalizer from an
// object.
func DropFinalizer(of metav1.Object, finalizer string, more ...MetaPatch) []byte {
	meta := map[string]any{"uid": of.GetUID(), "$deleteFromPrimitiveList/finalizers": []string{finalizer}}
	for _, add := range more {
		add(meta)
	}
	return metaPatch(meta)
}

func metaPatch(meta map[string]any) []byte {
	b, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		panic(fmt.Sprintf("encode a patch of strings: %v", err)) // not possible
	}
	return b
}

// SlowStart calls f for 0 to n-1 in batches of 1, 2, 4, …, each batch at once
// after the one before it succeeded: when all fail for one reason, few tell.
// It answers with the number of successes and the first error.
func SlowStart(ctx context.Context, n int, f func(ctx context.Context, i int) error) (int, error) {
	done := 0
	for batch := 1; done < n; batch *= 2 {
		size, start := min(batch, n-done), done
		errs := make(chan error, size)
		for i := range size {
			go func() { errs <- f(ctx, start+i) }()
		}
		var first error
		ok := 0
		for range size {
			if err := <-errs; err == nil {
				ok++
			} else if first == nil {
				first = err
			}
		}
		done += ok
		if first != nil {
			return done, first
		}
	}
	return done, nil
}

// together is how many calls AtOnce has under way.
const together = 32

// AtOnce calls f for 0 to n-1, many at a time, and answers with the first error
// in that order.
func AtOnce(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	errs := make([]error, n)
	var calls sync.WaitGroup
	free := make(chan struct{}, together)
	for i := range n {
		free <- struct{}{}
		calls.Go(func() {
			defer func() { <-free }()
			errs[i] = f(ctx, i)
		})
	}
	calls.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
