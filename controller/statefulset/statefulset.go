// Package statefulset keeps the pods of StatefulSets: each with an ordinal, a
// name and claims of its own, made and removed in order, and updated one
// revision after another.
package statefulset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	apipod "hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/revision"
)

// Loop is the StatefulSet controller.
type Loop struct {
	client    client.Interface
	events    events.Recorder
	sets      *api.Resource
	pods      *api.Resource
	claims    *api.Resource
	revisions *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{
		client: c, events: recorder, sets: r.Must("apps", "statefulsets"), pods: r.Must("", "pods"),
		claims: r.Must("", "persistentvolumeclaims"), revisions: r.Must("apps", "controllerrevisions"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "statefulset-controller" }

// Sources are the sets themselves and the pods, revisions and claims that they
// have or might adopt.
func (l *Loop) Sources() []controller.Source {
	dependants := func(old, new api.Object) []api.Key {
		return controller.KeysOfOwners(old, new, kind.Kind, func(o api.Object) []api.Key {
			return controller.KeysThatSelect(l.client.View(), l.sets, o, func(o api.Object) *metav1.LabelSelector {
				return o.(*appsv1.StatefulSet).Spec.Selector
			})
		})
	}
	return []controller.Source{
		{Resource: l.sets},
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			keys := dependants(old, new)
			if key, ok := l.setOfName(old); ok && new == nil && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
			return keys
		}},
		{Resource: l.revisions, Keys: dependants},
		{Resource: l.claims, Keys: l.setsOfClaim},
	}
}

// setOfName is the set for whose pods a name is, whomever the pod belongs to: once
// it is gone the name is free.
func (l *Loop) setOfName(pod api.Object) (api.Key, bool) {
	if pod == nil {
		return api.Key{}, false
	}
	end := strings.LastIndexByte(pod.GetName(), '-')
	if end < 0 {
		return api.Key{}, false
	}
	key := api.Key{Namespace: pod.GetNamespace(), Name: pod.GetName()[:end]}
	return key, l.client.View().Get(l.sets, key) != nil
}

// setsOfClaim are the sets with a pod that has a claim, when it comes, goes or
// changes hands.
func (l *Loop) setsOfClaim(old, new api.Object) []api.Key {
	claim := new
	if claim == nil {
		claim = old
	}
	if old != nil && new != nil && going(old) == going(new) && equality.Semantic.DeepEqual(old.GetOwnerReferences(), new.GetOwnerReferences()) {
		return nil
	}
	var keys []api.Key
	for o := range l.client.View().List(l.sets, claim.GetNamespace()) {
		set := o.(*appsv1.StatefulSet)
		for i := range set.Spec.VolumeClaimTemplates {
			if claimedBy(set, set.Spec.VolumeClaimTemplates[i].Name, claim.GetName()) {
				keys = append(keys, api.Key{Namespace: set.Namespace, Name: set.Name})
			}
		}
	}
	return keys
}

// Step takes a set one step further, and writes down where it is.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	set, ok := l.client.View().Get(l.sets, key).(*appsv1.StatefulSet)
	if !ok {
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return 0, nil // not possible in a set that was validated
	}
	set, failed, err := l.standIn(set)
	if err != nil {
		return 0, err
	}
	owner := controller.Owner{Resource: l.sets, Kind: kind, Object: set}
	history, collided, err := l.history(ctx, owner, selector)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, nil // the namespace takes the set along
	}
	if err != nil {
		return 0, err
	}
	if collided {
		// The next name is tried once the count is in the status, whose change wakes us.
		st := set.Status.DeepCopy()
		st.CollisionCount = ptr.To(ptr.Deref(st.CollisionCount, 0) + 1)
		return 0, l.report(ctx, set, *st)
	}
	pods, err := l.claimPods(ctx, owner, selector)
	if err != nil {
		return 0, err
	}
	s := l.snapshot(set, history, now)
	s.look(pods)
	d := plan(s)
	failure := l.act(ctx, s, d, history)
	// What was written is in the view by now.
	s.look(l.podsOf(set))
	st, after := status(s)
	if err := l.report(ctx, set, st); err != nil {
		return 0, err
	}
	if failure != nil {
		return 0, fmt.Errorf("pods of StatefulSet %s: %w", key, failure)
	}
	if set.DeletionTimestamp == nil {
		err = l.prune(ctx, s, st, history, failed)
	}
	return controller.Sooner(d.after, after), err
}

