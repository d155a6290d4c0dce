// Package daemonset keeps a pod of each DaemonSet on every node that the set is
// for, and replaces them when its template changes.
//
// Each pod is made for one node, by an affinity to its name, and placed by the
// scheduler. A step either gives nodes what they lack and takes from them what they
// should not have, or, when there is nothing of that, takes an update further.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Loop is the DaemonSet controller; its keys are daemon sets.
type Loop struct {
	client    client.Interface
	events    events.Recorder
	sets      *api.Resource
	pods      *api.Resource
	nodes     *api.Resource
	revisions *api.Resource

	mu     sync.Mutex
	paused map[api.Key]pauses
}

// pauses are those of failed pods of one generation of a set. A process that knows
// none deletes a failed pod at once.
type pauses struct {
	uid        types.UID
	generation int64
	byNode     map[string]pause
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{
		client: c, events: recorder, sets: r.Must("apps", "daemonsets"), pods: r.Must("", "pods"),
		nodes: r.Must("", "nodes"), revisions: r.Must("apps", "controllerrevisions"), paused: map[api.Key]pauses{},
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "daemon-set-controller" }

// Sources are the sets, the pods and revisions that they have or might adopt, and
// nodes that come, go, or become something else to a set.
func (l *Loop) Sources() []controller.Source {
	dependants := func(old, new api.Object) []api.Key {
		return controller.KeysOfOwners(old, new, kind.Kind, func(o api.Object) []api.Key {
			return controller.KeysThatSelect(l.client.View(), l.sets, o, selectorOf)
		})
	}
	return []controller.Source{
		{Resource: l.sets},
		{Resource: l.pods, Keys: dependants},
		{Resource: l.revisions, Keys: dependants},
		{Resource: l.nodes, Keys: l.concerned},
	}
}

func selectorOf(o api.Object) *metav1.LabelSelector { return o.(*appsv1.DaemonSet).Spec.Selector }

// concerned are the sets to which a node is something else than before.
func (l *Loop) concerned(old, new api.Object) []api.Key {
	was, _ := old.(*corev1.Node)
	is, _ := new.(*corev1.Node)
	if was != nil && is != nil && maps.Equal(was.Labels, is.Labels) && equality.Semantic.DeepEqual(was.Spec.Taints, is.Spec.Taints) {
		return nil
	}
	var keys []api.Key
	for o := range l.client.View().List(l.sets, "") {
		if n := needsOf(o.(*appsv1.DaemonSet)); n.on(was) != n.on(is) {
			keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
		}
	}
	return keys
}

// Step takes one set further, and brings its status up to date.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	ds, ok := l.client.View().Get(l.sets, key).(*appsv1.DaemonSet)
	if !ok {
		l.pause(key, pauses{})
		return 0, nil
	}
	if ds.DeletionTimestamp != nil {
		return 0, nil // what it has goes or stays as it was asked to
	}
	ds, asked, err := l.standIn(ds)
	if err != nil {
		return 0, err
	}
	pods, err := l.claim(ctx, ds)
	if err != nil {
		return 0, err
	}
	h, err := l.history(ctx, ds, pods)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return 0, nil // the namespace takes the set along
	case err != nil || h.current == nil:
		return 0, err
	}
	var nodes []*corev1.Node
	for o := range l.client.View().List(l.nodes, "") {
		nodes = append(nodes, o.(*corev1.Node))
	}
	paused := l.pausesOf(key, ds)
	hash := hashOf(h.current)
	d := plan(look(ds, hash, nodes, l.owned(ds), paused.byNode, now))
	failed := l.act(ctx, ds, hash, d)
	for _, node := range d.failed {
		paused.byNode[node] = paused.byNode[node].next(now)
	}
	l.pause(key, paused)
	// What was written is in the view by now.
	pods = l.owned(ds)
	st, after := status(look(ds, hash, nodes, pods, nil, now))
	if err := l.report(ctx, ds, st); err != nil {
		return 0, errors.Join(err, failed)
	}
	if failed != nil {
		return 0, failed
	}
	return controller.Sooner(after, d.after), l.prune(ctx, ds, h, pods, asked)
}

