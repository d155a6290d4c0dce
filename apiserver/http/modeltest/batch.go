package modeltest

import (
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// batchManager owns what batches write.
const batchManager = "batch"

// batch does several writes at once, each of another object: within a batch the
// order is not kept.
func (r *run) batch() {
	var writes []Write
	var settle []func(Result)
	for _, name := range r.names[:rapid.IntRange(1, len(r.names)).Draw(r.T, "writes")] {
		w, out := r.drawBatched(name)
		writes = append(writes, w)
		settle = append(settle, func(res Result) { r.batched(name, out, res) })
	}
	r.group++
	for i, res := range r.server.Batch(r.ctx, writes) {
		settle[i](res)
	}
	r.last = r.newest
}

func (r *run) drawBatched(name string) (Write, outcome) {
	gv, err := schema.ParseGroupVersion(r.kind.version)
	if err != nil {
		r.Fatal(err)
	}
	row := kinds.Registry().Must(gv.Group, r.kind.plural)
	if rapid.Bool().Draw(r.T, "create") {
		c := r.drawContent(nil)
		obj := r.kind.compose(r.kind.object(name, r.server.Namespace), c)
		return Write{Resource: row, Create: r.typed(obj)}, r.creation(name, c, batchManager)
	}
	cur := r.objects[name]
	w := r.drawUpdate(cur, batchManager)
	obj := r.body(name, w.subresource, cur, w)
	return Write{Resource: row, Update: r.typed(obj), Subresource: w.subresource}, w.change(cur)
}

func (r *run) typed(obj map[string]any) api.Object {
	r.Helper()
	out, err := typed(obj)
	if err != nil {
		r.Fatal(err)
	}
	return out.(api.Object)
}

// batched settles one write of a batch.
func (r *run) batched(name string, out outcome, res Result) {
	r.Helper()
	a := answer{code: http.StatusOK}
	var status apierrors.APIStatus
	switch {
	case errors.As(res.Err, &status):
		s := status.Status()
		a = answer{int(s.Code), map[string]any{"reason": string(s.Reason), "message": s.Message, "code": int64(s.Code)}}
	case res.Err != nil:
		r.Fatal(res.Err)
	default:
		obj, err := runtime.DefaultUnstructuredConverter.ToUnstructured(res.Object)
		if err != nil {
			r.Fatal(err)
		}
		if a.obj = obj; out.created {
			a.code = http.StatusCreated
		}
	}
	if what := "batched write of " + name; !r.refused(what, out, a) {
		r.accepted(what, name, out, a.obj, false)
	}
}
