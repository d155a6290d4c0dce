package modeltest

import (
	"maps"
	"net/http"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// content is what an object says in the leaves of its kind, by their index.
// What is not there is not said.
type content map[int]any

// owner is one entry of managedFields.
type owner struct{ manager, operation, subresource string }

// object is what the model knows of one. It is replaced and never changed.
type object struct {
	uid        string
	version    int64 // 0: not known
	generation int64
	content    content
	deleting   bool
	grace      int64 // seconds, of one that is being deleted
	owners     map[owner]sets.Set[int]
	raw        map[string]any // as the server last showed it
}

// refusal is the code and reason of an error.
type refusal struct {
	code   int
	reason metav1.StatusReason
}

var (
	notFound      = &refusal{http.StatusNotFound, metav1.StatusReasonNotFound}
	exists        = &refusal{http.StatusConflict, metav1.StatusReasonAlreadyExists}
	conflict      = &refusal{http.StatusConflict, metav1.StatusReasonConflict}
	unprocessable = &refusal{http.StatusUnprocessableEntity, metav1.StatusReasonInvalid}
)

// outcome is what an operation leads to: a refusal, or an object as it is then.
type outcome struct {
	refused *refusal
	// next is the object as it is answered. gone says that it is no more.
	next *object
	gone bool
	// created and changed say whether there is something to hear of.
	created, changed bool
}

func refuse(r *refusal) outcome { return outcome{refused: r} }

// write is what there is to know of a create, update, patch or apply.
type write struct {
	kind        *Kind
	subresource string
	manager     string
	// want is the content asked for; of an apply, the part that is applied.
	want content
	// version and uid are what the writer has seen: "", right or wrong.
	version, uid seen
	apply, force bool
}

type seen string

const (
	right seen = "right"
	wrong seen = "wrong"
)

// create makes an object.
// https://kubernetes.io/docs/reference/using-api/api-concepts/
func (w *write) create() outcome {
	next := &object{content: w.allowed(nil, w.want), owners: map[owner]sets.Set[int]{}}
	if w.kind.generation {
		next.generation = 1
	}
	next.owners[w.owner()] = sets.KeySet(next.content)
	return outcome{next: next, created: true, changed: true}
}

func (w *write) owner() owner {
	if w.apply {
		return owner{w.manager, string(metav1.ManagedFieldsOperationApply), w.subresource}
	}
	return owner{w.manager, string(metav1.ManagedFieldsOperationUpdate), w.subresource}
}

// allowed is wanted, but what the writer has no say in is as it was. The
// resource has none in the status, the status none in the spec.
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#spec-and-status
func (w *write) allowed(was, wanted content) content {
	out := content{}
	for i, l := range w.kind.leaves {
		from := wanted
		if w.subresource == "" && l.path[0] == "status" || w.subresource == "status" && w.kind.statusKeeps(l) {
			from = was
		}
		if v, ok := from[i]; ok {
			out[i] = v
		}
	}
	return out
}

// change updates an object that may not be there.
func (w *write) change(cur *object) outcome {
	if cur == nil {
		if w.apply && w.subresource == "" {
			return w.create()
		}
		return refuse(notFound)
	}
	next := *cur
	var ok bool
	if w.apply {
		next.content, next.owners, ok = w.applied(cur)
	} else {
		next.content, next.owners, ok = w.updated(cur)
	}
	if !ok || w.version == wrong || w.uid == wrong {
		return refuse(conflict)
	}
	if cur.deleting && w.addsFinalizer(cur.content, next.content) {
		return refuse(unprocessable)
	}
	for i, l := range w.kind.leaves {
		if w.subresource == "" && w.kind.bumps(l) && !reflect.DeepEqual(cur.content[i], next.content[i]) {
			next.generation = cur.generation + 1
		}
	}
	return outcome{
		next:    &next,
		changed: !reflect.DeepEqual(cur.content, next.content) || !reflect.DeepEqual(cur.owners, next.owners),
		gone:    cur.deleting && cur.grace == 0 && !w.kind.held(next.content),
	}
}

func (w *write) addsFinalizer(was, is content) bool {
	for i, l := range w.kind.leaves {
		if l.finalizer() && was[i] == nil && is[i] != nil {
			return true
		}
	}
	return false
}

// updated is an update: its manager owns what it has changed, and nobody else.
func (w *write) updated(cur *object) (content, map[owner]sets.Set[int], bool) {
	next := w.allowed(cur.content, w.want)
	owners := cloneOwners(cur.owners)
	mine := owners[w.owner()].Clone()
	for i := range w.kind.leaves {
		if reflect.DeepEqual(cur.content[i], next[i]) {
			continue
		}
		for _, set := range owners {
			set.Delete(i)
		}
		mine.Delete(i)
		if next[i] != nil {
			mine.Insert(i)
		}
	}
	owners[w.owner()] = mine
	return next, withoutEmpty(owners), true
}

// applied is server-side apply; not ok is a conflict.
// https://kubernetes.io/docs/reference/using-api/server-side-apply/
func (w *write) applied(cur *object) (next content, owners map[owner]sets.Set[int], ok bool) {
	config := w.allowed(nil, w.want)
	next, owners, ok = maps.Clone(cur.content), cloneOwners(cur.owners), true
	before := owners[w.owner()]
	delete(owners, w.owner())
	for i := range w.kind.leaves {
		var others []sets.Set[int]
		for _, set := range owners {
			if set.Has(i) {
				others = append(others, set)
			}
		}
		switch v, applies := config[i]; {
		case applies && !reflect.DeepEqual(v, cur.content[i]):
			if len(others) > 0 && !w.force {
				ok = false
			}
			for _, set := range others {
				set.Delete(i)
			}
			next[i] = v
		case !applies && before.Has(i) && len(others) == 0:
			delete(next, i)
		}
	}
	owners[w.owner()] = sets.KeySet(config)
	return next, withoutEmpty(owners), ok
}

func cloneOwners(owners map[owner]sets.Set[int]) map[owner]sets.Set[int] {
	out := map[owner]sets.Set[int]{}
	for o, set := range owners {
		out[o] = set.Clone()
	}
	return out
}

func withoutEmpty(owners map[owner]sets.Set[int]) map[owner]sets.Set[int] {
	maps.DeleteFunc(owners, func(_ owner, set sets.Set[int]) bool { return len(set) == 0 })
	return owners
}

// deletion is what there is to know of a delete.
type deletion struct {
	kind         *Kind
	version, uid seen
	grace        *int64
}

// remove deletes an object that may not be there.
// https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
func (d *deletion) remove(cur *object) outcome {
	switch {
	case cur == nil:
		return refuse(notFound)
	case d.version == wrong, d.uid == wrong:
		return refuse(conflict)
	}
	next := *cur
	grace := int64(0)
	if d.kind.grace > 0 {
		grace = d.kind.grace
		if d.grace != nil {
			grace = *d.grace
		}
		if cur.deleting && (d.grace == nil || grace >= cur.grace) {
			grace = cur.grace // it can only be brought forward
		}
	}
	next.deleting, next.grace = true, grace
	if !cur.deleting && cur.generation > 0 {
		next.generation++
	}
	return outcome{
		next:    &next,
		changed: !cur.deleting || cur.grace != grace,
		gone:    grace == 0 && !d.kind.held(cur.content),
	}
}
