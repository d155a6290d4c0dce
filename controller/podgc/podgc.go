// Package podgc removes pods that nobody else will: those of nodes that are
// gone, those that were never placed and are to be deleted, and the oldest of
// very many that have ended.
package podgc

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
			if new != nil {
				return nil
			}
			return []api.Key{{Name: old.GetName()}}
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
	} else if l.client.View().Get(l.nodes, api.Key{Name: p.Spec.NodeName}) == nil {
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
				if err := l.remove(ctx, p); err != nil {
					return 0, err
				}
			}
		}
		return 0, nil
	}
	return l.orphans(ctx, key.Name, now)
}

// orphans fails and removes the pods of a node that has been gone for a while.
func (l *Loop) orphans(ctx context.Context, node string, now time.Time) (time.Duration, error) {
	if l.client.View().Get(l.nodes, api.Key{Name: node}) != nil {
		delete(l.missing, node)
		return 0, nil
	}
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
		p := o.(*corev1.Pod)
		if !podstate.Finished(p) {
			p = p.DeepCopy()
			p.Status.Phase = corev1.PodFailed
			c := corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
				Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
			}
			if was := podstate.Condition(p, corev1.DisruptionTarget); was != nil {
				*was = c
			} else {
				p.Status.Conditions = append(p.Status.Conditions, c)
			}
			if _, err := l.client.Update(ctx, l.pods, p, "status"); err != nil && !apierrors.IsNotFound(err) {
				return 0, fmt.Errorf("fail pod %s/%s of missing node %s: %w", p.Namespace, p.Name, node, err)
			}
		}
		if err := l.remove(ctx, p); err != nil {
			return 0, err
		}
	}
	delete(l.missing, node)
	return 0, nil
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
