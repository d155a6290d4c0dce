// Package controller runs control loops. Each loop is in a package of its own
// below this one; loops meet only at the store.
//
// A loop is level-triggered: it is told which key to look at, never what
// happened. It decides with a pure plan over what the view shows, then acts
// through its client.
package controller

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// Loop is one control loop. It starts no goroutine and reads no clock itself:
// the runner calls Step, never twice at once for the same key.
type Loop interface {
	// Name is the loop's identity: the service account in kube-system as which
	// it acts, e.g. "deployment-controller".
	Name() string
	// Sources says what wakes which key.
	Sources() []Source
	// Step brings the world one step closer to what the object of key asks for.
	// now is the time of the call. A positive after asks to be called again
	// then, if nothing wakes the key earlier. An error asks for a retry with
	// exponential backoff; a conflict is such an error and is not logged.
	Step(ctx context.Context, key api.Key, now time.Time) (after time.Duration, err error)
}

// Waiter is a loop with keys that wait for a kind to be served, or to be served
// differently. The runner wakes them when the set of kinds has changed.
type Waiter interface {
	// Waiting hands over the keys that wait: they are looked at again and wait
	// on if need be. It may be called beside Step.
	Waiting() []api.Key
}

// Source wakes keys of a loop when objects of a resource change.
type Source struct {
	Resource *api.Resource
	// Keys answers which keys a change wakes. old is nil for an addition, new
	// for a deletion. It must be fast and must not block. Nil stands for the
	// object's own key.
	Keys func(old, new api.Object) []api.Key
}

// Woken is a loop with keys that something else than an object wakes.
type Woken interface {
	// Listen calls wake, which does not block, until cancel is called.
	Listen(wake func(api.Key)) (cancel func())
}

// Sooner is the shorter of two waits as Step answers with them: one that is not
// positive is none.
func Sooner(a, b time.Duration) time.Duration {
	if a <= 0 || b <= 0 {
		return max(a, b)
	}
	return min(a, b)
}

// KeyOf is an object's key in loops that look at several kinds: RESOURCE/NAME.
func KeyOf(r *api.Resource, obj metav1.Object) api.Key {
	return api.Key{Namespace: obj.GetNamespace(), Name: r.GroupResource().String() + "/" + obj.GetName()}
}
