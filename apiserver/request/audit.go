package request

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/codec"
)

// encode gives an object that may still change as JSON.
func (h *Handler) encode(obj runtime.Object, form codec.Form) ([]byte, error) {
	if hub, ok := obj.(api.Object); ok {
		return h.Codec.AppendOnce(nil, hub, form, codec.JSON)
	}
	return h.Codec.AppendValue(nil, obj, form.GroupVersionKind, codec.JSON)
}

// noteOptions notes the options of a deletion, if the client sent them as a
// body.
func (i *Info) noteOptions(opts *metav1.DeleteOptions) {
	if i.Audit == nil || !i.Audit.Options {
		return
	}
	i.Audit.Object(opts, i.attributes(i.Verb), func() ([]byte, error) {
		whole := *opts
		if whole.Kind == "" {
			whole.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
		}
		return json.Marshal(whole)
	})
}

// Asked is the audit record of a request that comes from within the process.
type Asked struct {
	h    *Handler
	info *Info
}

// Begin makes the audit record of a request that does not come over the wire;
// its End says how the request ended. Nil, which may end as well, when nothing
// is noted of it.
func (h *Handler) Begin(ctx context.Context, info *Info) (context.Context, *Asked) {
	if h.Audit == nil {
		return ctx, nil
	}
	r := &http.Request{
		URL:        &url.URL{Path: info.path()},
		Header:     http.Header{"User-Agent": {info.UserAgent}},
		RemoteAddr: "127.0.0.1:0",
	}
	ctx, info.Audit = h.Audit.Begin(&audit.Request{
		Request: r.WithContext(ctx), ID: string(uuid.NewUUID()), Received: h.Clock.Now(), Attributes: info.attributes(info.Verb),
	})
	if info.Audit == nil {
		return ctx, nil
	}
	info.Audit.Options = true
	return ctx, &Asked{h, info}
}

// End notes the outcome.
func (a *Asked) End(obj runtime.Object, err error) {
	if a == nil {
		return
	}
	code := http.StatusOK
	if a.info.Verb == "create" {
		code = http.StatusCreated
	}
	if sub := a.info.sub(); sub != nil && sub.Put != nil && a.info.Verb == "create" {
		obj = success(http.StatusCreated) // in a batch a binding gives the pod
	}
	status, _ := obj.(*metav1.Status)
	if err != nil {
		status = StatusOf(err)
		code, obj = int(status.Code), status
	}
	if obj != nil {
		form := a.info.Form()
		if status != nil {
			form = codec.Form{GroupVersionKind: metav1.Unversioned.WithKind("Status")}
		}
		a.info.Audit.Answer(status, func() ([]byte, error) { return a.h.encode(obj, form) })
	}
	a.info.Audit.Started(code)
	a.info.Audit.Complete()
}

// Ending is a function that takes the outcome, which notes it first.
func (a *Asked) Ending(answer func(runtime.Object, error)) func(runtime.Object, error) {
	if a == nil {
		return answer
	}
	return func(obj runtime.Object, err error) {
		a.End(obj, err)
		answer(obj, err)
	}
}

// path is the URL path of the request.
func (i *Info) path() string {
	parts := []string{"", "api", i.Served.Version.Version}
	if i.Served.Version.Group != "" {
		parts = []string{"", "apis", i.Served.Version.Group, i.Served.Version.Version}
	}
	if i.row().Namespaced && i.Namespace != "" {
		parts = append(parts, "namespaces", i.Namespace)
	}
	parts = append(parts, i.Served.Plural)
	if i.Name != "" {
		parts = append(parts, i.Name)
	}
	if i.Subresource != "" {
		parts = append(parts, i.Subresource)
	}
	return strings.Join(parts, "/")
}

// StatusOf is how an error looks to a client.
func StatusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status := known.Status()
		if status.Status == "" {
			status.Status = metav1.StatusFailure
		}
		if status.Code == 0 {
			status.Code = http.StatusInternalServerError
		}
		return &status
	}
	if errors.Is(err, context.DeadlineExceeded) {
		timeout := apierrors.NewTimeoutError("request did not complete within requested timeout - context deadline exceeded", 0)
		return &timeout.ErrStatus
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: err.Error(),
	}
}
