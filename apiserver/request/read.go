package request

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// Get reads one object, or what a subresource shows of it.
func (h *Handler) Get(ctx context.Context, info *Info, opts *metav1.GetOptions) (runtime.Object, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, err
	}
	obj, err := h.read(ctx, info, opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	return h.answer(info, obj)
}

func (h *Handler) read(ctx context.Context, info *Info, resourceVersion string) (api.Object, error) {
	if err := checkPathName(info.Name); err != nil {
		return nil, err
	}
	compute := h.Computed[info.row().GroupResource()]
	if compute == nil {
		obj, err := h.Store.Get(ctx, info.ref(), resourceVersion)
		if info.resource() != info.row().GroupResource() && apierrors.IsNotFound(err) {
			err = apierrors.NewNotFound(info.resource(), info.Name)
		}
		return obj, err
	}
	list, err := compute(ctx, api.Key{Namespace: info.Namespace, Name: info.Name})
	if err != nil {
		return nil, err
	}
	for _, obj := range list {
		if obj.GetName() == info.Name {
			return obj, nil
		}
	}
	return nil, apierrors.NewNotFound(info.resource(), info.Name)
}

// List reads the objects that the options select.
func (h *Handler) List(ctx context.Context, info *Info, opts *metav1.ListOptions) (store.Page, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return store.Page{}, err
	}
	if err := validateListOptions(opts); err != nil {
		return store.Page{}, err
	}
	q, err := query(info, opts)
	if err != nil {
		return store.Page{}, err
	}
	if compute := h.Computed[info.row().GroupResource()]; compute != nil {
		list, err := compute(ctx, api.Key{Namespace: q.Namespace})
		return store.Page{Objects: slices.Values(slices.DeleteFunc(list, func(obj api.Object) bool {
			return q.Name != "" && obj.GetName() != q.Name || q.Match != nil && !q.Match(obj)
		}))}, err
	}
	return h.Store.Scan(ctx, q, listOptions(opts))
}

func listOptions(opts *metav1.ListOptions) store.ListOptions {
	return store.ListOptions{
		ResourceVersion:      opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch,
		Limit:                opts.Limit,
		Continue:             opts.Continue,
	}
}

// Watch starts a watch of what the options select. Whoever gets the watcher
// stops it. Bookmarks and the end of the time belong to the caller.
func (h *Handler) Watch(ctx context.Context, info *Info, opts *metav1.ListOptions) (*store.Watcher, error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, err
	}
	// Without a version a watch has always begun with the objects there are;
	// it ends that beginning with a bookmark for clients that ask for one.
	begin := opts.ResourceVersion == "" || opts.ResourceVersion == "0"
	if begin && opts.SendInitialEvents == nil && opts.ResourceVersionMatch == "" {
		opts.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
		opts.SendInitialEvents = new(bool)
		*opts.SendInitialEvents = true
	}
	if err := validateListOptions(opts); err != nil {
		return nil, err
	}
	q, err := query(info, opts)
	if err != nil {
		return nil, err
	}
	o := store.WatchOptions{ResourceVersion: opts.ResourceVersion}
	if opts.SendInitialEvents != nil {
		o.SendInitialEvents = *opts.SendInitialEvents
	}
	return h.Store.Watch(ctx, q, o)
}

func validateListOptions(opts *metav1.ListOptions) error {
	internal := &internalversion.ListOptions{
		Watch:                opts.Watch,
		ResourceVersion:      opts.ResourceVersion,
		ResourceVersionMatch: opts.ResourceVersionMatch,
		Limit:                opts.Limit,
		Continue:             opts.Continue,
		SendInitialEvents:    opts.SendInitialEvents,
	}
	if errs := internalvalidation.ValidateListOptions(internal, true); len(errs) > 0 {
		return invalidOptions("ListOptions", errs)
	}
	return nil
}

// query turns the selectors of a list or watch into one for the store.
func query(info *Info, opts *metav1.ListOptions) (store.Query, error) {
	row := info.row()
	q := store.Query{Resource: row, Namespace: info.storedNamespace(), Name: info.Name}
	byLabel, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return q, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return q, apierrors.NewBadRequest(err.Error())
	}
	rest, err := narrow(&q, info.Served, byField)
	if err != nil {
		return q, err
	}
	if info.Name != "" && q.Name != info.Name {
		return q, apierrors.NewBadRequest("fieldSelector metadata.name doesn't match requested name")
	}
	if q.Index == "" && q.Name == "" {
		q.Index, q.Value = labelIndex(byLabel)
	}
	q.Match = match(row, byLabel, rest)
	return q, nil
}

// labelIndex is the first label that a selector demands with its value, as the
// entry of the index under which all that it selects is found.
func labelIndex(selector labels.Selector) (index, value string) {
	terms, _ := selector.Requirements()
	for _, r := range terms {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.Values().UnsortedList(); len(values) == 1 {
				return api.IndexLabel, r.Key() + "=" + values[0]
			}
		}
	}
	return "", ""
}

// nodeField is the field that IndexNode indexes.
const nodeField = "spec.nodeName"

// narrow checks that the fields may be selected by, lets those that name one
// object, one namespace or one index entry narrow the query, and gives back
// what is still to be asked of each object, nil when nothing is.
func narrow(q *store.Query, served *api.Served, selector fields.Selector) (rest fields.Selector, err error) {
	row := served.Resource
	indexed := slices.ContainsFunc(row.Indexes, func(i api.Index) bool { return i.Name == api.IndexNode })
	var left []fields.Selector
	for _, r := range selector.Requirements() {
		label, err := served.FieldLabel(r.Field)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		exact := r.Operator == selection.Equals || r.Operator == selection.DoubleEquals
		switch {
		case r.Value == "": // names nothing
		case label == "metadata.name" && exact && (q.Name == "" || q.Name == r.Value):
			q.Name = r.Value
			continue
		case label == "metadata.namespace" && exact && row.Namespaced && (q.Namespace == "" || q.Namespace == r.Value):
			q.Namespace = r.Value
			continue
		case label == nodeField && exact && indexed && q.Index == "":
			q.Index, q.Value = api.IndexNode, r.Value
			continue
		}
		term := fields.OneTermEqualSelector(label, r.Value)
		if !exact {
			term = fields.OneTermNotEqualSelector(label, r.Value)
		}
		left = append(left, term)
	}
	if len(left) == 0 {
		return nil, nil
	}
	return fields.AndSelectors(left...), nil
}

// match is the part of the selectors that is asked of each object, nil when
// there is none.
func match(row *api.Resource, byLabel labels.Selector, byField fields.Selector) func(api.Object) bool {
	everyLabel := byLabel.Empty()
	if everyLabel && byField == nil {
		return nil
	}
	return func(obj api.Object) bool {
		if !everyLabel && !byLabel.Matches(labels.Set(obj.GetLabels())) {
			return false
		}
		return byField == nil || byField.Matches(fieldsOf(row, obj))
	}
}

func fieldsOf(row *api.Resource, obj api.Object) fields.Set {
	var set fields.Set
	if row.Fields != nil {
		set = row.Fields(obj)
	}
	if set == nil {
		set = fields.Set{}
	}
	set["metadata.name"] = obj.GetName()
	if row.Namespaced {
		set["metadata.namespace"] = obj.GetNamespace()
	}
	return set
}
