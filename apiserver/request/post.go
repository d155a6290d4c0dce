package request

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/internal/gonames"
	"hansa.dev/hansa/store"
)

// preparePost reads and admits what is posted where no object of the resource
// comes into being: a review, or a body for a subresource.
func (h *Handler) preparePost(ctx context.Context, info *Info, body Body, opts *metav1.CreateOptions) (runtime.Object, error) {
	decoded, err := h.allowAndDecode(ctx, info, body, opts)
	if err != nil {
		return nil, err
	}
	if meta, ok := decoded.(metav1.Object); ok {
		if err := settleNamespace(meta, info.storedNamespace()); err != nil {
			return nil, err
		}
		if hook := HookName(info.row().GroupResource(), info.Subresource); info.Subresource != "" && h.Hooks[hook] == nil && meta.GetName() != "" && meta.GetName() != info.Name {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", meta.GetName(), info.Name))
		}
		if info.Name == "" {
			info.Name = meta.GetName()
		}
	}
	if body, ok := decoded.(api.Object); ok && h.pods(info) == nil && (info.Subresource == "" || info.posts()) {
		if err := h.track(info, body, nil, info.manager(opts.FieldManager)); err != nil {
			return nil, err
		}
	}
	attrs := info.admission(admission.Create, opts, len(opts.DryRun) > 0)
	attrs.Object = decoded
	if err := h.Admission.Admit(ctx, attrs); err != nil {
		return nil, err
	}
	return decoded, h.Admission.Validate(ctx, attrs)
}

// posts says whether the request is for a body of its own kind, which is answered
// and becomes a part of no object: a token.
func (i *Info) posts() bool {
	sub := i.sub()
	return sub != nil && sub.New != nil && sub.Put == nil && slices.Contains(sub.Verbs, "create") && !sub.Kind.Empty()
}

// post answers what was posted.
func (h *Handler) post(ctx context.Context, info *Info, body runtime.Object, dryRun bool) (runtime.Object, error) {
	if pods := h.pods(info); pods != nil {
		return h.postPut(ctx, pods, body, dryRun)
	}
	if hook := h.Hooks[HookName(info.row().GroupResource(), info.Subresource)]; hook != nil {
		return h.hook(ctx, info, hook, body, dryRun)
	}
	if sub := info.sub(); sub != nil && sub.Put != nil {
		return h.postPut(ctx, info, body, dryRun)
	}
	return nil, apierrors.NewMethodNotSupported(info.resource(), "create")
}

// pods says for the old resource "bindings", whose object has the pod's name,
// which pod's binding it is.
func (h *Handler) pods(info *Info) *Info {
	if info.Served.Group != "" || info.Served.Plural != "bindings" {
		return nil
	}
	pods := *info
	pods.Served = h.Registry.ByGVR(info.Served.Version.WithResource("pods"))
	pods.Subresource = "binding"
	return &pods
}

func (h *Handler) hook(ctx context.Context, info *Info, hook Hook, body runtime.Object, dryRun bool) (runtime.Object, error) {
	if row := info.row(); info.Subresource == "" {
		if row.Validate != nil {
			if errs := row.Validate(body.(api.Object)); len(errs) > 0 {
				// Kubernetes' own types do not know their kind by then.
				kind := schema.GroupKind{Group: info.kind().Group}
				return nil, apierrors.NewInvalid(kind, "", gonames.Show(errs))
			}
		}
		return hook(ctx, info, nil, body, dryRun)
	}
	parent, err := h.read(ctx, info, "")
	if err != nil {
		return nil, err
	}
	return hook(ctx, info, parent, body, dryRun)
}

// postPut writes a body into the object: a binding. Whoever may bind may set
// exactly what Put sets, so the result is neither admitted nor validated again,
// and the fields get no manager.
func (h *Handler) postPut(ctx context.Context, info *Info, body runtime.Object, dryRun bool) (runtime.Object, error) {
	attempt := putInto(info, body, h.Clock.Now())
	if dryRun {
		cur, err := h.read(ctx, info, "")
		if err != nil {
			return nil, err
		}
		if _, err := attempt(cur); err != nil {
			return nil, err
		}
		return success(http.StatusCreated), nil
	}
	if _, err := h.update(ctx, info.ref(), attempt); err != nil {
		return nil, err
	}
	return success(http.StatusCreated), nil
}

// putInto is the store's side of posting a body to a subresource.
func putInto(info *Info, body runtime.Object, now time.Time) func(cur api.Object) (store.Outcome, error) {
	return func(cur api.Object) (store.Outcome, error) {
		if cur == nil {
			return store.Outcome{}, apierrors.NewNotFound(info.resource(), info.Name)
		}
		next := cur.DeepCopyObject().(api.Object)
		if err := info.sub().Put(next, body, now); err != nil {
			return store.Outcome{}, err
		}
		return store.Outcome{Object: next}, checkSeen(info, next, cur)
	}
}

// checkSeen holds a write to the identity and version that its body named, which
// Put has left in the object.
func checkSeen(info *Info, obj, cur metav1.Object) error {
	if obj.GetUID() != cur.GetUID() {
		return uidMismatch(info, false, obj.GetUID(), cur.GetUID())
	}
	if obj.GetResourceVersion() != cur.GetResourceVersion() {
		return apierrors.NewConflict(info.resource(), info.Name, errors.New(optimisticLock))
	}
	return nil
}

func success(code int32) *metav1.Status {
	return &metav1.Status{Status: metav1.StatusSuccess, Code: code}
}
