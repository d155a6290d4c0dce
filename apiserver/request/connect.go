package request

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/apiserver/admission"
)

// Connect decides whether a connection to a subresource (exec, log, proxy) may
// be made; options is its body. Making it is up to the caller.
func (h *Handler) Connect(ctx context.Context, info *Info, options runtime.Object) error {
	if err := h.Authorize(ctx, info); err != nil {
		return err
	}
	if err := checkPathName(info.Name); err != nil {
		return err
	}
	if sub := info.sub(); sub != nil && sub.Kind.Empty() {
		return nil // a log is read, and reads are not admitted
	}
	attrs := info.admission(admission.Connect, nil, false)
	attrs.Object = options
	if err := h.Admission.Admit(ctx, attrs); err != nil {
		return err
	}
	return h.Admission.Validate(ctx, attrs)
}
