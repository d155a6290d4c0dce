package request

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/store"
)

// An object goes through these states when deleted:
//
//	live ──▶ graceful (deletionTimestamp ahead, grace period > 0)
//	  │        │ shortened, or the agent deletes with grace 0
//	  │        ▼
//	  ├────▶ finalizing (grace period 0, finalizers left)
//	  │        │ last finalizer removed by an update
//	  ▼        ▼
//	 gone ◀────┘
//
// A namespace is held by spec.finalizers instead of a grace period.

// Delete removes an object, or sets it on its way. The answer is the object, or
// a Status for kinds that answer with one; gone says whether it is removed.
func (h *Handler) Delete(ctx context.Context, info *Info, opts *metav1.DeleteOptions) (answer runtime.Object, gone bool, err error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, false, err
	}
	info.noteOptions(opts)
	if errs := validation.ValidateDeleteOptions(opts); len(errs) > 0 {
		return nil, false, invalidOptions("DeleteOptions", errs)
	}
	if err := checkPathName(info.Name); err != nil {
		return nil, false, err
	}
	if ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false) {
		return nil, false, h.unsafeDelete(ctx, info)
	}
	d := &deletion{h: h, info: info, opts: opts}
	return d.run(ctx)
}

// withoutUnsafe are the resources whose storages in Kubernetes hide that they could
// delete so.
var withoutUnsafe = map[schema.GroupResource]bool{
	{Resource: "namespaces"}:                                   true,
	{Group: rbacv1.GroupName, Resource: "roles"}:               true,
	{Group: rbacv1.GroupName, Resource: "rolebindings"}:        true,
	{Group: rbacv1.GroupName, Resource: "clusterroles"}:        true,
	{Group: rbacv1.GroupName, Resource: "clusterrolebindings"}: true,
}

// unsafeDelete refuses to delete what could not be read: nothing is served that
// cannot be (see store), so whatever there is can be deleted otherwise.
func (h *Handler) unsafeDelete(ctx context.Context, info *Info) error {
	a := info.attributes("unsafe-delete-ignore-read-errors")
	info.Audit.UnsafeDeletion()
	if withoutUnsafe[info.row().GroupResource()] {
		return apierrors.NewInternalError(errors.New("no unsafe deleter provided, can not honor ignoreStoreReadErrorWithClusterBreakingPotential"))
	}
	decision, reason, err := h.Authorizer.Authorize(ctx, a)
	switch {
	case decision == authorizer.DecisionAllow:
	case err != nil:
		return apierrors.NewForbidden(info.resource(), info.Name, fmt.Errorf("error while checking permission for %q, %w", a.Verb, err))
	default:
		return apierrors.NewForbidden(info.resource(), info.Name, fmt.Errorf("not permitted to do %q, reason: %s", a.Verb, reason))
	}
	ref := info.ref()
	if _, err := h.Store.Get(ctx, ref, ""); err != nil {
		return err
	}
	return apierrors.NewConflict(info.resource(), info.Name, storage.NewInvalidObjError(path.Join("/registry", ref.Resource.Prefix, ref.Namespace, ref.Name),
		"unsafe deletion is not allowed because the object is decodable from storage"))
}

// deletion is one delete on its way.
type deletion struct {
	h    *Handler
	info *Info
	opts *metav1.DeleteOptions
	// collection: the request deletes many. admitted: it was admitted as another
	// request, an eviction.
	collection, admitted bool
	// state of the last attempt
	phase phase
}

// phase is what a deletion did to its object.
type phase int

const (
	marked  phase = iota // written with a deletion timestamp, or other finalizers
	pending              // being deleted already; nothing to do
	removed
)

func (d *deletion) run(ctx context.Context) (runtime.Object, bool, error) {
	obj, err := d.write(ctx)
	if err != nil {
		return nil, false, err
	}
	return d.answer(obj), d.phase == removed, nil
}

