package modeltest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// compareObject holds what the server shows against the model.
func (r *run) compareObject(where string, want *object, obj map[string]any) {
	r.Helper()
	metadata, _ := obj["metadata"].(map[string]any)
	got := &object{content: r.kind.read(obj), owners: r.owners(obj)}
	got.uid, _ = metadata["uid"].(string)
	got.generation, _ = metadata["generation"].(int64)
	got.deleting = metadata["deletionTimestamp"] != nil
	got.grace, _ = metadata["deletionGracePeriodSeconds"].(int64)
	switch {
	case !reflect.DeepEqual(got.content, want.content):
		r.Fatalf("%s: says %v, want %v\n%s", where, r.say(got.content), r.say(want.content), text(obj))
	case got.generation != want.generation:
		r.Fatalf("%s: generation %d, want %d", where, got.generation, want.generation)
	case got.deleting != want.deleting, got.grace != want.grace:
		r.Fatalf("%s: being deleted %v in %d s, want %v in %d s", where, got.deleting, got.grace, want.deleting, want.grace)
	case got.uid == "", want.uid != "" && got.uid != want.uid:
		r.Fatalf("%s: uid %q, want %q", where, got.uid, want.uid)
	case !reflect.DeepEqual(got.owners, want.owners):
		r.Fatalf("%s: fields belong to\n%v, want\n%v\n%s", where, r.sayOwners(got.owners), r.sayOwners(want.owners), text(obj))
	}
}

func text(obj map[string]any) string {
	b, err := json.MarshalIndent(obj, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// say is a content in words.
func (r *run) say(c content) map[string]any {
	out := map[string]any{}
	for i, v := range c {
		out[field(r.kind.leaves[i].path).String()] = v
	}
	return out
}

func (r *run) sayOwners(owners map[owner]sets.Set[int]) map[owner][]string {
	out := map[owner][]string{}
	for o, set := range owners {
		for _, i := range sets.List(set) {
			out[o] = append(out[o], field(r.kind.leaves[i].path).String())
		}
	}
	return out
}

// owners are those of the leaves, by managedFields.
func (r *run) owners(obj map[string]any) map[owner]sets.Set[int] {
	r.Helper()
	var meta struct{ Metadata metav1.ObjectMeta }
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"managedFields": get(obj, path("metadata managedFields"))}})
	if err == nil {
		err = json.Unmarshal(data, &meta)
	}
	if err != nil {
		r.Fatal(err)
	}
	owners := map[owner]sets.Set[int]{}
	for _, m := range meta.Metadata.ManagedFields {
		if m.APIVersion != r.kind.version || m.Time == nil || m.FieldsV1 == nil {
			r.Fatalf("fields are managed by %+v", m)
		}
		var fields fieldpath.Set
		if err := fields.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())); err != nil {
			r.Fatal(err)
		}
		o := owner{m.Manager, string(m.Operation), m.Subresource}
		if owners[o] != nil {
			r.Fatalf("%v is noted twice", o)
		}
		owners[o] = sets.Set[int]{}
		for i, l := range r.kind.leaves {
			if fields.Has(field(l.path)) {
				owners[o].Insert(i)
			}
		}
	}
	return withoutEmpty(owners)
}

// settle holds an answer against what was to come, and remembers what came.
func (r *run) settle(what, name string, out outcome, a answer, dry bool) {
	r.Helper()
	r.group++
	if !r.refused(what, out, a) {
		r.accepted(what, name, out, a.obj, dry)
	}
	r.last = r.newest
}

// refused checks code and reason, and says whether it was to be refused.
func (r *run) refused(what string, out outcome, a answer) bool {
	r.Helper()
	if out.refused == nil {
		want := http.StatusOK
		if out.created {
			want = http.StatusCreated
		}
		if a.code != want {
			r.Fatalf("%s: is answered %d %v, want %d", what, a.code, a.obj["message"], want)
		}
		return false
	}
	reason, _ := a.obj["reason"].(string)
	if a.code != out.refused.code || metav1.StatusReason(reason) != out.refused.reason || a.obj["code"] != int64(a.code) {
		r.Fatalf("%s: is answered %d %s %v, want %d %s", what, a.code, reason, a.obj["message"], out.refused.code, out.refused.reason)
	}
	return true
}

// accepted takes up an object that is answered, or a Status.
func (r *run) accepted(what, name string, out outcome, obj map[string]any, dry bool) {
	r.Helper()
	cur := r.objects[name]
	shown := obj["kind"] != "Status"
	if shown && !out.gone {
		r.compareObject(what, out.next, obj)
	}
	if dry {
		return
	}
	next := *out.next
	if shown {
		next.raw = runtime.DeepCopyJSON(obj)
		next.raw["apiVersion"], next.raw["kind"] = r.kind.version, r.kind.name
		next.uid, _ = get(obj, path("metadata uid")).(string)
		next.version = versionOf(r, obj)
	}
	switch {
	case out.gone:
		delete(r.objects, name)
		r.history = append(r.history, moment{r.group, name, cur, nil})
		return
	case !shown && out.changed:
		r.Fatalf("%s: the changed object is not shown: %s", what, text(obj))
	case out.changed && next.version <= r.last:
		r.Fatalf("%s: version %d behind %d", what, next.version, r.last)
	case !out.changed && next.version != cur.version:
		r.Fatalf("%s: nothing changed, and version %d became %d:\n%s\nwas\n%s", what, cur.version, next.version, text(next.raw), text(cur.raw))
	case out.changed:
		r.newest = max(r.newest, next.version)
		r.history = append(r.history, moment{r.group, name, cur, &next})
	}
	r.objects[name] = &next
}
