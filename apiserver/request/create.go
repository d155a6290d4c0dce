package request

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/store"
)

// nameAttempts is how many generated names are tried before giving up: with
// them, a million names of one prefix have a chance of 0.1 % to fail.
const nameAttempts = 8

// Create stores a new object, or posts to a subresource or to a resource
// without storage. What it answers is frozen.
func (h *Handler) Create(ctx context.Context, info *Info, body Body, opts *metav1.CreateOptions) (runtime.Object, error) {
	if info.Subresource != "" || info.row().Prefix == "" {
		decoded, err := h.preparePost(ctx, info, body, opts)
		if err != nil {
			return nil, err
		}
		return h.post(ctx, info, decoded, len(opts.DryRun) > 0)
	}
	c, obj, err := h.prepareCreate(ctx, info, body, opts)
	if err != nil {
		return nil, err
	}
	return c.store(ctx, obj)
}

// prepareCreate does what happens once, before the object has its identity.
func (h *Handler) prepareCreate(ctx context.Context, info *Info, body Body, opts *metav1.CreateOptions) (*creation, api.Object, error) {
	decoded, err := h.allowAndDecode(ctx, info, body, opts)
	if err != nil {
		return nil, nil, err
	}
	obj := decoded.(api.Object)
	c := &creation{h: h, info: info, options: opts, dryRun: len(opts.DryRun) > 0, manager: info.manager(opts.FieldManager)}
	if err := c.admit(ctx, obj); err != nil {
		return nil, nil, err
	}
	return c, obj, nil
}

func (h *Handler) allowAndDecode(ctx context.Context, info *Info, body Body, opts *metav1.CreateOptions) (runtime.Object, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, err
	}
	if errs := validation.ValidateCreateOptions(opts); len(errs) > 0 {
		return nil, invalidOptions("CreateOptions", errs)
	}
	return h.decode(info, body, opts.FieldValidation)
}

// creation is one create on its way.
type creation struct {
	h       *Handler
	info    *Info
	options runtime.Object // of the request
	dryRun  bool
	manager string
	// admitted is the last attempt that came to validating admission.
	admitted *admission.Attributes
}

// end tells the plugins what became of the last attempt; err is why it is not
// stored.
func (c *creation) end(err error) {
	if c.admitted != nil {
		c.admitted.End(err)
		c.admitted = nil
	}
}

// admit does what comes before the object has its identity.
func (c *creation) admit(ctx context.Context, obj api.Object) error {
	info := c.info
	wipeSystemFields(obj)
	if err := settleNamespace(obj, info.storedNamespace()); err != nil {
		return err
	}
	if info.row().Namespaced && info.Namespace == "" {
		return apierrors.NewBadRequest("an empty namespace may not be set during creation")
	}
	if info.Name == "" {
		info.Name = obj.GetName()
	}
	dedupOwners(obj, duplicateOwners, info.warn)
	if err := c.h.track(info, obj, nil, c.manager); err != nil {
		return err
	}
	attrs := c.attributes(obj)
	if err := c.h.mutate(ctx, attrs, obj, info.warn); err != nil {
		return err
	}
	// Whoever was asked may have put it elsewhere.
	return settleNamespace(obj, info.storedNamespace())
}

func (c *creation) attributes(obj api.Object) *admission.Attributes {
	a := c.info.admission(admission.Create, c.options, c.dryRun)
	a.Name, a.Object = obj.GetName(), obj
	// A new namespace is admitted as if it were in itself.
	if isNamespace(a.Resource) {
		a.Namespace = obj.GetName()
	}
	return a
}

// mutate runs mutating admission and what follows from it.
func (h *Handler) mutate(ctx context.Context, attrs *admission.Attributes, obj api.Object, warn func(string)) error {
	if len(h.Admission) == 0 {
		return nil
	}
	before := slices.Clone(obj.GetManagedFields())
	if err := h.Admission.Admit(ctx, attrs); err != nil {
		return err
	}
	keepValidManagers(obj, before, warn)
	h.fill(attrs.Resource, obj)
	dedupOwners(obj, duplicateOwnersAfterAdmission, warn)
	return nil
}

