package request

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/store"
)

// optimisticLock is the cause that clients know a lost race by.
const optimisticLock = "the object has been modified; please apply your changes to the latest version and try again"

// change is one update or patch on its way: next makes the new object from the
// present one, everything else is common to all of them.
type change struct {
	h       *Handler
	info    *Info
	options runtime.Object // of the request
	dryRun  bool
	manager string
	// next makes the wanted object from the present one (nil if there is
	// none), which is frozen. The result is new at every call. It comes with
	// its managers set.
	next func(cur api.Object) (api.Object, error)
	// uid, if not empty, is the identity the client thinks it writes to.
	uid types.UID
	// mayCreate lets the object come into being.
	mayCreate bool

	created  bool
	written  api.Object  // by the last attempt, if it wrote
	end      func(error) // tells the plugins what became of the last attempt
	warnings []string    // of the last attempt
}

// run writes the change and answers with the stored object, frozen.
func (c *change) run(ctx context.Context) (api.Object, error) {
	if err := checkPathName(c.info.Name); err != nil {
		return nil, err
	}
	attempt := func(cur api.Object) (store.Outcome, error) {
		out, err := c.attempt(ctx, cur)
		c.written = out.Object
		return out, err
	}
	obj, err := c.write(ctx, attempt)
	c.ended(err)
	recognize(obj, c.written)
	for _, w := range c.warnings {
		c.info.warn(w)
	}
	return obj, err
}

// attempt is one try against the present object; the store may ask for several.
func (c *change) attempt(ctx context.Context, cur api.Object) (store.Outcome, error) {
	c.ended(errSuperseded)
	c.created, c.written, c.warnings = false, nil, nil
	return c.outcome(ctx, cur)
}

// ended tells the plugins what became of the last attempt.
func (c *change) ended(err error) {
	if c.end != nil {
		c.end(err)
		c.end = nil
	}
}

func (c *change) write(ctx context.Context, attempt func(cur api.Object) (store.Outcome, error)) (api.Object, error) {
	h := c.h
	if !c.dryRun {
		return h.update(ctx, c.info.ref(), attempt)
	}
	cur, err := h.Store.Get(ctx, c.info.ref(), "")
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	outcome, err := attempt(cur)
	if err != nil {
		return nil, err
	}
	if outcome.Unchanged {
		return cur, nil
	}
	return h.Store.Reread(c.info.row(), outcome.Object)
}