// pausesOf are the pauses of a set as it is; the caller owns them.
func (l *Loop) pausesOf(key api.Key, ds *appsv1.DaemonSet) pauses {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.paused[key]
	if p.uid != ds.UID || p.generation != ds.Generation {
		return pauses{ds.UID, ds.Generation, map[string]pause{}}
	}
	return p
}

// pause notes the pauses of a set.
func (l *Loop) pause(key api.Key, p pauses) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(p.byNode) == 0 {
		delete(l.paused, key)
	} else {
		l.paused[key] = p
	}
}

// claim adopts and releases pods as the set's selector says, and answers with the
// set's pods.
func (l *Loop) claim(ctx context.Context, ds *appsv1.DaemonSet) ([]*corev1.Pod, error) {
	selector, err := l.selector(ds)
	if err != nil {
		return nil, err
	}
	candidates := controller.Candidates[*corev1.Pod](l.client.View(), l.pods, ds)
	return controller.Settle(ctx, l.client, l.ownerOf(ds), l.pods, controller.Claim(ds, selector, candidates))
}

func (l *Loop) ownerOf(ds *appsv1.DaemonSet) controller.Owner {
	return controller.Owner{Resource: l.sets, Kind: kind, Object: ds}
}

func (l *Loop) selector(ds *appsv1.DaemonSet) (labels.Selector, error) {
	s, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of daemon set %s/%s: %w", ds.Namespace, ds.Name, err)
	}
	return s, nil
}

// owned are the pods that the set controls.
func (l *Loop) owned(ds *appsv1.DaemonSet) []*corev1.Pod {
	return controller.Owned[*corev1.Pod](l.client.View(), l.pods, ds)
}

func (l *Loop) say(ds *appsv1.DaemonSet, kindOf, reason, message string) {
	l.events.Event(events.About(kind, ds, ""), kindOf, reason, message)
}

// act makes and deletes pods.
func (l *Loop) act(ctx context.Context, ds *appsv1.DaemonSet, hash string, d decision) error {
	for _, n := range d.notes {
		l.say(ds, n.kind, n.reason, n.message)
	}
	_, created := controller.SlowStart(ctx, len(d.create), func(ctx context.Context, i int) error {
		p, err := l.client.Create(ctx, l.pods, newPod(ds, hash, d.create[i]), metav1.CreateOptions{})
		if err != nil {
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				l.say(ds, corev1.EventTypeWarning, "FailedCreate", "Error creating: "+err.Error())
			}
			return err
		}
		l.say(ds, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: "+p.GetName())
		return nil
	})
	if apierrors.HasStatusCause(created, corev1.NamespaceTerminatingCause) {
		return nil // the namespace takes the set along
	}
	if created != nil {
		created = fmt.Errorf("create pod of daemon set %s/%s: %w", ds.Namespace, ds.Name, created)
	}
	deleted := controller.AtOnce(ctx, len(d.remove), func(ctx context.Context, i int) error {
		p := d.remove[i]
		err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			l.say(ds, corev1.EventTypeWarning, "FailedDelete", "Error deleting: "+err.Error())
			return fmt.Errorf("delete pod %s/%s of daemon set %s: %w", p.Namespace, p.Name, ds.Name, err)
		}
		l.say(ds, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: "+p.Name)
		return nil
	})
	return errors.Join(created, deleted)
}

// report writes the status if it changed.
func (l *Loop) report(ctx context.Context, ds *appsv1.DaemonSet, st appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(st, ds.Status) {
		return nil
	}
	changed := ds.DeepCopy()
	changed.Status = st
	if _, err := l.client.Update(ctx, l.sets, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of daemon set %s/%s: %w", ds.Namespace, ds.Name, err)
	}
	return nil
}
