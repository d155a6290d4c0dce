// Package client is the door to the API for everything that is not the API
// server itself: loops, the scheduler, the node agent, the network. client/direct
// calls the request layer of the same process, authorized and admitted as its
// own identity, with no serialisation; clienttest is the suite for whatever else
// implements it.
package client

import (
	"context"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

// Interface reads and writes objects as one identity. All methods may be
// called from any goroutine. Errors are API status errors
// (k8s.io/apimachinery/pkg/api/errors).
//
// Ownership: an object given to Create, Update or Apply belongs to the callee
// afterwards; an object returned is frozen, as is everything a View shows.
//
// A write returns once the client's View shows it: whoever wrote can read it.
type Interface interface {
	// Get reads the newest state, not the view.
	Get(ctx context.Context, ref api.Ref) (api.Object, error)
	Create(ctx context.Context, r *api.Resource, obj api.Object, opts metav1.CreateOptions) (api.Object, error)
	// Update replaces the object, or with a subresource ("status") that part
	// of it. obj carries the resourceVersion it was derived from.
	Update(ctx context.Context, r *api.Resource, obj api.Object, subresource string) (api.Object, error)
	Patch(ctx context.Context, ref api.Ref, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresource string) (api.Object, error)
	Delete(ctx context.Context, ref api.Ref, opts metav1.DeleteOptions) error
	// Post sends a body to a subresource: binding, eviction, token.
	Post(ctx context.Context, ref api.Ref, subresource string, body runtime.Object) (runtime.Object, error)
	// Ask posts an object of a resource without storage: the reviews.
	Ask(ctx context.Context, r *api.Resource, obj api.Object) (api.Object, error)
	// Batch does many writes in few transactions; each succeeds or fails alone.
	Batch(ctx context.Context, writes []Write) []Result
	// View is the live copy that this client's owner reads.
	View() View
	// Registry is the set of kinds.
	Registry() *api.Registry
}

// Write is one write of a batch: exactly one of Create, Update and Bind.
type Write struct {
	Resource    *api.Resource
	Create      api.Object
	Update      api.Object
	Subresource string
	// Bind posts a Binding to Ref.
	Bind runtime.Object
	Ref  api.Ref
}

// Result answers one Write.
type Result struct {
	Object api.Object
	Err    error
}

// View is a live, indexed, read-only copy of some resources. Reads never block
// and never fail; what they return is frozen.
type View interface {
	// Get is nil when there is no such object.
	Get(r *api.Resource, key api.Key) api.Object
	// List goes through the objects of a namespace ("" for all) in key order,
	// as they were when it was called.
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
	// ByIndex goes through the objects that have a value in an index.
	ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object]
	// Subscribe calls f for every object there is, and then for every change,
	// in revision order: old is nil for an addition, new is nil for a deletion.
	// f runs on the view's own goroutine and must return at once: it may note
	// keys and wake somebody, nothing else. It is called no more once the
	// returned function has returned.
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
	// WaitSynced returns once the view has the resources completely, or with
	// the context's error.
	WaitSynced(ctx context.Context, resources ...*api.Resource) error
}
