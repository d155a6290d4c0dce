package modeltest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func (r *run) drawName() string { return rapid.SampledFrom(r.names).Draw(r.T, "name") }

func (r *run) drawManager() string {
	return rapid.SampledFrom([]string{"m1", "m2", defaultManager}).Draw(r.T, "manager")
}

// seldom is true now and then.
func (r *run) seldom(label string) bool { return rapid.IntRange(0, 5).Draw(r.T, label) == 5 }

func (r *run) drawSubresource() string {
	if r.kind.status && rapid.IntRange(0, 2).Draw(r.T, "subresource") == 0 {
		return "status"
	}
	return ""
}

// drawSeen is what a writer says to have seen of an object, if there is one.
func (r *run) drawSeen(label string, cur *object) seen {
	if cur == nil {
		return ""
	}
	return rapid.SampledFrom([]seen{"", "", right, right, wrong}).Draw(r.T, label)
}

// drawLeaf is a value of a leaf, or nil for none.
func (r *run) drawLeaf(l leaf) any {
	values := l.values
	if !l.always {
		values = append(slices.Clone(values), nil)
	}
	return rapid.SampledFrom(values).Draw(r.T, field(l.path).String())
}

// drawContent is any content, near to another.
func (r *run) drawContent(near content) content {
	c := content{}
	for i, l := range r.kind.leaves {
		v := near[i]
		if v == nil && l.always || rapid.Bool().Draw(r.T, "new") {
			v = r.drawLeaf(l)
		}
		if v != nil {
			c[i] = v
		}
	}
	return c
}

// fill adds what every object says.
func (r *run) fill(c content) content {
	for i, l := range r.kind.leaves {
		if l.always && c[i] == nil {
			c[i] = l.values[0]
		}
	}
	return c
}

func (r *run) withoutFinalizers(c content) content {
	c = maps.Clone(c)
	for i, l := range r.kind.leaves {
		if l.finalizer() {
			delete(c, i)
		}
	}
	return c
}

func query(manager string, dry bool) url.Values {
	q := url.Values{}
	if manager != defaultManager {
		q.Set("fieldManager", manager)
	}
	if dry {
		q.Set("dryRun", metav1.DryRunAll)
	}
	return q
}

func (r *run) encode(mediaType string, obj map[string]any) []byte {
	r.Helper()
	data, err := encode(mediaType, obj)
	if err != nil {
		r.Fatal(err)
	}
	return data
}

// send writes an object in some encoding.
func (r *run) send(method, path string, obj map[string]any) answer {
	r.Helper()
	mediaType := drawMedia.Draw(r.T, "body")
	return r.do(call{method, path, mediaType, r.encode(mediaType, obj), drawMedia.Draw(r.T, "accept")})
}

func (r *run) create() {
	name := r.drawName()
	r.created(name, r.drawContent(nil), r.drawManager(), r.seldom("dry"))
}

func (r *run) created(name string, c content, manager string, dry bool) {
	r.Helper()
	obj := r.kind.compose(r.kind.object(name, r.server.Namespace), c)
	a := r.send(http.MethodPost, r.path("", "", query(manager, dry)), obj)
	r.settle("create "+name, name, r.creation(name, c, manager), a, dry)
}

func (r *run) creation(name string, c content, manager string) outcome {
	if r.objects[name] != nil {
		return refuse(exists)
	}
	return (&write{kind: r.kind, manager: manager, want: c}).create()
}

// generate lets the server choose the name.
func (r *run) generate() {
	if len(r.names) > 5 {
		r.create()
		return
	}
	c, manager := r.drawContent(nil), r.drawManager()
	obj := r.kind.compose(r.kind.object("", r.server.Namespace), c)
	base := r.label + "-g-"
	put(obj, path("metadata generateName"), base)
	drop(obj, path("metadata name"))
	a := r.send(http.MethodPost, r.path("", "", query(manager, false)), obj)
	name, _ := get(a.obj, path("metadata name")).(string)
	if a.code != http.StatusCreated || !strings.HasPrefix(name, base) || len(name) != len(base)+5 || r.objects[name] != nil {
		r.Fatalf("a generated name is %q (%d %v)", name, a.code, a.obj["message"])
	}
	r.names = append(r.names, name)
	r.settle("generate "+name, name, r.creation(name, c, manager), a, false)
}

