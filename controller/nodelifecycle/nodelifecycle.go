// Package nodelifecycle notices nodes that fell silent, taints nodes by their
// conditions, and marks the pods of lost nodes as not ready.
package nodelifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Loop is the node lifecycle controller.
type Loop struct {
	client              client.Interface
	events              events.Recorder
	nodes, leases, pods *api.Resource

	mu   sync.Mutex
	seen map[types.UID]time.Time // when this process first looked at a node
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, nodes: r.Must("", "nodes"), leases: r.Must("coordination.k8s.io", "leases"), pods: r.Must("", "pods"), seen: map[types.UID]time.Time{}}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "node-controller" }

// Sources are the nodes, and the leases of nodes not heard of: a heartbeat of a
// healthy node wakes nobody, its silence is found by the clock.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.nodes, Keys: l.keys},
		{Resource: l.leases, Keys: func(_, new api.Object) []api.Key {
			if new == nil || new.GetNamespace() != corev1.NamespaceNodeLease {
				return nil
			}
			key := api.Key{Name: new.GetName()}
			n, ok := l.client.View().Get(l.nodes, key).(*corev1.Node)
			if !ok {
				return nil
			}
			if c := condition(n.Status.Conditions, corev1.NodeReady); c != nil && c.Status != corev1.ConditionUnknown {
				return nil
			}
			return []api.Key{key}
		}},
	}
}

// everyone is the key that stands for all nodes.
var everyone = api.Key{}

// keys are the node itself, and everyone when it becomes ready or ceases to be:
// whether any node is ready matters to all.
func (l *Loop) keys(old, new api.Object) []api.Key {
	isReady := func(o api.Object) bool {
		n, ok := o.(*corev1.Node)
		return ok && ready(n.Status.Conditions)
	}
	var keys []api.Key
	if new == nil {
		l.forget(old)
	} else {
		keys = append(keys, api.Key{Name: new.GetName()})
	}
	if isReady(old) != isReady(new) {
		keys = append(keys, everyone)
	}
	return keys
}

func (l *Loop) forget(n api.Object) {
	l.mu.Lock()
	_, known := l.seen[n.GetUID()]
	delete(l.seen, n.GetUID())
	l.mu.Unlock()
	if known {
		l.say(n, "RemovingNode", fmt.Sprintf("Node %[1]s event: Removing Node %[1]s from Controller", n.GetName()))
	}
}

func (l *Loop) say(n api.Object, reason, message string) {
	l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Node"), n, ""), corev1.EventTypeNormal, reason, message)
}

// since is when this process first looked at a node.
func (l *Loop) since(n *corev1.Node, now time.Time) time.Time {
	l.mu.Lock()
	first, ok := l.seen[n.UID]
	if !ok {
		first = now
		l.seen[n.UID] = first
	}
	l.mu.Unlock()
	if !ok {
		l.say(n, "RegisteredNode", fmt.Sprintf("Node %[1]s event: Registered Node %[1]s in Controller", n.Name))
	}
	return first
}

// Step looks at one node, or at the taints of all.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	view := l.client.View()
	if key == everyone {
		for o := range view.List(l.nodes, "") {
			if err := l.taint(ctx, o.(*corev1.Node), now); err != nil {
				return 0, err
			}
		}
		return 0, nil
	}
	n, ok := view.Get(l.nodes, key).(*corev1.Node)
	if !ok || n.DeletionTimestamp != nil {
		return 0, nil
	}
	var renewed *metav1.MicroTime
	if lease, ok := view.Get(l.leases, api.Key{Namespace: corev1.NamespaceNodeLease, Name: n.Name}).(*coordinationv1.Lease); ok {
		renewed = lease.Spec.RenewTime
	}
	want, after := conditions(n, renewed, l.since(n, now), now)
	if !equality.Semantic.DeepEqual(want, n.Status.Conditions) {
		changed := n.DeepCopy()
		changed.Status.Conditions = want
		o, err := l.client.Update(ctx, l.nodes, changed, "status")
		if err != nil {
			return 0, gone("update status of node "+n.Name, err)
		}
		if ready(n.Status.Conditions) {
			l.say(n, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", n.Name))
		}
		n = o.(*corev1.Node)
	}
	if err := l.taint(ctx, n, now); err != nil {
		return 0, err
	}
	if c := condition(n.Status.Conditions, corev1.NodeReady); c != nil && c.Status != corev1.ConditionTrue {
		return after, l.markPods(ctx, n.Name, c.LastTransitionTime, now)
	}
	return after, nil
}

// taint brings a node's taints up to date.
func (l *Loop) taint(ctx context.Context, n *corev1.Node, now time.Time) error {
	want := taints(n, n.Status.Conditions, l.anyReady(), now)
	if equality.Semantic.DeepEqual(want, n.Spec.Taints) {
		return nil
	}
	changed := n.DeepCopy()
	changed.Spec.Taints = want
	if _, err := l.client.Update(ctx, l.nodes, changed, ""); err != nil {
		return gone("taint node "+n.Name, err)
	}
	return nil
}

// gone makes success of "not found", and wraps any other error with what was
// being done.
func gone(doing string, err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (l *Loop) anyReady() bool {
	for o := range l.client.View().List(l.nodes, "") {
		if ready(o.(*corev1.Node).Status.Conditions) {
			return true
		}
	}
	return false
}

// markPods makes the pods of a node that has been lost since a time not ready,
// so that services leave them.
func (l *Loop) markPods(ctx context.Context, node string, since metav1.Time, now time.Time) error {
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, node) {
		p := o.(*corev1.Pod)
		if !deserted(p, since) {
			continue
		}
		p = p.DeepCopy()
		c := podstate.Condition(p, corev1.PodReady)
		c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(now)
		if _, err := l.client.Update(ctx, l.pods, p, "status"); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s of lost node %s: %w", p.Namespace, p.Name, node, err)
		}
		l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Pod"), p, ""), corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}
