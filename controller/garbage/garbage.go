// Package garbage deletes objects whose owners are gone, and carries out
// foreground and orphaning deletion.
package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// Loop is the garbage collector. Its keys name an object of any resource: the
// resource stands before the name, as "deployments.apps/web".
type Loop struct {
	client client.Interface
	events events.Recorder
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{client: c, events: recorder}
}

// resources are those of which objects may be owned or owners: all but events,
// which expire by themselves and own nothing.
func (l *Loop) resources() iter.Seq[*api.Resource] {
	return func(yield func(*api.Resource) bool) {
		for _, r := range l.client.Registry().Resources() {
			if r.Prefix != "" && !(r.Kind == "Event" && r.View == nil) && !yield(r) {
				return
			}
		}
	}
}

// resource finds one by the name that keys have it by, or nil.
func (l *Loop) resource(name string) *api.Resource {
	gr := schema.ParseGroupResource(name)
	for r := range l.resources() {
		if r.Plural == gr.Resource && r.Group == gr.Group {
			return r
		}
	}
	return nil
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "generic-garbage-collector" }

// Sources are all resources.
func (l *Loop) Sources() []controller.Source {
	var sources []controller.Source
	for r := range l.resources() {
		sources = append(sources, controller.Source{Resource: r, Keys: func(old, new api.Object) []api.Key { return l.keys(r, old, new) }})
	}
	return sources
}

func (l *Loop) keys(r *api.Resource, old, new api.Object) []api.Key {
	switch {
	case new == nil:
		// It is gone: its dependents may have to follow, and its owners may
		// have waited for it.
		return append(l.waitingOwners(old), l.keysOfDependents(old)...)
	case old != nil && !sameOwners(old, new):
		return append(l.waitingOwners(old), controller.KeyOf(r, new))
	case new.GetDeletionTimestamp() != nil && has(new, metav1.FinalizerDeleteDependents):
		// It waits for its dependents; each of them decides for itself.
		return append(l.keysOfDependents(new), controller.KeyOf(r, new))
	case new.GetDeletionTimestamp() != nil && has(new, metav1.FinalizerOrphanDependents):
		return []api.Key{controller.KeyOf(r, new)}
	case old == nil && len(new.GetOwnerReferences()) > 0:
		return []api.Key{controller.KeyOf(r, new)}
	}
	return nil
}

func (l *Loop) keysOfDependents(obj api.Object) []api.Key {
	var keys []api.Key
	for _, d := range l.dependents(obj.GetUID()) {
		keys = append(keys, controller.KeyOf(d.resource, d.obj))
	}
	return keys
}

// waitingOwners are the owners of obj that are being deleted.
func (l *Loop) waitingOwners(obj api.Object) []api.Key {
	var keys []api.Key
	for _, ref := range obj.GetOwnerReferences() {
		if r, key, ok := l.find(obj, ref); ok {
			if o := l.client.View().Get(r, key); o != nil && o.GetDeletionTimestamp() != nil {
				keys = append(keys, controller.KeyOf(r, o))
			}
		}
	}
	return keys
}

func sameOwners(a, b api.Object) bool {
	return slices.EqualFunc(a.GetOwnerReferences(), b.GetOwnerReferences(), func(x, y metav1.OwnerReference) bool {
		return x.UID == y.UID && blocks(x) == blocks(y)
	})
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}

// served is the kind that a reference names, or nil.
func (l *Loop) served(ref metav1.OwnerReference) *api.Served {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil
	}
	return l.client.Registry().ByGVK(gv.WithKind(ref.Kind))
}

// find is where a reference leads: an owner is in the namespace of its
// dependent, or in none. It leads nowhere that we can look when the kind is not
// served, or when what is in no namespace names an owner that is in one.
func (l *Loop) find(obj metav1.Object, ref metav1.OwnerReference) (*api.Resource, api.Key, bool) {
	served := l.served(ref)
	if served == nil || served.Namespaced && obj.GetNamespace() == "" {
		return nil, api.Key{}, false
	}
	key := api.Key{Name: ref.Name}
	if served.Namespaced {
		key.Namespace = obj.GetNamespace()
	}
	return served.Resource, key, true
}

func (l *Loop) dependents(uid types.UID) []dependent {
	var out []dependent
	for r := range l.resources() {
		for o := range l.client.View().ByIndex(r, api.IndexOwner, string(uid)) {
			for _, ref := range o.GetOwnerReferences() {
				if ref.UID == uid {
					out = append(out, dependent{r, o, blocks(ref)})
				}
			}
		}
	}
	return out
}

// Step looks at one object.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	resource, name, ok := strings.Cut(key.Name, "/")
	if !ok {
		return 0, fmt.Errorf("collect garbage: %q is no key of this loop", key.Name)
	}
	r := l.resource(resource)
	if r == nil {
		return 0, nil // its definition is gone, and all objects with it
	}
	obj := l.client.View().Get(r, api.Key{Namespace: key.Namespace, Name: name})
	if obj == nil {
		return 0, nil
	}
	ref := api.RefTo(r, obj)
	var owners []owner
	for _, or := range obj.GetOwnerReferences() {
		state, err := l.state(ctx, r, obj, or)
		if err != nil {
			return 0, fmt.Errorf("look for owner %s %s of %s: %w", or.Kind, or.Name, ref, err)
		}
		owners = append(owners, owner{or, state})
	}
	dependents := l.dependents(obj.GetUID())
	if err := l.act(ctx, r, obj, plan(obj, owners, dependents), owners, dependents); err != nil {
		return 0, fmt.Errorf("collect garbage at %s: %w", ref, err)
	}
	return 0, nil
}