// store gives the object its identity and writes it; a generated name that is
// taken already is generated again.
func (c *creation) store(ctx context.Context, obj api.Object) (api.Object, error) {
	if obj.GetName() != "" || obj.GetGenerateName() == "" {
		return c.attempt(ctx, obj)
	}
	var err error
	for range nameAttempts {
		next := c.name(obj)
		var stored api.Object
		if stored, err = c.attempt(ctx, obj); err == nil || !apierrors.IsAlreadyExists(err) {
			return stored, err
		}
		err = apierrors.NewGenerateNameConflict(c.info.resource(), obj.GetName(), 1)
		obj = next
	}
	return nil, err
}

// name gives obj a generated name, and answers with a copy of it without one:
// attempts write to their objects, so the next needs its own. The first must
// take the original, where fields may share memory (see defaultJob).
func (c *creation) name(obj api.Object) (next api.Object) {
	next = obj.DeepCopyObject().(api.Object)
	if base := obj.GetGenerateName(); c.info.row().PlainNames {
		obj.SetName(base)
	} else {
		obj.SetName(c.h.generateName(base))
	}
	return next
}

func (c *creation) attempt(ctx context.Context, obj api.Object) (stored api.Object, err error) {
	h, row := c.h, c.info.row()
	defer func() { c.end(err) }()
	h.fillSystemFields(obj)
	switch {
	case c.dryRun:
		return c.try(ctx, obj)
	case h.Allocators[row.GroupResource()] != nil:
		// What is allocated may be taken by another write meanwhile; then all
		// starts over.
		return h.update(ctx, api.RefTo(row, obj), c.outcomeOf(ctx, obj))
	}
	if _, err := c.finish(ctx, obj); err != nil {
		return nil, err
	}
	ref := api.RefTo(row, obj)
	stored, err = h.Store.Create(ctx, row, obj, h.writeOptions(row))
	recognize(stored, obj)
	return c.stored(ctx, ref, stored, err)
}

// try is an attempt that stores nothing.
func (c *creation) try(ctx context.Context, obj api.Object) (api.Object, error) {
	row := c.info.row()
	cur, err := c.h.Store.Get(ctx, api.RefTo(row, obj), "")
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if _, err := c.finish(ctx, obj); err != nil {
		return nil, err
	}
	if cur != nil {
		return nil, c.exists(cur)
	}
	return c.h.Store.Reread(row, obj)
}

// stored is the store's answer, with a better word where the name is taken.
func (c *creation) stored(ctx context.Context, ref api.Ref, obj api.Object, err error) (api.Object, error) {
	if apierrors.IsAlreadyExists(err) {
		if cur, getErr := c.h.Store.Get(ctx, ref, ""); getErr == nil {
			err = c.exists(cur)
		}
	}
	return obj, err
}

// outcomeOf creates obj as the change of an object that is not there. It may be
// called again and leaves obj as it is.
func (c *creation) outcomeOf(ctx context.Context, obj api.Object) func(cur api.Object) (store.Outcome, error) {
	return func(cur api.Object) (store.Outcome, error) {
		fresh := obj.DeepCopyObject().(api.Object)
		sides, err := c.finish(ctx, fresh)
		switch {
		case err != nil:
			return store.Outcome{}, err
		case cur != nil:
			return store.Outcome{}, c.exists(cur)
		}
		return store.Outcome{Object: fresh, With: sides}, nil
	}
}

