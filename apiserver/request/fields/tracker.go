// Package fields says which fields a write has set, as apimachinery's field
// managers do, in a fraction of the time. Where it is not certain to come to the
// very same bytes it leaves the write to them.
//
// The library wraps each value of both objects, makes a tree of sets of what
// differs, decodes the sets of all managers, and encodes all of them. Here the
// merge schema is compiled for the Go type once (node); comparing two objects
// (diff) writes FieldsV1 at once, since it goes by them in the order of FieldsV1;
// and sets of managers are decoded once for all objects that were written alike
// (sets), and encoded when they have changed.
//
// It is sure of updates by the same version as all managers', of objects whose
// lists have each item once and whose keys need no escaping in JSON.
package fields

import (
	"cmp"
	"reflect"
	"slices"
	"sync"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// maxUpdaters is how many managers that update an object may have. The library
// merges the oldest when there are more.
const maxUpdaters = 10

// unowned are the fields of every object that no manager comes to own.
var unowned = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"),
	fieldpath.MakePathOrDie("kind"),
	fieldpath.MakePathOrDie("metadata", "name"),
	fieldpath.MakePathOrDie("metadata", "namespace"),
	fieldpath.MakePathOrDie("metadata", "creationTimestamp"),
	fieldpath.MakePathOrDie("metadata", "selfLink"),
	fieldpath.MakePathOrDie("metadata", "uid"),
	fieldpath.MakePathOrDie("metadata", "clusterName"),
	fieldpath.MakePathOrDie("metadata", "generation"),
	fieldpath.MakePathOrDie("metadata", "managedFields"),
	fieldpath.MakePathOrDie("metadata", "resourceVersion"),
)

// Tracker is for the writes of one kind in one version, of the resource or of
// one of its subresources. Its methods may be called from any goroutine.
type Tracker struct {
	apiVersion, subresource string
	schema                  *typed.TypedValue // null, of the kind's type
	goType                  reflect.Type      // of the objects; nil for trees
	root                    *node
	sets                    *sets
	diffs                   sync.Pool // of *diff
}

// Common is what all trackers of a server share: types that are part of many
// kinds, and sets. The zero value is ready.
type Common struct {
	compiling sync.Mutex
	known     map[named]*node
	sets      sets
}

// compile says how objects of a Go type are owned. skip are the fields that
// nobody owns.
func (c *Common) compile(kind typed.ParseableType, t reflect.Type, skip *fieldpath.Set) *node {
	c.compiling.Lock()
	defer c.compiling.Unlock()
	if c.known == nil {
		c.known = map[named]*node{}
	}
	in := compiler{schema: kind.Schema, known: c.known}
	return in.place(kind.TypeRef, t, skip)
}

// NewTracker makes a tracker for objects of the type that example points to.
// excluded are fields that its writers do not come to own; it may be nil.
func NewTracker(kind typed.ParseableType, apiVersion, subresource string, example metav1.Object, excluded *fieldpath.Set, common *Common) *Tracker {
	t := newTracker(kind, apiVersion, subresource, common)
	t.goType = reflect.TypeOf(example)
	t.root = common.compile(kind, t.goType, unownedAnd(excluded))
	return t
}

// newTracker makes a tracker that knows no places yet.
func newTracker(kind typed.ParseableType, apiVersion, subresource string, common *Common) *Tracker {
	t := &Tracker{
		apiVersion: apiVersion, subresource: subresource, sets: &common.sets,
		//nolint:staticcheck // there is no value to validate
		schema: typed.AsTypedUnvalidated(value.NewValueInterface(nil), kind.Schema, kind.TypeRef),
	}
	t.diffs.New = func() any { return &diff{} }
	return t
}

// unownedAnd is unowned with what else nobody comes to own; more may be nil.
func unownedAnd(more *fieldpath.Set) *fieldpath.Set {
	if more == nil {
		return unowned
	}
	return unowned.Union(more)
}

// reconcile is what the library makes of a set that was written when the schema
// was another one: nil for the same.
func (t *Tracker) reconcile(s *fieldpath.Set) (*fieldpath.Set, error) {
	return typed.ReconcileFieldSetWithSchema(s, t.schema)
}

// held is a manager with its set.
type held struct {
	metav1.ManagedFieldsEntry
	set *set
}

// Update sets obj's managers after an update of live, an empty object on create.
// It says whether it could; if not, obj is as it was. live is only read.
func (t *Tracker) Update(live, obj metav1.Object, manager string, now metav1.Time) bool {
	if t.root.shape != object || !t.tracks(live) || !t.tracks(obj) || !utf8.ValidString(manager) {
		return false
	}
	entries, ok := t.entries(live, obj)
	if !ok {
		return false
	}
	if len(entries) == 0 && live.GetUID() != "" {
		// Nobody has tracked it so far.
		obj.SetManagedFields(nil)
		return true
	}
	managers, ok := t.hold(entries)
	if !ok {
		return false
	}
	d := t.diffs.Get().(*diff)
	d.run(t.root, contents(live), contents(obj))
	next, ok := t.next(managers, d, metav1.ManagedFieldsEntry{
		Manager: cmp.Or(manager, "unknown"), Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: t.apiVersion,
		Time: &now, FieldsType: fieldsType, Subresource: t.subresource,
	})
	if d.forget() {
		t.diffs.Put(d)
	}
	if ok {
		obj.SetManagedFields(next)
	}
	return ok
}