func (d *deletion) write(ctx context.Context) (api.Object, error) {
	h := d.h
	attempt := func(cur api.Object) (store.Outcome, error) { return d.outcome(ctx, cur) }
	if len(d.opts.DryRun) == 0 {
		return h.update(ctx, d.info.ref(), attempt)
	}
	cur, err := h.Store.Get(ctx, d.info.ref(), "")
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	outcome, err := attempt(cur)
	if err != nil {
		return nil, err
	}
	if outcome.Object == nil {
		return cur, nil
	}
	return outcome.Object, nil
}

func (d *deletion) answer(obj api.Object) runtime.Object {
	if d.phase == marked || api.ShowsDeleted(d.info.resource()) {
		return obj
	}
	gr := d.info.resource()
	return &metav1.Status{
		Status: metav1.StatusSuccess,
		// Kind is the resource's name, as Kubernetes has it.
		Details: &metav1.StatusDetails{Name: obj.GetName(), Group: gr.Group, Kind: gr.Resource, UID: obj.GetUID()},
	}
}

// outcome is one attempt against the present object.
func (d *deletion) outcome(ctx context.Context, cur api.Object) (store.Outcome, error) {
	if cur == nil {
		return store.Outcome{}, apierrors.NewNotFound(d.info.resource(), d.info.Name)
	}
	if err := d.checkPreconditions(cur); err != nil {
		return store.Outcome{}, err
	}
	if err := d.admit(ctx, cur); err != nil {
		return store.Outcome{}, err
	}
	obj := cur.DeepCopyObject().(api.Object)
	if heldBySpec(cur) {
		return d.holdNamespace(obj), nil
	}
	if prepare := d.info.row().PrepareDelete; prepare != nil && obj.GetDeletionTimestamp().IsZero() {
		prepare(obj, d.h.now().Time)
	}
	wasPending, graceful := d.grace(obj)
	if wasPending {
		d.phase = pending
		return store.Outcome{Unchanged: true}, nil
	}
	obj.SetFinalizers(d.finalizers(obj))
	switch {
	case len(obj.GetFinalizers()) > 0:
		if !graceful {
			markFinalizing(obj, d.h.now())
		}
	case !graceful || *obj.GetDeletionGracePeriodSeconds() == 0:
		d.phase = removed
		sides, err := d.h.release(ctx, d.info.row(), cur)
		return store.Outcome{Delete: true, Object: obj, With: sides}, err
	}
	d.phase = marked
	if unchanged(obj, cur) {
		return store.Outcome{Unchanged: true}, nil
	}
	return store.Outcome{Object: obj}, nil
}

