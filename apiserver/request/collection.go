package request

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// collectionPage is how many objects a deletion of a collection lists at once.
const collectionPage = 1000

// DeleteCollection deletes every object that the list options select, and
// answers with them as they were. It is not atomic: after an error some of
// them are gone.
func (h *Handler) DeleteCollection(ctx context.Context, info *Info, opts *metav1.DeleteOptions, list *metav1.ListOptions) (store.List, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return store.List{}, err
	}
	info.noteOptions(opts)
	if errs := validation.ValidateDeleteOptions(opts); len(errs) > 0 {
		return store.List{}, invalidOptions("DeleteOptions", errs)
	}
	if ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false) {
		return store.List{}, invalidOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath("ignoreStoreReadErrorWithClusterBreakingPotential"),
			true, "is not allowed with DELETECOLLECTION, try again after removing the option")})
	}
	if err := validateListOptions(list); err != nil {
		return store.List{}, err
	}
	q, err := query(info, list)
	if err != nil {
		return store.List{}, err
	}
	page := listOptions(list)
	limited := page.Limit > 0
	if !limited {
		page.Limit = collectionPage
	}
	var all store.List
	for {
		part, err := h.Store.List(ctx, q, page)
		if err != nil {
			return store.List{}, err
		}
		if err := h.deleteAll(ctx, info, opts, part.Items); err != nil {
			return store.List{}, err
		}
		items := append(all.Items, part.Items...)
		all = part
		all.Items = items
		if limited || part.Continue == "" {
			return all, nil
		}
		page = store.ListOptions{Limit: collectionPage, Continue: part.Continue}
	}
}

// deleteAll deletes objects, together unless each has claims of its own to give
// back; one that is gone meanwhile is no error.
func (h *Handler) deleteAll(ctx context.Context, info *Info, opts *metav1.DeleteOptions, objs []api.Object) error {
	writes := make([]store.Write, 0, len(objs))
	for _, obj := range objs {
		one := *info
		one.Namespace, one.Name = obj.GetNamespace(), obj.GetName()
		if isNamespace(info.row()) {
			one.Namespace = obj.GetName()
		}
		d := &deletion{h: h, info: &one, opts: opts, collection: true}
		if len(opts.DryRun) > 0 || h.alone(info.row()) {
			if _, err := d.write(ctx); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			continue
		}
		writes = append(writes, store.Write{
			Ref:     one.ref(),
			Change:  func(cur api.Object) (store.Outcome, error) { return d.outcome(ctx, cur) },
			Options: h.writeOptions(info.row()),
		})
	}
	for _, r := range h.Store.Batch(ctx, writes) {
		if r.Err != nil && !apierrors.IsNotFound(r.Err) {
			return r.Err
		}
	}
	return nil
}
