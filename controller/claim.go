package controller

import (
	"context"
	"encoding/json"
	"fmt"

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

// Settle carries out what Claim decided, and answers with everything that is
// owned then. What vanished meanwhile is left out.
//
// The owner is read anew before the first adoption: a stale view must not make
// a deleted owner adopt.
func Settle[T api.Object](ctx context.Context, c client.Interface, owner api.Ref, uid types.UID, ref *metav1.OwnerReference, r *api.Resource, claims Claims[T]) ([]T, error) {
	owned := claims.Owned
	if len(claims.Adopt) > 0 {
		now, err := c.Get(ctx, owner)
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", r.Plural, err)
		}
		if now.GetUID() != uid || now.GetDeletionTimestamp() != nil {
			return nil, fmt.Errorf("adopt %s: %s is being deleted or was made anew", r.Plural, owner)
		}
	}
	for _, o := range claims.Adopt {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": o.GetUID(), "ownerReferences": []*metav1.OwnerReference{ref},
		}})
		if err != nil {
			return nil, err
		}
		got, err := c.Patch(ctx, api.RefTo(r, o), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "")
		if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
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
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": o.GetUID(), "ownerReferences": []map[string]any{{"$patch": "delete", "uid": uid}},
		}})
		if err != nil {
			return nil, err
		}
		_, err = c.Patch(ctx, api.RefTo(r, o), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "")
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
			return nil, fmt.Errorf("release %s: %w", api.RefTo(r, o), err)
		}
	}
	return owned, nil
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
