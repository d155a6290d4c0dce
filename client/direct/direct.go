// Package direct is the client of a process that holds the API server: it calls
// the request layer itself, authorized and admitted as its own identity, with no
// serialisation.
//
// # Who owns an object
//
// An object given to Create, Update or Ask is handed on as it is and becomes the
// stored, frozen one: the caller keeps no reference that it would write through.
// What is read is the store's own frozen object, so whoever wants to change it
// makes a DeepCopy first. The deep copies that retries need are made below.
package direct

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/client"
)

// Client is a client.Interface over a request.Handler.
type Client struct {
	h       *request.Handler
	user    user.Info
	manager string
	view    client.View
}

var _ client.Interface = (*Client)(nil)

// New makes a client that acts as a user. manager is the name under which the
// fields that it writes are its own, and should be that of the program part
// ("kube-controller-manager").
func New(h *request.Handler, u user.Info, manager string) *Client {
	return &Client{h: h, user: u, manager: manager, view: h.Store.View()}
}

// As is the same door for another user.
func (c *Client) As(u user.Info, manager string) *Client {
	other := *c
	other.user, other.manager = u, manager
	return &other
}

// info is a request for one object in the version that is stored, or the
// preferred one where that is not served.
func (c *Client) info(verb string, ref api.Ref, subresource string) *request.Info {
	info := &request.Info{
		User:        c.user,
		Verb:        verb,
		Served:      c.served(ref.Resource),
		Subresource: subresource,
		Namespace:   ref.Namespace,
		Name:        ref.Name,
		UserAgent:   c.manager,
	}
	// A namespace is addressed as being in itself.
	if ref.Resource.Group == "" && ref.Resource.Plural == "namespaces" {
		info.Namespace = ref.Name
	}
	return info
}

// served is the version of a resource that is worked on in this process.
func (c *Client) served(r *api.Resource) *api.Served {
	version := r.Storage
	if r.StoredAs != nil {
		version = r.Versions[0].GroupVersion
	}
	served := c.h.Registry.ByGVR(version.WithResource(r.Plural))
	if r.View == nil || served != nil && served.Resource == r {
		return served
	}
	// A definition of which the stored version is not served, or that has changed
	// since the row was found.
	own := &api.Version{GroupVersion: r.Storage, New: r.New, NewList: r.NewList}
	if len(r.Versions) > 0 {
		own = &r.Versions[0]
	}
	return &api.Served{Resource: r, Version: own}
}

// Get reads the newest state, not the view.
func (c *Client) Get(ctx context.Context, ref api.Ref) (api.Object, error) {
	info := c.info("get", ref, "")
	ctx, asked := c.h.Begin(ctx, info)
	obj, err := c.h.Get(ctx, info, &metav1.GetOptions{})
	asked.End(obj, err)
	return object(obj, err)
}

// Create stores a new object.
func (c *Client) Create(ctx context.Context, r *api.Resource, obj api.Object, opts metav1.CreateOptions) (api.Object, error) {
	return object(c.create(ctx, c.creating(r, obj), obj, &opts))
}

func (c *Client) create(ctx context.Context, info *request.Info, body runtime.Object, opts *metav1.CreateOptions) (runtime.Object, error) {
	ctx, asked := c.h.Begin(ctx, info)
	obj, err := c.h.Create(ctx, info, request.Body{Object: body}, opts)
	asked.End(obj, err)
	return obj, err
}

// creating is a request to create, which names the object in its body only.
func (c *Client) creating(r *api.Resource, obj api.Object) *request.Info {
	info := c.info("create", api.RefTo(r, obj), "")
	info.Name = ""
	if !r.Namespaced {
		info.Namespace = ""
	}
	return info
}

// Update replaces an object, or the part of it that a subresource shows.
func (c *Client) Update(ctx context.Context, r *api.Resource, obj api.Object, subresource string) (api.Object, error) {
	info := c.info("update", api.RefTo(r, obj), subresource)
	ctx, asked := c.h.Begin(ctx, info)
	out, _, err := c.h.Update(ctx, info, request.Body{Object: obj}, &metav1.UpdateOptions{})
	asked.End(out, err)
	return object(out, err)
}

// Patch changes an object by a patch.
func (c *Client) Patch(ctx context.Context, ref api.Ref, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresource string) (api.Object, error) {
	if kind == types.ApplyYAMLPatchType && opts.FieldManager == "" {
		opts.FieldManager = c.manager
	}
	read := func() ([]byte, error) { return patch, nil }
	info := c.info("patch", ref, subresource)
	ctx, asked := c.h.Begin(ctx, info)
	out, _, err := c.h.Patch(ctx, info, kind, read, &opts)
	asked.End(out, err)
	return object(out, err)
}

// Delete removes an object, or sets it on its way.
func (c *Client) Delete(ctx context.Context, ref api.Ref, opts metav1.DeleteOptions) error {
	info := c.info("delete", ref, "")
	ctx, asked := c.h.Begin(ctx, info)
	out, _, err := c.h.Delete(ctx, info, &opts)
	asked.End(out, err)
	return err
}

// Post sends a body to a subresource.
func (c *Client) Post(ctx context.Context, ref api.Ref, subresource string, body runtime.Object) (runtime.Object, error) {
	return c.create(ctx, c.info("create", ref, subresource), body, &metav1.CreateOptions{})
}

// Ask posts a review.
func (c *Client) Ask(ctx context.Context, r *api.Resource, obj api.Object) (api.Object, error) {
	return object(c.create(ctx, c.creating(r, obj), obj, &metav1.CreateOptions{}))
}

// Batch does many writes in few transactions; each succeeds or fails alone.
func (c *Client) Batch(ctx context.Context, writes []client.Write) []client.Result {
	results := make([]client.Result, len(writes))
	batch := c.h.NewBatch(ctx)
	for i, w := range writes {
		set := func(obj runtime.Object, err error) {
			results[i].Object, results[i].Err = object(obj, err)
		}
		switch {
		case w.Create != nil:
			info := c.creating(w.Resource, w.Create)
			_, asked := c.h.Begin(ctx, info)
			batch.Create(info, request.Body{Object: w.Create}, &metav1.CreateOptions{}, asked.Ending(set))
		case w.Update != nil:
			info := c.info("update", api.RefTo(w.Resource, w.Update), w.Subresource)
			_, asked := c.h.Begin(ctx, info)
			batch.Update(info, request.Body{Object: w.Update}, &metav1.UpdateOptions{}, asked.Ending(set))
		case w.Bind != nil:
			info := c.info("create", w.Ref, "binding")
			_, asked := c.h.Begin(ctx, info)
			batch.Post(info, request.Body{Object: w.Bind}, asked.Ending(set))
		default:
			results[i].Err = apierrors.NewBadRequest("a write of a batch must be exactly one of Create, Update and Bind")
		}
	}
	batch.Commit()
	return results
}

// View is the store's copy.
func (c *Client) View() client.View { return c.view }

// Registry is the set of kinds.
func (c *Client) Registry() *api.Registry { return c.h.Registry }

var errNoObject = errors.New("the answer is not an object of the resource")

// object narrows an answer. A Status, which some writes answer with, is no
// object and no error.
func object(out runtime.Object, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	if _, ok := out.(*metav1.Status); ok {
		return nil, nil
	}
	obj, ok := out.(api.Object)
	if !ok {
		return nil, apierrors.NewInternalError(errNoObject)
	}
	return obj, nil
}