// finish does everything between identity and storage. It answers with the keys
// that claim what was allocated.
func (c *creation) finish(ctx context.Context, obj api.Object) (sides []store.Side, err error) {
	info, row := c.info, c.info.row()
	if row.Closed != "" {
		return nil, apierrors.NewForbidden(info.resource(), obj.GetName(), errors.New(row.Closed))
	}
	if row.SentWarnings != nil {
		for _, w := range row.SentWarnings(obj) {
			info.warn(w)
		}
	}
	if row.Stamp != nil {
		row.Stamp(obj, nil, c.h.now().Time)
	}
	if row.PrepareCreate != nil {
		row.PrepareCreate(obj)
	}
	rule := c.h.rule(info)
	if rule.Prepare != nil {
		rule.Prepare(info, obj)
	}
	if a := c.h.Allocators[row.GroupResource()]; a != nil {
		if sides, err = a.Allocate(ctx, obj, nil, c.dryRun); err != nil {
			return nil, err
		}
	}
	warnings, errs := checkNew(info.Served, obj)
	if rule.Validate != nil {
		errs = rule.Validate(ctx, info, obj, nil, errs)
	}
	if len(errs) > 0 {
		return nil, info.invalid(obj.GetName(), errs)
	}
	if rule.Warnings != nil {
		warnings = append(warnings, rule.Warnings(obj, nil)...)
	}
	for _, w := range warnings {
		info.warn(w)
	}
	if row.Canonicalize != nil {
		row.Canonicalize(obj)
	}
	c.end(errSuperseded)
	c.admitted = c.attributes(obj)
	if err := c.h.Admission.Validate(ctx, c.admitted); err != nil {
		return nil, err
	}
	if row.Seal != nil {
		if err := row.Seal(obj); err != nil {
			return nil, err
		}
	}
	// What preparation emptied (status) gets its defaults: Kubernetes fills them
	// in at every read.
	if row.Default != nil {
		row.Default(obj)
	}
	if err := checkPathName(obj.GetName()); err != nil {
		return nil, err
	}
	return sides, c.clearVersion(obj)
}

// clearVersion takes away the version of what is not stored yet, and refuses one
// that could be meant. Kubernetes sees it as it stores, after all else.
func (c *creation) clearVersion(obj api.Object) error {
	version, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err == nil && version != 0 && !c.dryRun {
		return unknownError("resourceVersion should not be set on objects to be created")
	}
	obj.SetResourceVersion("")
	return nil
}

// errSuperseded ends an attempt that is followed by another.
var errSuperseded = errors.New("another attempt follows")

// exists is the refusal to create what is there, which tells when it is about
// to go.
func (c *creation) exists(cur api.Object) error {
	err := apierrors.NewAlreadyExists(c.info.resource(), cur.GetName())
	if !cur.GetDeletionTimestamp().IsZero() {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// decode reads the body of a create or update and fills in its defaults.
func (h *Handler) decode(info *Info, body Body, fieldValidation string) (runtime.Object, error) {
	form := info.Form()
	obj := body.Object
	if hub, ok := obj.(api.Object); ok {
		if err := codec.Parse(hub, form); err != nil {
			return nil, err
		}
	}
	if obj == nil {
		data, media, err := body.Read()
		if err != nil {
			return nil, err
		}
		strict := fieldValidation != metav1.FieldValidationIgnore
		var problems []error
		if obj, problems, err = h.Codec.Decode(data, media, form, strict); err != nil {
			return nil, err
		}
		if len(problems) > 0 {
			if fieldValidation == metav1.FieldValidationStrict {
				return nil, codec.StrictError(problems, form, data)
			}
			for _, w := range codec.Warnings(problems) {
				info.warn(w)
			}
		}
	}
	sub := info.sub()
	if sub != nil && sub.Default != nil {
		sub.Default(obj)
	}
	if hub, ok := obj.(api.Object); ok && (sub == nil || sub.New == nil) {
		hub.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		h.fill(info.row(), hub)
	}
	if info.Audit != nil {
		info.Audit.Object(obj, info.attributes(info.Verb), func() ([]byte, error) { return h.encode(obj, form) })
	}
	return obj, nil
}

// fill fills in the defaults of an object that was made by others.
func (h *Handler) fill(row *api.Resource, obj api.Object) {
	if row.Default != nil {
		row.Default(obj)
	}
	if row.DefaultTimes != nil {
		row.DefaultTimes(obj, h.now().Time)
	}
}

// unknownError is an error of no particular reason, status 500.
func unknownError(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: message,
	}}
}

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}
