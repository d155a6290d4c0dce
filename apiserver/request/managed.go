package request

import (
	"bytes"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/fields"
)

// managerKey names a field manager in the memo of a version: there is one for each
// subresource.
type managerKey struct{ subresource string }

// fieldManager knows who owns which field.
type fieldManager struct {
	library *managedfields.FieldManager
	tracker *fields.Tracker // nil: the library does all
	empty   api.Object      // what a create is compared with, frozen
}

// managerOf is that of the request's version and subresource, made at first use.
func (h *Handler) managerOf(info *Info) (*fieldManager, error) {
	gvk, empty := info.Served.Version.WithKind(info.Served.Kind), info.row().New
	if info.posts() {
		gvk, empty = info.sub().Kind, func() api.Object { return info.sub().New().(api.Object) }
	}
	memo, key := &info.Served.Memo, managerKey{info.Subresource}
	if m, ok := memo.Load(key); ok {
		return m.(*fieldManager), nil
	}
	reset := info.row().ResetFields
	if sub := info.sub(); sub != nil {
		reset = sub.ResetFields
	}
	filters := make(map[fieldpath.APIVersion]fieldpath.Filter, len(reset))
	for gv, filter := range reset {
		filters[fieldpath.APIVersion(gv.String())] = filter
	}
	library, err := h.library(info, gvk, filters)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("field manager of %s: %w", gvk, err))
	}
	m := &fieldManager{library: library, empty: empty()}
	if m.tracker, err = h.newTracker(info, gvk, empty(), reset[gvk.GroupVersion()]); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("field tracker of %s: %w", gvk, err))
	}
	stored, _ := memo.LoadOrStore(key, m)
	return stored.(*fieldManager), nil
}

// library is apimachinery's field manager.
func (h *Handler) library(info *Info, gvk schema.GroupVersionKind, filters map[fieldpath.APIVersion]fieldpath.Filter) (*managedfields.FieldManager, error) {
	if info.row().View != nil {
		merge := info.row().Merge()
		return managedfields.NewDefaultCRDFieldManager(merge, merge, merge, merge, gvk, gvk.GroupVersion(), info.Subresource, filters)
	}
	return managedfields.NewDefaultFieldManager(h.Converter(), h.convert, h.convert, h.convert, gvk, hubVersion(gvk.Group), info.Subresource, filters)
}

// newTracker makes the tracker of a version that is the hub's own type, that of
// example, or of no Go type, and whose writers own all but some fields.
func (h *Handler) newTracker(info *Info, gvk schema.GroupVersionKind, example api.Object, reset fieldpath.Filter) (*fields.Tracker, error) {
	excluded, plain := reset.(api.AllBut)
	if reset != nil && !plain {
		return nil, nil
	}
	if info.row().View != nil {
		kind, err := info.row().Merge().Type()
		if err != nil {
			return nil, nil //nolint:nilerr // the library says it, as it says of every object
		}
		return fields.NewTreeTracker(kind, gvk.GroupVersion().String(), info.Subresource, excluded.Set, &h.fields), nil
	}
	if info.Served.Version.FromHub != nil {
		return nil, nil
	}
	example = withKind(example, gvk)
	kind, err := h.Converter().(*typeConverter).typeOf(example, nil)
	if err != nil {
		return nil, err
	}
	return fields.NewTracker(kind, gvk.GroupVersion().String(), info.Subresource, example, excluded.Set, &h.fields), nil
}

// track records in obj's managedFields which fields its writer has set compared
// to live (nil on create). A failure keeps the managers that were known before:
// tracking never stands in the way of a write.
func (h *Handler) track(info *Info, obj, live api.Object, manager string) error {
	m, err := h.managerOf(info)
	if err != nil {
		return err
	}
	if live == nil {
		live = m.empty
	}
	if m.tracker == nil || !m.tracker.Update(live, obj, manager, h.now()) {
		m.library.UpdateNoErrors(live, obj, manager)
	}
	return nil
}

// keepValidManagers undoes what an admission plugin did to managedFields when
// the result cannot be read.
func keepValidManagers(obj api.Object, before []metav1.ManagedFieldsEntry, warn func(string)) {
	after := obj.GetManagedFields()
	if sameManagers(before, after, true) {
		return
	}
	if err := managedfields.ValidateManagedFields(after); err != nil {
		obj.SetManagedFields(before)
		warn(fmt.Sprintf(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: %v", err))
	}
}

// sameManagers compares two lists of managers, with or without their times.
func sameManagers(a, b []metav1.ManagedFieldsEntry, times bool) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		switch {
		case x.Manager != y.Manager, x.Operation != y.Operation, x.APIVersion != y.APIVersion,
			x.FieldsType != y.FieldsType, x.Subresource != y.Subresource,
			(x.FieldsV1 == nil) != (y.FieldsV1 == nil),
			times && !x.Time.Equal(y.Time):
			return false
		case x.FieldsV1 != nil && !bytes.Equal(x.FieldsV1.GetRawBytes(), y.FieldsV1.GetRawBytes()):
			return false
		}
	}
	return true
}
