// Package replicaset keeps as many pods of a template running as each
// ReplicaSet, or each ReplicationController, asks for.
package replicaset

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Reasons of the condition ReplicaFailure and of events, those of Kubernetes.
const (
	failedCreate     = "FailedCreate"
	failedDelete     = "FailedDelete"
	successfulCreate = "SuccessfulCreate"
	successfulDelete = "SuccessfulDelete"
)

// Loop is the ReplicaSet controller, or that of ReplicationControllers, which it
// sees as replica sets.
type Loop struct {
	flavor
	client client.Interface
	events events.Recorder
	sets   *api.Resource
	pods   *api.Resource
}

// New makes the loop of ReplicaSets; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return makeLoop(c, recorder, c.Registry().Must("apps", "replicasets"), sets)
}

// NewReplication makes the loop of ReplicationControllers.
func NewReplication(c client.Interface, recorder events.Recorder) *Loop {
	return makeLoop(c, recorder, c.Registry().Must("", "replicationcontrollers"), controllers)
}

func makeLoop(c client.Interface, recorder events.Recorder, row *api.Resource, f flavor) *Loop {
	return &Loop{flavor: f, client: c, events: recorder, sets: row, pods: c.Registry().Must("", "pods")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return l.name }

// Sources are the sets themselves and the pods that they have or might adopt.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.sets},
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			return controller.KeysOfOwners(old, new, l.kind.Kind, func(p api.Object) []api.Key {
				return controller.KeysThatSelect(l.client.View(), l.sets, p, l.selector)
			})
		}},
	}
}

// Step makes the pods match the set, and the set's status match its pods.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	view := l.client.View()
	obj := view.Get(l.sets, key)
	if obj == nil {
		return 0, nil
	}
	rs := l.asSet(obj)
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return 0, nil // not possible in a set that was validated
	}
	candidates := controller.Candidates[*corev1.Pod](view, l.pods, rs)
	// A pod that has ended is of no use to anybody, and stays where it is.
	candidates = slices.DeleteFunc(candidates, func(p *corev1.Pod) bool { return !podstate.Active(p) })
	owner := controller.Owner{Resource: l.sets, Kind: l.kind, Object: rs}
	owned, err := controller.Settle(ctx, l.client, owner, l.pods, controller.Claim(rs, selector, candidates))
	if err != nil {
		return 0, err
	}

	reason, failure := l.act(ctx, rs, plan(rs, owned, func() map[string]int { return l.crowd(rs) }, now))
	// What was written is in the view by now.
	owned = l.podsOf(rs)
	s, after := status(rs, owned, reason, failure, now)
	if changed := l.withStatus(obj, s); changed != nil {
		if _, err := l.client.Update(ctx, l.sets, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("update status of %s %s: %w", l.kind.Kind, key, err)
		}
	}
	if failure != nil {
		return 0, fmt.Errorf("pods of %s %s: %w", l.kind.Kind, key, failure)
	}
	return after, nil
}

// podsOf are the pods that a set controls.
func (l *Loop) podsOf(rs *appsv1.ReplicaSet) []*corev1.Pod {
	return controller.Owned[*corev1.Pod](l.client.View(), l.pods, rs)
}

// crowd counts, by node, the active pods of a set and of its siblings.
func (l *Loop) crowd(rs *appsv1.ReplicaSet) map[string]int {
	family := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		family = nil
		for o := range l.client.View().ByIndex(l.sets, api.IndexOwner, string(ref.UID)) {
			family = append(family, l.asSet(o))
		}
	}
	onNode := map[string]int{}
	for _, one := range family {
		for _, p := range l.podsOf(one) {
			if podstate.Active(p) {
				onNode[p.Spec.NodeName]++
			}
		}
	}
	return onNode
}

// act carries out a plan. It answers with the first failure, in the server's
// words, and the reason of the condition for it.
func (l *Loop) act(ctx context.Context, rs *appsv1.ReplicaSet, a actions) (reason string, err error) {
	about := events.About(l.kind, rs, "")
	_, err = controller.SlowStart(ctx, a.create, func(ctx context.Context, _ int) error {
		p, err := l.client.Create(ctx, l.pods, controller.PodFromTemplate(&rs.Spec.Template, rs, l.kind), metav1.CreateOptions{})
		if err != nil {
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				l.events.Event(about, corev1.EventTypeWarning, failedCreate, "Error creating: "+err.Error())
			}
			return err
		}
		l.events.Event(about, corev1.EventTypeNormal, successfulCreate, "Created pod: "+p.GetName())
		return nil
	})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return "", nil // the namespace takes the set along
	}
	if err != nil {
		return failedCreate, err
	}
	err = controller.AtOnce(ctx, len(a.delete), func(ctx context.Context, i int) error {
		p := a.delete[i]
		err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			l.events.Event(about, corev1.EventTypeWarning, failedDelete, "Error deleting: "+err.Error())
			return err
		}
		l.events.Event(about, corev1.EventTypeNormal, successfulDelete, "Deleted pod: "+p.Name)
		return nil
	})
	return failedDelete, err
}
