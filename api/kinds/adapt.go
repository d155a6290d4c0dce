package kinds

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hansa.dev/hansa/api"
)

// A row's old object is frozen, so what a new one takes over from it is copied.
// What compares the two defaults the new one first: leaving a default out is no
// change.

// The functions below turn a function over a kind's Go type into the row's
// function over any object. A row is only ever given its own kind.

func on[T api.Object](f func(T)) func(api.Object) {
	return func(obj api.Object) { f(obj.(T)) }
}

func onUpdate[T api.Object](f func(obj, old T)) func(obj, old api.Object) {
	return func(obj, old api.Object) { f(obj.(T), old.(T)) }
}

func parses[T api.Object](f func(T) error) func(api.Object) error {
	return func(obj api.Object) error { return f(obj.(T)) }
}

func validates[T api.Object](f func(T) field.ErrorList) func(api.Object) field.ErrorList {
	return func(obj api.Object) field.ErrorList { return api.Distinct(f(obj.(T))) }
}

func validatesUpdate[T api.Object](f func(obj, old T) field.ErrorList) func(obj, old api.Object) field.ErrorList {
	return func(obj, old api.Object) field.ErrorList { return api.Distinct(f(obj.(T), old.(T))) }
}

// countChange makes a new generation of obj if now, its desired state, is not was,
// that of old.
func countChange(obj, old api.Object, now, was any) {
	if !equality.Semantic.DeepEqual(now, was) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
}

// warns passes a nil old (on create) on as T's zero value.
func warns[T api.Object](f func(obj, old T) []string) func(obj, old api.Object) []string {
	return func(obj, old api.Object) []string {
		o, _ := old.(T)
		return f(obj.(T), o)
	}
}

func selects[T api.Object](f func(T) fields.Set) func(api.Object) fields.Set {
	return func(obj api.Object) fields.Set { return f(obj.(T)) }
}

func cells[T api.Object](f func(obj T, now time.Time) []any) func(api.Object, time.Time) []any {
	return func(obj api.Object, now time.Time) []any { return f(obj.(T), now) }
}

// stored fills in what follows from a kind having one served version, which is
// also its stored one.
func stored[T any, PT interface {
	*T
	api.Object
}, L any, PL interface {
	*L
	runtime.Object
}](gv schema.GroupVersion, r *api.Resource) *api.Resource {
	r.Group = gv.Group
	r.Storage = gv
	r.New = func() api.Object { return PT(new(T)) }
	r.NewList = func() runtime.Object { return PL(new(L)) }
	r.Versions = append(r.Versions, api.Version{GroupVersion: gv, New: r.New, NewList: r.NewList})
	return r
}

// storedAs sets the version in which a row is written to etcd where Kubernetes
// 1.37 still writes a beta: S differs from the hub H in its name only, which the
// test of round trips proves.
func storedAs[S, H any, PS message[S], PH message[H]](gv schema.GroupVersion, r *api.Resource) *api.Resource {
	r.Storage = gv
	r.StoredAs = &api.Version{
		GroupVersion: gv,
		New:          func() api.Object { return PS(new(S)) },
		ToHub:        func(obj api.Object) (api.Object, error) { return rewired[H, PH](obj.(PS)) },
		FromHub:      func(obj api.Object) (api.Object, error) { return rewired[S, PS](obj.(PH)) },
	}
	return r
}

// message is an object that has a protobuf form.
type message[T any] interface {
	*T
	api.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// rewired reads what one type writes to the wire as another type.
func rewired[T any, PT message[T]](from interface{ Marshal() ([]byte, error) }) (api.Object, error) {
	data, err := from.Marshal()
	if err != nil {
		return nil, err
	}
	to := PT(new(T))
	return to, to.Unmarshal(data)
}

// keepMeta is for updates of a status that leave all metadata alone, but for
// the field managers.
func keepMeta(obj, old api.Object) {
	metav1.ResetObjectMetaForStatus(obj, old.DeepCopyObject().(api.Object))
}

func stamps[T api.Object](f func(obj, old T, now metav1.Time)) func(obj, old api.Object, now time.Time) {
	return func(obj, old api.Object, now time.Time) {
		o, _ := old.(T)
		// What is stored has whole seconds.
		f(obj.(T), o, metav1.NewTime(now.Truncate(time.Second)))
	}
}

func defaultsTimes[T api.Object](f func(obj T, now metav1.Time)) func(obj api.Object, now time.Time) {
	return func(obj api.Object, now time.Time) { f(obj.(T), metav1.NewTime(now.Truncate(time.Second))) }
}

// resets is the set of dotted field paths that a writer does not come to own.
func resets(gv schema.GroupVersion, paths ...string) map[schema.GroupVersion]fieldpath.Filter {
	set := fieldpath.NewSet()
	for _, path := range paths {
		parts := []any{}
		for _, name := range strings.Split(path, ".") {
			parts = append(parts, name)
		}
		set.Insert(fieldpath.MakePathOrDie(parts...))
	}
	return map[schema.GroupVersion]fieldpath.Filter{gv: api.AllBut{Set: set}}
}

// updateVerbs are those of a subresource that is a view of its object.
var updateVerbs = []string{"get", "patch", "update"}

// objectMeta is the description source of the columns that show metadata.
var objectMeta = metav1.ObjectMeta{}.SwaggerDoc()
