// Package nodelifecycle notices nodes that fell silent, taints nodes by their
// conditions, and marks the pods of lost nodes as not ready.
package nodelifecycle

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, nodes: r.Must("", "nodes"), leases: r.Must("coordination.k8s.io", "leases"), pods: r.Must("", "pods")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "node-controller" }

// Sources are the nodes, and the leases of nodes not heard of: a heartbeat of a
// healthy node wakes nobody, its silence is found by the clock.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.nodes},
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

// Step looks at one node.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	view := l.client.View()
	n, ok := view.Get(l.nodes, key).(*corev1.Node)
	if !ok || n.DeletionTimestamp != nil {
		return 0, nil
	}
	var renewed *metav1.MicroTime
	if lease, ok := view.Get(l.leases, api.Key{Namespace: corev1.NamespaceNodeLease, Name: n.Name}).(*coordinationv1.Lease); ok {
		renewed = lease.Spec.RenewTime
	}
	want, after := conditions(n, renewed, now)
	if !equality.Semantic.DeepEqual(want, n.Status.Conditions) {
		changed := n.DeepCopy()
		changed.Status.Conditions = want
		o, err := l.client.Update(ctx, l.nodes, changed, "status")
		if err != nil {
			return 0, fmt.Errorf("update status of node %s: %w", n.Name, err)
		}
		n = o.(*corev1.Node)
	}
	if t := taints(n, want, now); !equality.Semantic.DeepEqual(t, n.Spec.Taints) {
		changed := n.DeepCopy()
		changed.Spec.Taints = t
		if _, err := l.client.Update(ctx, l.nodes, changed, ""); err != nil {
			return 0, fmt.Errorf("taint node %s: %w", n.Name, err)
		}
	}
	if c := condition(want, corev1.NodeReady); c != nil && c.Status != corev1.ConditionTrue {
		return after, l.markPods(ctx, n.Name, now)
	}
	return after, nil
}

// markPods makes the pods of a lost node not ready, so that services leave them.
func (l *Loop) markPods(ctx context.Context, node string, now time.Time) error {
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, node) {
		p := o.(*corev1.Pod)
		if !podstate.Ready(p) {
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
