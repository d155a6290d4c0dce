package request

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	if sub := info.sub(); sub != nil && sub.ValidateOptions != nil {
		if errs := sub.ValidateOptions(options); len(errs) > 0 {
			kinds, _, err := h.Registry.Scheme().ObjectKinds(options)
			if err != nil {
				return err
			}
			return apierrors.NewInvalid(kinds[0].GroupKind(), info.Name, errs)
		}
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
