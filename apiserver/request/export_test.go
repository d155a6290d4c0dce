package request

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// Merged is an object patched by its parts, nil where that cannot be, and as a
// whole.
func (h *Handler) Merged(info *Info, cur api.Object, kind types.PatchType, data []byte, validation string) (short, long runtime.Object, err error) {
	p := &patch{change: &change{h: h, info: info}, kind: kind, data: data, opts: &metav1.PatchOptions{FieldValidation: validation}}
	form := codec.FormOf(info.Served)
	short = p.mergeParts(cur, form)
	long, err = p.patchedWhole(cur, form)
	return short, long, err
}