// state asks the server before it calls an owner absent: a deletion cannot be
// taken back.
func (l *Loop) state(ctx context.Context, of *api.Resource, obj metav1.Object, ref metav1.OwnerReference) (ownerState, error) {
	r, key, ok := l.find(obj, ref)
	if !ok {
		l.reportStranger(of, obj, ref)
		return solid, nil // nothing is deleted for what cannot be told
	}
	o := l.client.View().Get(r, key)
	if o == nil || o.GetUID() != ref.UID {
		var err error
		o, err = l.client.Get(ctx, api.Ref{Resource: r, Namespace: key.Namespace, Name: key.Name})
		if apierrors.IsNotFound(err) || err == nil && o.GetUID() != ref.UID {
			l.reportStranger(of, obj, ref)
			return absent, nil
		}
		if err != nil {
			return 0, err
		}
	}
	// What has to stop after others keeps its dependents until its turn comes.
	if o.GetDeletionTimestamp() != nil && has(o, metav1.FinalizerDeleteDependents) && !has(o, dependency.Finalizer) {
		return waiting, nil
	}
	return solid, nil
}

// reportStranger tells of a reference that leads to an object in a namespace
// where it may not lead (documentation: "Owners and Dependents").
func (l *Loop) reportStranger(of *api.Resource, obj metav1.Object, ref metav1.OwnerReference) {
	served := l.served(ref)
	if served == nil || !served.Namespaced {
		return
	}
	for o := range l.client.View().List(served.Resource, "") {
		if o.GetUID() == ref.UID && o.GetNamespace() != obj.GetNamespace() {
			l.events.Event(events.About(of.GVK(), obj, ""), corev1.EventTypeWarning, "OwnerRefInvalidNamespace", fmt.Sprintf(
				"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
				ref.APIVersion, ref.Kind, obj.GetNamespace(), ref.Name, ref.UID, obj.GetNamespace()))
			return
		}
	}
}

func (l *Loop) act(ctx context.Context, r *api.Resource, obj api.Object, a action, owners []owner, dependents []dependent) error {
	switch a {
	case orphanDependents:
		for _, d := range dependents {
			if err := l.drop(ctx, d.resource, d.obj, []types.UID{obj.GetUID()}); err != nil {
				return err
			}
		}
		return l.removeFinalizer(ctx, r, obj, metav1.FinalizerOrphanDependents)
	case letGo:
		return l.removeFinalizer(ctx, r, obj, metav1.FinalizerDeleteDependents)
	case dropReferences:
		return l.drop(ctx, r, obj, dangling(owners))
	case deleteForeground:
		obj, err := l.breakCycle(ctx, r, obj, dependents)
		if err != nil {
			return err
		}
		return l.delete(ctx, r, obj, metav1.DeletePropagationForeground)
	case deleteBackground:
		return l.delete(ctx, r, obj, metav1.DeletePropagationBackground)
	case deleteOrphan:
		return l.delete(ctx, r, obj, metav1.DeletePropagationOrphan)
	}
	return nil
}

// breakCycle lets the owners of obj go first when one of its dependents waits
// for its own dependents already: the two may wait for each other.
func (l *Loop) breakCycle(ctx context.Context, r *api.Resource, obj api.Object, dependents []dependent) (api.Object, error) {
	if !slices.ContainsFunc(dependents, func(d dependent) bool {
		return d.obj.GetDeletionTimestamp() != nil && has(d.obj, metav1.FinalizerDeleteDependents)
	}) {
		return obj, nil
	}
	refs := slices.Clone(obj.GetOwnerReferences())
	for i := range refs {
		refs[i].BlockOwnerDeletion = nil
	}
	return l.patch(ctx, r, obj, "ownerReferences", refs)
}

// delete deletes just what was looked at: had it changed, it might have an owner
// again.
func (l *Loop) delete(ctx context.Context, r *api.Resource, obj api.Object, policy metav1.DeletionPropagation) error {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	return gone(l.client.Delete(ctx, api.RefTo(r, obj), metav1.DeleteOptions{
		PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
	}))
}

func (l *Loop) drop(ctx context.Context, r *api.Resource, obj api.Object, uids []types.UID) error {
	refs := []metav1.OwnerReference{}
	for _, ref := range obj.GetOwnerReferences() {
		if !slices.Contains(uids, ref.UID) {
			refs = append(refs, ref)
		}
	}
	_, err := l.patch(ctx, r, obj, "ownerReferences", refs)
	return gone(err)
}

func (l *Loop) removeFinalizer(ctx context.Context, r *api.Resource, obj api.Object, finalizer string) error {
	left := []string{}
	for _, f := range obj.GetFinalizers() {
		if f != finalizer {
			left = append(left, f)
		}
	}
	_, err := l.patch(ctx, r, obj, "finalizers", left)
	return gone(err)
}

// patch replaces one list of the metadata, of the very version looked at.
func (l *Loop) patch(ctx context.Context, r *api.Resource, obj api.Object, field string, value any) (api.Object, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": obj.GetUID(), "resourceVersion": obj.GetResourceVersion(), field: value,
	}})
	if err != nil {
		return nil, err
	}
	return l.client.Patch(ctx, api.RefTo(r, obj), types.MergePatchType, patch, metav1.PatchOptions{}, "")
}

// gone makes success of "not found": the object went before we could act.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