// uidMismatch refuses to write to another object of the same name. Kubernetes
// finds that out in its storage, and shows what that says.
func uidMismatch(info *Info, dryRun bool, want, have types.UID) error {
	key := "/" + path.Join(info.row().Prefix, info.storedNamespace(), info.Name)
	if !dryRun {
		key = "/registry" + key
	}
	return apierrors.NewConflict(info.resource(), info.Name,
		fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %v, UID in object meta: %v", key, want, have))
}

func (c *change) warn(text string) { c.warnings = append(c.warnings, text) }

// outcome is one attempt against the present object.
func (c *change) outcome(ctx context.Context, cur api.Object) (store.Outcome, error) {
	if cur == nil && !c.mayCreate {
		return store.Outcome{}, apierrors.NewNotFound(c.info.resource(), c.info.Name)
	}
	if cur != nil && c.uid != "" && c.uid != cur.GetUID() {
		return store.Outcome{}, uidMismatch(c.info, c.dryRun, c.uid, cur.GetUID())
	}
	stored := cur
	if view := c.info.row().View; view != nil && cur != nil {
		var err error
		if cur, err = view(cur); err != nil {
			return store.Outcome{}, err
		}
	}
	obj, err := c.next(cur)
	if err != nil {
		return store.Outcome{}, err
	}
	if sub := c.info.sub(); sub != nil && sub.Put != nil && obj.GetUID() != cur.GetUID() {
		return store.Outcome{}, uidMismatch(c.info, c.dryRun, obj.GetUID(), cur.GetUID())
	}
	if err := settleNamespace(obj, c.info.storedNamespace()); err != nil {
		return store.Outcome{}, err
	}
	if err := checkName(obj, c.info); err != nil {
		return store.Outcome{}, err
	}
	if cur == nil {
		return c.create(ctx, obj)
	}
	return c.update(ctx, obj, cur, stored)
}

// create is the way of an update that brings the object into being.
func (c *change) create(ctx context.Context, obj api.Object) (store.Outcome, error) {
	h, info := c.h, c.info
	if uid := obj.GetUID(); uid != "" {
		if c.uid != "" {
			return store.Outcome{}, uidMismatch(info, c.dryRun, c.uid, "")
		}
		return store.Outcome{}, apierrors.NewConflict(info.resource(), info.Name,
			fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", uid))
	}
	obj.SetResourceVersion("")
	if err := h.authorize(ctx, info.attributes("create")); err != nil {
		return store.Outcome{}, err
	}
	c.created = true
	n := &creation{h: h, info: c.scoped(), options: c.options, dryRun: c.dryRun, manager: c.manager}
	if err := h.mutate(ctx, n.attributes(obj), obj, c.warn); err != nil {
		return store.Outcome{}, err
	}
	if err := settleNamespace(obj, info.storedNamespace()); err != nil {
		return store.Outcome{}, err
	}
	wipeSystemFields(obj)
	h.fillSystemFields(obj)
	c.end = n.end
	sides, err := n.finish(ctx, obj)
	if err != nil {
		return store.Outcome{}, err
	}
	return store.Outcome{Object: obj, With: sides}, nil
}

// scoped is the request's info with the warnings of this attempt.
func (c *change) scoped() *Info {
	info := *c.info
	info.Warn = c.warn
	return &info
}

// update is the way of all others. cur is the view of what is stored, where the
// kind has views.
func (c *change) update(ctx context.Context, obj, cur, stored api.Object) (store.Outcome, error) {
	h, info, row := c.h, c.info, c.info.row()
	attrs, err := c.admit(ctx, obj, cur)
	if err != nil {
		return store.Outcome{}, err
	}
	if err := settleNamespace(obj, info.storedNamespace()); err != nil {
		return store.Outcome{}, err
	}
	if err := c.checkVersion(obj, cur); err != nil {
		return store.Outcome{}, err
	}
	obj.SetGeneration(cur.GetGeneration())
	sides, err := c.prepare(ctx, obj, cur)
	if err != nil {
		return store.Outcome{}, err
	}
	keepSystemFields(obj, cur)
	if errs := c.validate(ctx, obj, cur); len(errs) > 0 {
		return store.Outcome{}, info.invalid(obj.GetName(), errs)
	}
	c.warnings = append(c.warnings, h.warnings(info, obj, cur)...)
	if row.Canonicalize != nil {
		row.Canonicalize(obj)
	}
	c.end = attrs.End
	if err := c.admitResult(ctx, attrs, obj); err != nil {
		return store.Outcome{}, err
	}
	if row.Seal != nil {
		if err := row.Seal(obj); err != nil {
			return store.Outcome{}, err
		}
	}
	same := unchanged(obj, stored)
	if finished(obj, cur) {
		sides, err := h.release(ctx, row, cur)
		return store.Outcome{Object: obj, Delete: true, With: sides}, err
	}
	if same && len(sides) == 0 {
		return store.Outcome{Unchanged: true}, nil
	}
	return store.Outcome{Object: obj, With: sides}, nil
}

// admit runs mutating admission, on the body of a subresource that has its own
// (scale), else on the object.
func (c *change) admit(ctx context.Context, obj, cur api.Object) (*admission.Attributes, error) {
	attrs := c.info.admission(admission.Update, c.options, c.dryRun)
	attrs.Warn = c.warn
	sub := c.info.sub()
	if sub == nil || sub.Put == nil || sub.Get == nil {
		attrs.Object, attrs.Old = obj, cur
		return attrs, c.h.mutate(ctx, attrs, obj, c.warn)
	}
	if len(c.h.Admission) == 0 {
		return attrs, nil
	}
	was, err := sub.Before(cur)
	if err != nil {
		return nil, err
	}
	body, err := sub.Get(obj)
	if err != nil {
		return nil, err
	}
	attrs.Object, attrs.Old = body, was.(api.Object)
	before := body.DeepCopyObject()
	if err := c.h.Admission.Admit(ctx, attrs); err != nil || equality.Semantic.DeepEqual(body, before) {
		return attrs, err
	}
	return attrs, sub.Put(obj, body.DeepCopyObject(), c.h.Clock.Now())
}

// admitResult runs validating admission on what admit began with, as it is to be
// stored.
func (c *change) admitResult(ctx context.Context, attrs *admission.Attributes, obj api.Object) error {
	if sub := c.info.sub(); sub != nil && sub.Put != nil && sub.Get != nil && len(c.h.Admission) > 0 {
		body, err := sub.Get(obj)
		if err != nil {
			return err
		}
		attrs.Object, attrs.Library = body, nil
	}
	return c.h.Admission.Validate(ctx, attrs)
}

// warnings are the sentences about a write.
func (h *Handler) warnings(info *Info, obj, old api.Object) (out []string) {
	of := info.row().Warn
	if sub := info.sub(); sub != nil {
		of = sub.Warnings
	}
	if of != nil {
		out = of(obj, old)
	}
	if more := h.rule(info).Warnings; more != nil {
		out = append(out, more(obj, old)...)
	}
	return out
}

// recognize tells a stored object what was written, if it wants to know.
func recognize(stored, written api.Object) {
	if r, ok := stored.(interface{ Recognize(written api.Object) }); ok && written != nil {
		r.Recognize(written)
	}
}

// checkVersion refuses to replace another state than the client has seen.
func (c *change) checkVersion(obj, cur api.Object) error {
	switch obj.GetResourceVersion() {
	case cur.GetResourceVersion():
		return nil
	case "", "0":
		if !c.info.row().AllowUnconditionalUpdate {
			kind := schema.GroupKind{Group: c.info.resource().Group, Kind: c.info.resource().Resource}
			return apierrors.NewInvalid(kind, c.info.Name, field.ErrorList{
				field.Invalid(metadataPath.Child("resourceVersion"), 0, "must be specified for an update"),
			})
		}
		obj.SetResourceVersion(cur.GetResourceVersion())
		return nil
	}
	if _, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64); err != nil {
		return unknownError(err.Error())
	}
	return apierrors.NewConflict(c.info.resource(), c.info.Name, errors.New(optimisticLock))
}

// prepare fills in times, takes away what the writer may not set, and lets an allocator see
// changes of the resource itself.
func (c *change) prepare(ctx context.Context, obj, cur api.Object) ([]store.Side, error) {
	row, sub := c.info.row(), c.info.sub()
	if sub != nil && (sub.Put == nil || sub.PrepareUpdate != nil) {
		if sub.Stamp != nil {
			sub.Stamp(obj, cur, c.h.now().Time)
		}
		if sub.PrepareUpdate != nil {
			sub.PrepareUpdate(obj, cur)
		}
		return nil, nil
	}
	if row.Stamp != nil {
		row.Stamp(obj, cur, c.h.now().Time)
	}
	if row.PrepareUpdate != nil {
		row.PrepareUpdate(obj, cur)
	}
	if a := c.h.Allocators[row.GroupResource()]; a != nil {
		return a.Allocate(ctx, obj, cur, c.dryRun)
	}
	return nil, nil
}

// release gives the keys that free what an object had been allocated.
func (h *Handler) release(ctx context.Context, row *api.Resource, cur api.Object) ([]store.Side, error) {
	a := h.Allocators[row.GroupResource()]
	if a == nil {
		return nil, nil
	}
	return a.Allocate(ctx, nil, cur, false)
}

// validate is everything that the changed object is checked for.
func (c *change) validate(ctx context.Context, obj, cur api.Object) field.ErrorList {
	row, sub := c.info.row(), c.info.sub()
	own, base := row.ValidateUpdate, row.ChecksBase
	if sub != nil && sub.Put == nil {
		base = sub.ChecksBase
	}
	switch {
	case sub != nil && sub.ValidateUpdateAt != nil:
		own = func(obj, old api.Object) field.ErrorList { return sub.ValidateUpdateAt(obj, old, c.h.Clock.Now()) }
	case sub != nil && (sub.Put == nil || sub.ValidateUpdate != nil):
		own = sub.ValidateUpdate
	}
	errs := validateChange(row, obj, cur, base, own)
	if v := c.info.Served.Version.ValidateUpdate; v != nil && sub == nil {
		errs = append(errs, v(obj, cur)...)
	}
	if check := c.h.rule(c.info).Validate; check != nil {
		errs = check(ctx, c.info, obj, cur, errs)
	}
	return errs
}

// unchanged says whether there is nothing to write. The times of managers do
// not count when nothing else about them has changed; they stay as they were.
func unchanged(obj, cur api.Object) bool {
	before, after := cur.GetManagedFields(), obj.GetManagedFields()
	if !sameManagers(before, after, false) {
		return false
	}
	obj.SetManagedFields(before)
	if sameObject(obj, cur) {
		return true
	}
	obj.SetManagedFields(after)
	return false
}

func sameObject(a, b api.Object) bool {
	if a, ok := a.(interface{ Equal(api.Object) bool }); ok {
		return a.Equal(b)
	}
	return equality.Semantic.DeepEqual(a, b)
}

// finished says whether an update took away the last thing that kept an object
// that is being deleted.
func finished(obj, cur api.Object) bool {
	if len(obj.GetFinalizers()) > 0 || heldBySpec(obj) || cur.GetDeletionTimestamp() == nil {
		return false
	}
	grace := cur.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}