// body is an object to replace another with, read before or written anew.
func (r *run) body(name, subresource string, cur *object, w *write) map[string]any {
	obj := r.kind.object(name, r.server.Namespace)
	if cur != nil {
		if subresource != "" || rapid.Bool().Draw(r.T, "read before") {
			obj = runtime.DeepCopyJSON(cur.raw)
		} else {
			keepOrder(obj, cur)
			if base := get(cur.raw, path("metadata generateName")); base != nil {
				put(obj, path("metadata generateName"), base)
			}
		}
	}
	obj = r.kind.compose(obj, w.want)
	metadata := obj["metadata"].(map[string]any)
	say(metadata, "resourceVersion", w.version, cur, "1")
	say(metadata, "uid", w.uid, cur, "other")
	return obj
}

// keepOrder gives an object the finalizers of another in their order.
func keepOrder(obj map[string]any, cur *object) {
	if list := get(cur.raw, path("metadata finalizers")); list != nil {
		put(obj, path("metadata finalizers"), runtime.DeepCopyJSONValue(list))
	}
}

// say puts into metadata what a writer has seen.
func say(metadata map[string]any, key string, s seen, cur *object, other string) {
	switch s {
	case "":
		delete(metadata, key)
	case wrong:
		metadata[key] = other
	case right:
		metadata[key] = get(cur.raw, []string{"metadata", key})
	}
}

func (r *run) update() {
	name := r.drawName()
	cur, dry := r.objects[name], r.seldom("dry")
	w := r.drawUpdate(cur, r.drawManager())
	a := r.send(http.MethodPut, r.path(name, w.subresource, query(w.manager, dry)), r.body(name, w.subresource, cur, w))
	r.settle(fmt.Sprintf("update %s of %s", w.subresource, name), name, w.change(cur), a, dry)
}

func (r *run) drawUpdate(cur *object, manager string) *write {
	w := &write{kind: r.kind, subresource: r.drawSubresource(), manager: manager}
	w.version, w.uid = r.drawSeen("version", cur), r.drawSeen("uid", cur)
	var near content
	if cur != nil {
		near = cur.content
	}
	w.want = r.drawContent(near)
	return w
}

// patched sends a merge patch.
func (r *run) patched(name, subresource, manager, patch string, want content) {
	r.Helper()
	w := &write{kind: r.kind, subresource: subresource, manager: manager, want: want}
	r.patch(name, types.MergePatchType, []byte(patch), w, false)
}

func (r *run) patch(name string, as types.PatchType, patch []byte, w *write, dry bool) {
	r.Helper()
	q := query(w.manager, dry)
	if w.apply {
		q.Set("fieldManager", w.manager)
		q.Set("force", strconv.FormatBool(w.force))
	}
	a := r.do(call{http.MethodPatch, r.path(name, w.subresource, q), string(as), patch, drawMedia.Draw(r.T, "accept")})
	what := fmt.Sprintf("%s to %s of %s: %q", as, w.subresource, name, patch)
	r.settle(what, name, w.change(r.objects[name]), a, dry)
}

// drawPatch is a write of a few leaves. touched are those that it may have
// changed.
func (r *run) drawPatch(cur *object, may func(leaf) bool) (w *write, touched []int) {
	w = &write{kind: r.kind, subresource: r.drawSubresource(), manager: r.drawManager(), version: r.drawSeen("version", cur), want: content{}}
	if cur != nil {
		w.want = maps.Clone(cur.content)
	}
	for i, l := range r.kind.leaves {
		if l.fixed || !may(l) || !rapid.Bool().Draw(r.T, "patched") {
			continue
		}
		touched = append(touched, i)
		if v := r.drawLeaf(l); v != nil {
			w.want[i] = v
		} else {
			delete(w.want, i)
		}
	}
	return w, touched
}

