package request

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
)

// Update replaces an object, or the part of it that a subresource shows.
// created says that the object was not there before.
func (h *Handler) Update(ctx context.Context, info *Info, body Body, opts *metav1.UpdateOptions) (obj runtime.Object, created bool, err error) {
	c, err := h.prepareUpdate(ctx, info, body, opts)
	if err != nil {
		return nil, false, err
	}
	stored, err := c.run(ctx)
	if err != nil {
		return nil, false, err
	}
	answer, err := h.answer(info, stored)
	return answer, c.created, err
}

// prepareUpdate does what happens once, before the conflict retry.
func (h *Handler) prepareUpdate(ctx context.Context, info *Info, body Body, opts *metav1.UpdateOptions) (*change, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, err
	}
	if errs := validation.ValidateUpdateOptions(opts); len(errs) > 0 {
		return nil, invalidOptions("UpdateOptions", errs)
	}
	decoded, err := h.decode(info, body, opts.FieldValidation)
	if err != nil {
		return nil, err
	}
	c := &change{h: h, info: info, options: opts, dryRun: len(opts.DryRun) > 0, manager: info.manager(opts.FieldManager)}
	if sub := info.sub(); sub != nil && sub.Put != nil {
		return c, c.put(decoded)
	}
	obj, ok := decoded.(api.Object)
	if !ok {
		return nil, apierrors.NewMethodNotSupported(info.resource(), "update")
	}
	if err := settleNamespace(obj, info.storedNamespace()); err != nil {
		return nil, err
	}
	if err := checkName(obj, info); err != nil {
		return nil, err
	}
	dedupOwners(obj, duplicateOwners, info.warn)
	c.mayCreate = info.row().AllowCreateOnUpdate && info.Subresource == ""
	c.uid = obj.GetUID()
	c.next = func(cur api.Object) (api.Object, error) {
		next := obj.DeepCopyObject().(api.Object)
		return next, h.track(info, next, cur, c.manager)
	}
	return c, nil
}

// answer is the object as the subresource shows it.
func (h *Handler) answer(info *Info, obj api.Object) (runtime.Object, error) {
	if sub := info.sub(); sub != nil && sub.Get != nil {
		return sub.Get(obj)
	}
	return obj, nil
}

// put makes the change that a body of a subresource (scale) asks for.
func (c *change) put(body runtime.Object) error {
	info := c.info
	if meta, ok := body.(metav1.Object); ok {
		if err := settleNamespace(meta, info.storedNamespace()); err != nil {
			return err
		}
		if err := checkName(meta, info); err != nil {
			return err
		}
	}
	c.next = func(cur api.Object) (api.Object, error) { return c.putNext(cur, body) }
	return nil
}

// putNext applies a body to a copy of the present object. The version and
// identity that the body says become the copy's, and are compared as those of
// any update are.
func (c *change) putNext(cur api.Object, body runtime.Object) (api.Object, error) {
	if cur == nil {
		return nil, apierrors.NewNotFound(c.info.resource(), c.info.Name)
	}
	next := cur.DeepCopyObject().(api.Object)
	if err := c.info.sub().Put(next, body.DeepCopyObject(), c.h.Clock.Now()); err != nil {
		return nil, err
	}
	return next, c.h.track(c.info, next, cur, c.manager)
}