// tracks says whether an object is of the tracker's type.
func (t *Tracker) tracks(obj metav1.Object) bool {
	if t.goType != nil {
		return reflect.TypeOf(obj) == t.goType
	}
	_, ok := obj.(tree)
	return ok
}

const fieldsType = "FieldsV1"

// entries are the managers that the update starts from: those that the writer
// says, or else the present ones. Some ways to say them mean something else.
func (t *Tracker) entries(live, obj metav1.Object) (entries []metav1.ManagedFieldsEntry, ok bool) {
	own := obj.GetManagedFields()
	switch {
	case t.subresource != "" || own == nil:
		return live.GetManagedFields(), true
	case len(own) == 0:
		return nil, false
	}
	return own, true
}

// hold reads the sets of all managers. It cannot when one is out of the ordinary.
func (t *Tracker) hold(entries []metav1.ManagedFieldsEntry) (managers []held, ok bool) {
	managers = make([]held, len(entries), len(entries)+1)
	for i := range entries {
		e := &entries[i]
		if e.Operation != metav1.ManagedFieldsOperationApply && e.Operation != metav1.ManagedFieldsOperationUpdate ||
			e.APIVersion != t.apiVersion || e.FieldsType != fieldsType || e.FieldsV1 == nil ||
			!utf8.ValidString(e.Manager) || !utf8.ValidString(e.Subresource) {
			return nil, false
		}
		if slices.ContainsFunc(managers[:i], func(m held) bool { return sameManager(&m.ManagedFieldsEntry, e) }) {
			return nil, false
		}
		s := t.sets.get(t, e.FieldsV1.GetRawBytes())
		if !s.usual {
			return nil, false
		}
		managers[i] = held{*e, s}
		if !s.fields.Equal(*e.FieldsV1) {
			managers[i].FieldsV1 = s.fields
		}
	}
	return managers, true
}

// sameManager compares two managers of the same version.
func sameManager(a, b *metav1.ManagedFieldsEntry) bool {
	return a.Manager == b.Manager && a.Operation == b.Operation && a.Subresource == b.Subresource
}

// next gives the managers after what the diff says was done by writer. What has
// changed is the writer's, what was removed is nobody's.
func (t *Tracker) next(managers []held, d *diff, writer metav1.ManagedFieldsEntry) ([]metav1.ManagedFieldsEntry, bool) {
	if d.unsure {
		return nil, false
	}
	if len(managers) == 0 {
		return t.first(d, writer), true
	}
	changed, ok := t.side(&d.changed)
	if !ok {
		return nil, false
	}
	removed, ok := t.side(&d.removed)
	if !ok {
		return nil, false
	}
	if changed != nil {
		managers = join(managers, writer, changed)
	}
	out := make([]metav1.ManagedFieldsEntry, 0, len(managers))
	updaters := 0
	for i := range managers {
		m := &managers[i]
		left, err := t.left(m, changed, removed, sameManager(&m.ManagedFieldsEntry, &writer))
		if err != nil {
			return nil, false
		}
		if left == nil {
			continue
		}
		if left != m.set {
			m.FieldsV1 = left.fields
		}
		if m.Operation == metav1.ManagedFieldsOperationUpdate {
			updaters++
		}
		out = append(out, m.ManagedFieldsEntry)
	}
	if len(out) == 0 {
		return nil, true
	}
	slices.SortFunc(out, ByOperationAndTime)
	return out, updaters <= maxUpdaters
}

// join makes the writer of what has changed one of the managers.
func join(managers []held, writer metav1.ManagedFieldsEntry, changed *set) []held {
	i := slices.IndexFunc(managers, func(m held) bool { return sameManager(&m.ManagedFieldsEntry, &writer) })
	if i < 0 {
		writer.FieldsV1 = changed.fields
		return append(managers, held{writer, changed})
	}
	managers[i].Time = writer.Time
	return managers
}

// first gives the managers of an object that had none.
func (t *Tracker) first(d *diff, writer metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	if d.changed.empty() {
		return nil
	}
	writer.FieldsV1 = fieldsV1(d.changed.b)
	return []metav1.ManagedFieldsEntry{writer}
}

// side reads one side of a diff, nil if there is nothing on it.
func (t *Tracker) side(w *writer) (*set, bool) {
	if w.empty() {
		return nil, true
	}
	s := t.sets.get(t, w.b)
	return s, s.usual
}

// left is what a manager owns after a write: its set if that stays as it is, nil
// if nothing is left.
func (t *Tracker) left(m *held, changed, removed *set, writes bool) (*set, error) {
	now := m.set.Set
	if removed != nil && !now.Intersection(removed.Set).Empty() {
		now = now.Difference(removed.Set)
	}
	switch {
	case changed == nil:
	case !writes:
		if !now.Intersection(changed.Set).Empty() {
			now = now.Difference(changed.Set)
		}
	case !changed.Difference(now).Empty():
		now = changed.Union(now)
	}
	switch {
	case now == m.set.Set:
		return m.set, nil
	case now.Empty():
		return nil, nil
	}
	return t.sets.write(t, now)
}

// ByOperationAndTime is the library's order of managers.
func ByOperationAndTime(a, b metav1.ManagedFieldsEntry) int {
	return cmp.Or(
		cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(seconds(a.Time), seconds(b.Time)),
		cmp.Compare(a.Manager, b.Manager),
		cmp.Compare(a.APIVersion, b.APIVersion),
		cmp.Compare(a.Subresource, b.Subresource),
	)
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}