func (d *deletion) checkPreconditions(cur api.Object) error {
	p := d.opts.Preconditions
	if p == nil {
		return nil
	}
	// The resource is called by its kind here, as Kubernetes has it.
	gr := schema.GroupResource{Group: d.info.kind().Group, Resource: d.info.kind().Kind}
	if p.UID != nil && *p.UID != cur.GetUID() {
		return apierrors.NewConflict(gr, cur.GetName(), fmt.Errorf(
			"the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, cur.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != cur.GetResourceVersion() {
		return apierrors.NewConflict(gr, cur.GetName(), fmt.Errorf(
			"the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, cur.GetResourceVersion()))
	}
	return nil
}

func (d *deletion) admit(ctx context.Context, cur api.Object) error {
	if d.admitted {
		return nil
	}
	attrs := d.info.admission(admission.Delete, d.opts, len(d.opts.DryRun) > 0)
	attrs.Old, attrs.Collection = cur, d.collection
	if err := d.h.Admission.Admit(ctx, attrs); err != nil {
		return err
	}
	return d.h.Admission.Validate(ctx, attrs)
}

// holdNamespace sets a namespace on its way; the namespace loop does the rest.
func (d *deletion) holdNamespace(obj api.Object) store.Outcome {
	if !terminate(obj, d.h.now()) {
		d.phase = pending
		return store.Outcome{Unchanged: true}
	}
	obj.SetFinalizers(d.finalizers(obj))
	d.phase = marked
	return store.Outcome{Object: obj}
}

// grace gives obj its deletion timestamp and grace period where its kind has
// one. pending: it is being deleted already and this request changes nothing.
func (d *deletion) grace(obj api.Object) (pending, graceful bool) {
	row := d.info.row()
	if row.GracePeriod == nil {
		return false, false
	}
	asked := d.opts.GracePeriodSeconds
	if asked != nil && *asked < 0 {
		one := int64(1)
		asked = &one
	}
	if !obj.GetDeletionTimestamp().IsZero() {
		return d.shorten(obj, asked)
	}
	opts := *d.opts
	opts.GracePeriodSeconds = asked
	seconds := row.GracePeriod(obj, &opts)
	at := metav1.NewTime(d.h.now().Add(time.Duration(seconds) * time.Second))
	obj.SetDeletionTimestamp(&at)
	obj.SetDeletionGracePeriodSeconds(&seconds)
	if obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	return false, true
}

// shorten brings a deletion forward; it can never be put off.
func (d *deletion) shorten(obj api.Object, asked *int64) (pending, graceful bool) {
	had := obj.GetDeletionGracePeriodSeconds()
	if had == nil || *had == 0 {
		return false, false
	}
	was := max(*had, 1)
	if asked == nil || *asked >= was {
		return true, false
	}
	now, period := d.h.now(), *asked
	at := metav1.NewTime(obj.GetDeletionTimestamp().Add(time.Duration(period-was) * time.Second))
	if at.Before(&now) {
		at = now
		// The shorter period is over already; somebody else still has to see
		// that and finish, so it stays a graceful deletion.
		if period != 0 {
			period = 1
		}
	}
	obj.SetDeletionTimestamp(&at)
	obj.SetDeletionGracePeriodSeconds(&period)
	return false, true
}

// markFinalizing is for an object that only its finalizers keep.
func markFinalizing(obj api.Object, now metav1.Time) {
	if obj.GetDeletionTimestamp() == nil && obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	if at := obj.GetDeletionTimestamp(); at == nil || at.After(now.Time) {
		obj.SetDeletionTimestamp(&now)
	}
	zero := int64(0)
	obj.SetDeletionGracePeriodSeconds(&zero)
}

// finalizers are those of obj with the two of the garbage collector set as the
// propagation policy says.
func (d *deletion) finalizers(obj api.Object) []string {
	policy := d.propagation(obj)
	kept := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	add := ""
	switch policy {
	case metav1.DeletePropagationOrphan:
		add = metav1.FinalizerOrphanDependents
	case metav1.DeletePropagationForeground:
		add = metav1.FinalizerDeleteDependents
	}
	if add != "" {
		kept = append(kept, add)
	}
	if sets.New(kept...).Equal(sets.New(obj.GetFinalizers()...)) {
		return obj.GetFinalizers()
	}
	return kept
}

// propagation is what the client says, else what the finalizers of the object
// say, else what its kind says.
func (d *deletion) propagation(obj api.Object) metav1.DeletionPropagation {
	switch {
	//lint:ignore SA1019 old clients still send it
	case d.opts.OrphanDependents != nil:
		if *d.opts.OrphanDependents {
			return metav1.DeletePropagationOrphan
		}
		return metav1.DeletePropagationBackground
	case d.opts.PropagationPolicy != nil:
		return *d.opts.PropagationPolicy
	}
	for _, f := range obj.GetFinalizers() {
		switch f {
		case metav1.FinalizerOrphanDependents:
			return metav1.DeletePropagationOrphan
		case metav1.FinalizerDeleteDependents:
			return metav1.DeletePropagationForeground
		}
	}
	if p := d.info.row().DefaultPropagation; p != nil {
		return *p
	}
	return metav1.DeletePropagationBackground
}