// history is the set's history, up to its present template.
func (l *Loop) history(ctx context.Context, owner controller.Owner, selector labels.Selector) ([]*appsv1.ControllerRevision, bool, error) {
	history, err := controller.Revisions(ctx, l.client, owner, selector)
	set := owner.Object.(*appsv1.StatefulSet)
	if err != nil || set.DeletionTimestamp != nil {
		return history, false, err
	}
	return controller.KeepRevision(ctx, l.client, revisionOwner(set), history)
}

// snapshot is that of a set without its pods yet.
func (l *Loop) snapshot(set *appsv1.StatefulSet, history []*appsv1.ControllerRevision, now time.Time) *snapshot {
	s := &snapshot{set: set, current: set.Status.CurrentRevision, update: set.Status.UpdateRevision, now: now}
	if len(history) > 0 && set.DeletionTimestamp == nil {
		s.update = history[len(history)-1].Name
	}
	if find(history, s.current) == nil {
		s.current = s.update
	}
	s.claims = func(name string) *corev1.PersistentVolumeClaim {
		claim, _ := l.client.View().Get(l.claims, api.Key{Namespace: set.Namespace, Name: name}).(*corev1.PersistentVolumeClaim)
		return claim
	}
	return s
}

func find(history []*appsv1.ControllerRevision, name string) *appsv1.ControllerRevision {
	for _, r := range history {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// claimPods are the pods of a set, once those that are its members are adopted
// and others released.
func (l *Loop) claimPods(ctx context.Context, owner controller.Owner, selector labels.Selector) ([]*corev1.Pod, error) {
	set := owner.Object.(*appsv1.StatefulSet)
	var members, others []*corev1.Pod
	for o := range l.client.View().ByIndex(l.pods, api.IndexOwner, string(set.UID)) {
		if _, ok := ordinalOf(set, o.GetName()); ok {
			members = append(members, o.(*corev1.Pod))
		} else {
			others = append(others, o.(*corev1.Pod))
		}
	}
	for o := range l.client.View().ByIndex(l.pods, api.IndexOrphan, set.Namespace) {
		if _, ok := ordinalOf(set, o.GetName()); ok {
			members = append(members, o.(*corev1.Pod))
		}
	}
	claims := controller.Claim(set, selector, members)
	// Whatever its labels, what has no ordinal is none of ours.
	claims.Release = append(claims.Release, controller.Claim(set, labels.Nothing(), others).Release...)
	return controller.Settle(ctx, l.client, owner, l.pods, claims)
}

// podsOf are the pods that a set controls.
func (l *Loop) podsOf(set *appsv1.StatefulSet) []*corev1.Pod {
	return controller.Owned[*corev1.Pod](l.client.View(), l.pods, set)
}

// report writes the status, if it changed.
func (l *Loop) report(ctx context.Context, set *appsv1.StatefulSet, st appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(st, set.Status) {
		return nil
	}
	changed := set.DeepCopy()
	changed.Status = st
	if _, err := l.client.Update(ctx, l.sets, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of StatefulSet %s/%s: %w", set.Namespace, set.Name, err)
	}
	return nil
}

// standIn is the set with the template that is rolled out where the revision of
// its own failed (design/rollback.md), and the name of that revision.
func (l *Loop) standIn(set *appsv1.StatefulSet) (*appsv1.StatefulSet, string, error) {
	t, failed, err := revision.StandIn(revisionOwner(set), controller.OwnRevisions(l.client.View(), l.revisions, set))
	if err != nil || t == nil {
		return set, "", err
	}
	instead := *set
	instead.Spec.Template = *t
	return &instead, failed, nil
}

func revisionOwner(set *appsv1.StatefulSet) revision.Owner {
	return revision.Owner{
		Object: set, Kind: kind, Template: &set.Spec.Template, HashLabel: revision.HashLabel,
		Collisions: ptr.To(ptr.Deref(set.Status.CollisionCount, 0)), Default: apipod.DefaultTemplate,
	}
}

// prune deletes revisions beyond the history that the set keeps. One that a pod
// has, that pods may be made of, or that is asked for although it failed, is not
// history.
func (l *Loop) prune(ctx context.Context, s *snapshot, st appsv1.StatefulSetStatus, history []*appsv1.ControllerRevision, failed string) error {
	live := map[string]bool{st.CurrentRevision: true, st.UpdateRevision: true, failed: true}
	for _, members := range [][]member{s.inside, s.beyond} {
		for _, m := range members {
			live[revisionOf(m.pod)] = true
		}
	}
	surplus := revision.Surplus(history, ptr.Deref(s.set.Spec.RevisionHistoryLimit, 10), func(r *appsv1.ControllerRevision) bool { return live[r.Name] })
	return controller.PruneRevisions(ctx, l.client, surplus)
}
