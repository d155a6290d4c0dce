// Package podgc removes pods that nobody else will: those of nodes that are
// gone, those that are to be deleted from nodes out of service or were never
// placed, and the oldest of very many that have ended.
package podgc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

const (
	// quarantine is how long a node must be gone before its pods are.
	quarantine = 40 * time.Second
	// mostEnded is how many ended pods are kept.
	mostEnded = 12500
)

// Keys that are no node.
var (
	endedKey    = api.Key{Namespace: "/", Name: "ended"}
	unplacedKey = api.Key{Namespace: "/", Name: "unplaced"}
)

// Loop is the pod garbage collector. Its keys are nodes, and the two above.
type Loop struct {
	client      client.Interface
	nodes, pods *api.Resource
	// missing is since when a node that pods name is not there. Step is called
	// for one key at a time by a single worker.
	missing map[string]time.Time
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{client: c, nodes: c.Registry().Must("", "nodes"), pods: c.Registry().Must("", "pods"), missing: map[string]time.Time{}}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "pod-garbage-collector" }

// Sources are nodes that go, and pods whose node is not there, that end, or
// that are deleted without a node.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.nodes, Keys: func(old, new api.Object) []api.Key {
			switch {
			case new == nil:
				return []api.Key{{Name: old.GetName()}}
			case outOfService(new.(*corev1.Node)):
				return []api.Key{{Name: new.GetName()}}
			}
			return nil
		}},
		{Resource: l.pods, Keys: l.keys},
	}
}

func (l *Loop) keys(old, new api.Object) []api.Key {
	if new == nil {
		return nil
	}
	p := new.(*corev1.Pod)
	var keys []api.Key
	if p.Spec.NodeName == "" {
		if p.DeletionTimestamp != nil {
			keys = append(keys, unplacedKey)
		}
	} else if n, ok := l.client.View().Get(l.nodes, api.Key{Name: p.Spec.NodeName}).(*corev1.Node); !ok || p.DeletionTimestamp != nil && outOfService(n) {
		keys = append(keys, api.Key{Name: p.Spec.NodeName})
	}
	if podstate.Finished(p) && (old == nil || !podstate.Finished(old.(*corev1.Pod))) {
		keys = append(keys, endedKey)
	}
	return keys
}

// Step looks at the pods that a key stands for.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	switch key {
	case endedKey:
		return 0, l.trim(ctx)
	case unplacedKey:
		for o := range l.client.View().ByIndex(l.pods, api.IndexNode, "") {
			if p := o.(*corev1.Pod); p.DeletionTimestamp != nil {
				if err := l.end(ctx, p, nil); err != nil {
					return 0, err
				}
			}
		}
		return 0, nil
	}
	if n, ok := l.client.View().Get(l.nodes, key).(*corev1.Node); ok {
		delete(l.missing, key.Name)
		if !outOfService(n) {
			return 0, nil
		}
		return 0, l.abandon(ctx, n.Name)
	}
	return l.orphans(ctx, key.Name, now)
}

// outOfService says whether somebody declared a node that is not ready to be
// down for good (documentation: "Node Shutdowns", "Non-graceful node shutdown
// handling").
func outOfService(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// abandon removes the pods whose deletion waits for an agent that is down.
func (l *Loop) abandon(ctx context.Context, node string) error {
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, node) {
		p := o.(*corev1.Pod)
		if p.DeletionTimestamp == nil {
			continue
		}
		if err := l.end(ctx, p, nil); err != nil {
			return err
		}
	}
	return nil
}

// orphans fails and removes the pods of a node that has been gone for a while.
func (l *Loop) orphans(ctx context.Context, node string, now time.Time) (time.Duration, error) {
	since, ok := l.missing[node]
	if !ok {
		l.missing[node] = now
		return quarantine, nil
	}
	if left := since.Add(quarantine).Sub(now); left > 0 {
		return left, nil
	}
	_, err := l.client.Get(ctx, api.Ref{Resource: l.nodes, Name: node})
	if !apierrors.IsNotFound(err) {
		delete(l.missing, node)
		return 0, err
	}
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, node) {
		why := &corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
			Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
		}
		if err := l.end(ctx, o.(*corev1.Pod), why); err != nil {
			return 0, err
		}
	}
	delete(l.missing, node)
	return 0, nil
}

// end removes a pod that has no agent any more, or never had one; what its owner
// shall know of it is written into its status first.
func (l *Loop) end(ctx context.Context, p *corev1.Pod, why *corev1.PodCondition) error {
	if podstate.Finished(p) {
		return l.remove(ctx, p)
	}
	status := map[string]any{"phase": corev1.PodFailed}
	if why != nil {
		status["conditions"] = []*corev1.PodCondition{why}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = l.client.Patch(ctx, api.RefTo(l.pods, p), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fail pod %s/%s of node %s: %w", p.Namespace, p.Name, p.Spec.NodeName, err)
	}
	return l.remove(ctx, p)
}

// trim removes the oldest ended pods beyond mostEnded.
func (l *Loop) trim(ctx context.Context) error {
	var ended []*corev1.Pod
	for o := range l.client.View().List(l.pods, "") {
		if p := o.(*corev1.Pod); podstate.Finished(p) {
			ended = append(ended, p)
		}
	}
	if len(ended) <= mostEnded {
		return nil
	}
	slices.SortFunc(ended, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, p := range ended[:len(ended)-mostEnded] {
		if err := l.remove(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) remove(ctx context.Context, p *corev1.Pod) error {
	zero := int64(0)
	err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}