// finalizers are those of a content; they keep the order that they have.
func (r *run) finalizers(cur *object, c content) []any {
	obj := map[string]any{}
	if cur != nil {
		keepOrder(obj, cur)
	}
	list, _ := get(r.kind.compose(obj, c), path("metadata finalizers")).([]any)
	return list
}

func inList(l leaf) bool { return strings.Contains(strings.Join(l.path, " "), "name=") }

// mergePatch: RFC 7386.
func (r *run) mergePatch() {
	name := r.drawName()
	cur := r.objects[name]
	w, touched := r.drawPatch(cur, func(l leaf) bool { return !inList(l) })
	patch := map[string]any{"metadata": map[string]any{}}
	for _, i := range touched {
		l := r.kind.leaves[i]
		if !l.finalizer() {
			put(patch, l.path, w.want[i])
		} else if list := r.finalizers(cur, w.want); list != nil {
			put(patch, path("metadata finalizers"), list)
		} else {
			put(patch, path("metadata finalizers"), nil)
		}
	}
	say(patch["metadata"].(map[string]any), "resourceVersion", w.version, cur, "1")
	r.patch(name, types.MergePatchType, r.encode(media[0], patch), w, r.seldom("dry"))
}

// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
func (r *run) strategicPatch() {
	name := r.drawName()
	cur := r.objects[name]
	w, touched := r.drawPatch(cur, func(leaf) bool { return true })
	patch := map[string]any{"metadata": map[string]any{}}
	for _, i := range touched {
		l := r.kind.leaves[i]
		switch {
		case !l.inSet():
			put(patch, l.path, w.want[i])
		case w.want[i] != nil:
			put(patch, l.path, true)
		default:
			put(patch, []string{"metadata", "$deleteFromPrimitiveList/finalizers", l.path[2]}, true)
		}
	}
	say(patch["metadata"].(map[string]any), "resourceVersion", w.version, cur, "1")
	r.patch(name, types.StrategicMergePatchType, r.encode(media[0], patch), w, r.seldom("dry"))
}

// jsonPatch: RFC 6902.
func (r *run) jsonPatch() {
	name := r.drawName()
	cur := r.objects[name]
	w, _ := r.drawPatch(cur, func(leaf) bool { return false })
	var steps []map[string]any
	ok := true
	for range rapid.IntRange(1, 3).Draw(r.T, "steps") {
		i := rapid.IntRange(1, len(r.kind.leaves)-1).Draw(r.T, "leaf")
		ok = r.drawStep(cur, w.want, i, &steps) && ok
	}
	metadata := map[string]any{}
	if say(metadata, "resourceVersion", w.version, cur, "1"); w.version != "" {
		steps = append(steps, map[string]any{"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]})
	}
	data, err := json.Marshal(steps)
	if err != nil {
		r.Fatal(err)
	}
	if cur != nil && !ok {
		a := r.do(call{http.MethodPatch, r.path(name, w.subresource, nil), string(types.JSONPatchType), data, media[0]})
		r.settle(fmt.Sprintf("JSON patch of %s: %s", name, data), name, refuse(unprocessable), a, false)
		return
	}
	r.patch(name, types.JSONPatchType, data, w, r.seldom("dry"))
}

// drawStep adds an operation on a leaf and does it to the content. It says
// whether it can be done.
func (r *run) drawStep(cur *object, c content, i int, steps *[]map[string]any) bool {
	l := r.kind.leaves[i]
	if l.finalizer() {
		if delete(c, i); rapid.Bool().Draw(r.T, "held") {
			c[i] = true
		}
		list := r.finalizers(cur, c)
		if list == nil {
			list = []any{}
		}
		*steps = append(*steps, map[string]any{"op": "add", "path": "/metadata/finalizers", "value": list})
		return true
	}
	op := rapid.SampledFrom([]string{"add", "replace", "remove", "test"}).Draw(r.T, "op")
	if op == "remove" && l.always {
		op = "test"
	}
	pointer := "/" + strings.ReplaceAll(strings.Join(l.path, "/"), "name=c", "0")
	step := map[string]any{"op": op, "path": pointer}
	*steps = append(*steps, step)
	had := c[i]
	if op == "remove" {
		delete(c, i)
		return had != nil
	}
	v := rapid.SampledFrom(l.values).Draw(r.T, "value")
	step["value"] = v
	if op == "test" {
		return fmt.Sprint(had) == fmt.Sprint(v)
	}
	// Kubernetes' library replaces what is not there, against RFC 6902 section 4.3.
	c[i] = v
	return true
}

func (r *run) apply() {
	name := r.drawName()
	cur := r.objects[name]
	w := &write{kind: r.kind, subresource: r.drawSubresource(), manager: r.drawManager(), apply: true, want: content{}}
	w.force, w.version = rapid.Bool().Draw(r.T, "force"), r.drawSeen("version", cur)
	for i, l := range r.kind.leaves {
		own := (l.path[0] == "status") == (w.subresource == "status")
		if !own || !l.always && !rapid.Bool().Draw(r.T, "applied") {
			continue
		}
		w.want[i] = rapid.SampledFrom(l.values).Draw(r.T, field(l.path).String())
	}
	obj := r.kind.object(name, r.server.Namespace)
	if w.subresource == "status" {
		obj = map[string]any{"apiVersion": r.kind.version, "kind": r.kind.name, "metadata": map[string]any{"name": name}}
	} else if cur != nil {
		keepOrder(obj, cur)
	}
	obj = r.kind.compose(obj, w.want)
	say(obj["metadata"].(map[string]any), "resourceVersion", w.version, cur, "1")
	as, mediaType := types.ApplyYAMLPatchType, rapid.SampledFrom([]string{media[0], media[1], media[3]}).Draw(r.T, "body")
	if mediaType == media[3] {
		as = types.ApplyCBORPatchType
	}
	r.patch(name, as, r.encode(mediaType, obj), w, r.seldom("dry"))
}

func (r *run) delete() {
	name := r.drawName()
	cur := r.objects[name]
	d := &deletion{kind: r.kind, version: r.drawSeen("version", cur), uid: r.drawSeen("uid", cur), grace: r.drawGrace()}
	opts := &metav1.DeleteOptions{GracePeriodSeconds: d.grace}
	seenOf := map[string]any{}
	say(seenOf, "resourceVersion", d.version, cur, "1")
	say(seenOf, "uid", d.uid, cur, "other")
	if len(seenOf) > 0 {
		opts.Preconditions = &metav1.Preconditions{}
		if v, ok := seenOf["resourceVersion"].(string); ok {
			opts.Preconditions.ResourceVersion = &v
		}
		if v, ok := seenOf["uid"].(string); ok {
			opts.Preconditions.UID = (*types.UID)(&v)
		}
	}
	r.deleted(name, opts, d, r.seldom("dry"))
}

func (r *run) drawGrace() *int64 {
	seconds := rapid.SampledFrom([]int64{0, 0, 29, -1}).Draw(r.T, "grace")
	if seconds < 0 {
		return nil
	}
	return &seconds
}

func (r *run) deleted(name string, opts *metav1.DeleteOptions, d *deletion, dry bool) {
	r.Helper()
	a := r.do(r.deletes(r.path(name, "", nil), opts, dry))
	r.settle("delete "+name, name, d.remove(r.objects[name]), a, dry)
}

// deletes is the request with its options in some encoding.
func (r *run) deletes(path string, opts *metav1.DeleteOptions, dry bool) call {
	r.Helper()
	if dry {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	opts.Kind, opts.APIVersion = "DeleteOptions", "v1"
	obj, err := runtime.DefaultUnstructuredConverter.ToUnstructured(opts)
	if err != nil {
		r.Fatal(err)
	}
	mediaType := drawMedia.Draw(r.T, "body")
	return call{http.MethodDelete, path, mediaType, r.encode(mediaType, obj), drawMedia.Draw(r.T, "accept")}
}

func (r *run) deleteCollection() {
	selector, selects := r.drawSelector()
	grace, dry := r.drawGrace(), r.seldom("dry")
	a := r.do(r.deletes(r.path("", "", url.Values{"labelSelector": {selector}}), &metav1.DeleteOptions{GracePeriodSeconds: grace}, dry))
	if a.code != http.StatusOK {
		r.Fatalf("delete %s: %d %v", selector, a.code, a.obj["message"])
	}
	r.group++
	d := &deletion{kind: r.kind, grace: grace}
	for _, name := range slices.Sorted(maps.Keys(r.objects)) {
		cur := r.objects[name]
		if !selects(cur.content) || dry {
			continue
		}
		out := d.remove(cur)
		switch {
		case out.gone:
			r.accepted("delete "+selector, name, out, map[string]any{"kind": "Status"}, false)
		case out.changed:
			now := r.do(call{method: http.MethodGet, path: r.path(name, "", nil), accept: media[0]})
			r.accepted("delete "+selector, name, out, now.obj, false)
		}
	}
	r.last = r.newest
}

// drawSelector selects among the objects of the run.
func (r *run) drawSelector() (string, func(content) bool) {
	is := func(want ...any) func(content) bool {
		return func(c content) bool { return slices.Contains(want, c[color]) }
	}
	all := []struct {
		text    string
		selects func(content) bool
	}{
		{"", func(content) bool { return true }},
		{",color=red", is("red")},
		{",color in (blue)", is("blue")},
		{",color in (red, blue)", is("red", "blue")},
		{",color!=red", is("blue", nil)},
		{",!color", is(nil)},
	}
	chosen := all[rapid.IntRange(0, len(all)-1).Draw(r.T, "selector")]
	return "run=" + r.label + chosen.text, chosen.selects
}

func (r *run) get() {
	name := r.drawName()
	a := r.do(call{method: http.MethodGet, path: r.path(name, "", nil), accept: drawMedia.Draw(r.T, "accept")})
	out := refuse(notFound)
	if cur := r.objects[name]; cur != nil {
		out = outcome{next: cur}
	}
	r.settle("get "+name, name, out, a, false)
}

func (r *run) list() {
	selector, selects := r.drawSelector()
	limit := rapid.IntRange(0, 2).Draw(r.T, "limit")
	r.listedBy(selector, selects, limit, drawMedia.Draw(r.T, "accept"))
}

// listedBy reads a list, in pages if there is a limit.
func (r *run) listedBy(selector string, selects func(content) bool, limit int, accept string) {
	r.Helper()
	q := url.Values{"labelSelector": {selector}, "limit": {strconv.Itoa(limit)}}
	want := slices.Sorted(maps.Keys(r.objects))
	want = slices.DeleteFunc(want, func(name string) bool { return !selects(r.objects[name].content) })
	for {
		a := r.do(call{method: http.MethodGet, path: r.path("", "", q), accept: accept})
		items, _ := a.obj["items"].([]any)
		more, _ := get(a.obj, path("metadata continue")).(string)
		if a.code != http.StatusOK || limit > 0 && len(items) > limit || len(items) > len(want) {
			r.Fatalf("list %s: %d with %d objects, want %q", selector, a.code, len(items), want)
		}
		for i, item := range items {
			obj := item.(map[string]any)
			if name := get(obj, path("metadata name")); name != want[i] {
				r.Fatalf("list %s: %v where %s belongs", selector, name, want[i])
			}
			cur := r.objects[want[i]]
			r.compareObject("list "+selector, cur, obj)
			if version := versionOf(r, obj); version != cur.version {
				r.Fatalf("list %s: %s of version %d, want %d", selector, want[i], version, cur.version)
			}
		}
		want = want[len(items):]
		if more == "" {
			break
		}
		q.Set("continue", more)
	}
	if len(want) > 0 {
		r.Fatalf("list %s: without %q", selector, want)
	}
}
