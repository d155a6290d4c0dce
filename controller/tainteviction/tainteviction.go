// Package tainteviction deletes pods from nodes whose NoExecute taints they do
// not tolerate, or not for longer than they say.
package tainteviction

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Loop is the taint eviction controller; its keys are nodes.
type Loop struct {
	client      client.Interface
	events      events.Recorder
	nodes, pods *api.Resource

	mu      sync.Mutex
	tainted map[string]memory // by node
}

// memory is what the last look at a node with NoExecute taints found.
type memory struct {
	// waiting are the pods that stay a while only; kept just to tell when one may
	// stay after all.
	waiting map[types.UID]bool
	// since is when taints were first seen, by key. Only the node
	// lifecycle writes timeAdded, kubectl and others do not: without this their
	// taints would be new at each look.
	since map[string]metav1.Time
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{client: c, events: recorder, nodes: c.Registry().Must("", "nodes"), pods: c.Registry().Must("", "pods"), tainted: map[string]memory{}}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "taint-eviction-controller" }

// Sources are the nodes, and the pods that come to a node or tolerate something
// else than before.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.nodes},
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			if new == nil {
				return nil
			}
			p := new.(*corev1.Pod)
			if p.Spec.NodeName == "" {
				return nil
			}
			if was, ok := old.(*corev1.Pod); ok && was.Spec.NodeName == p.Spec.NodeName && equality.Semantic.DeepEqual(was.Spec.Tolerations, p.Spec.Tolerations) {
				return nil
			}
			return []api.Key{{Name: p.Spec.NodeName}}
		}},
	}
}

// Step looks at the pods of one node.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	n, ok := l.client.View().Get(l.nodes, key).(*corev1.Node)
	if !ok {
		l.remember(key.Name, memory{})
		return 0, nil
	}
	was := l.remembered(n.Name)
	taints, since := noExecute(n.Spec.Taints, was.since, now)
	if len(taints) == 0 && len(was.waiting) == 0 {
		l.remember(n.Name, memory{})
		return 0, nil
	}
	var after time.Duration
	is := memory{map[types.UID]bool{}, since}
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, n.Name) {
		p := o.(*corev1.Pod)
		if p.DeletionTimestamp != nil {
			continue
		}
		stays, left := stay(p, taints, now)
		if stays {
			if was.waiting[p.UID] {
				l.event(p, "Cancelling deletion of")
			}
			continue
		}
		if left > 0 {
			is.waiting[p.UID] = true
			after = controller.Sooner(after, left)
			continue
		}
		if err := l.evict(ctx, p, now); err != nil {
			return 0, err
		}
	}
	l.remember(n.Name, is)
	return after, nil
}

func (l *Loop) remembered(node string) memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tainted[node]
}

func (l *Loop) remember(node string, m memory) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(m.waiting) == 0 && len(m.since) == 0 {
		delete(l.tainted, node)
	} else {
		l.tainted[node] = m
	}
}

func (l *Loop) event(p *corev1.Pod, what string) {
	l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Pod"), p, ""), corev1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("%s Pod %s/%s", what, p.Namespace, p.Name))
}

// noExecute are copies of the taints that evict, each with the time of its addition:
// its own, or when it was seen first, which is remembered for the next look.
func noExecute(taints []corev1.Taint, was map[string]metav1.Time, now time.Time) (out []corev1.Taint, since map[string]metav1.Time) {
	since = map[string]metav1.Time{}
	for _, t := range taints {
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		if t.TimeAdded == nil {
			first, seen := was[t.Key]
			if !seen {
				first = metav1.NewTime(now)
			}
			since[t.Key], t.TimeAdded = first, &first
		}
		out = append(out, t)
	}
	return out, since
}

// stay says whether a pod may stay for good, or how long it still may.
func stay(p *corev1.Pod, taints []corev1.Taint, now time.Time) (forever bool, left time.Duration) {
	limited := false
	bound := p.CreationTimestamp.Time
	if c := podstate.Condition(p, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionTrue {
		bound = c.LastTransitionTime.Time
	}
	for i := range taints {
		tolerated, bounded, until := tolerates(p.Spec.Tolerations, &taints[i], bound, now)
		if !tolerated {
			return false, 0
		}
		if bounded && (!limited || until < left) {
			limited, left = true, until
		}
	}
	return !limited, max(left, 0)
}

// tolerates finds the first toleration of a taint, whose time counts from when the
// taint was added, or from when the pod came to a node that had it.
func tolerates(list []corev1.Toleration, t *corev1.Taint, bound, now time.Time) (tolerated, bounded bool, left time.Duration) {
	for i := range list {
		if !list[i].ToleratesTaint(klog.Background(), t, false) {
			continue
		}
		if list[i].TolerationSeconds == nil {
			return true, false, 0
		}
		since := t.TimeAdded.Time
		if bound.After(since) {
			since = bound
		}
		until := since.Add(time.Duration(max(*list[i].TolerationSeconds, 0)) * time.Second)
		return true, true, until.Sub(now)
	}
	return false, false, 0
}

// evict says in the pod's status why it goes, and deletes it.
func (l *Loop) evict(ctx context.Context, p *corev1.Pod, now time.Time) error {
	l.event(p, "Marking for deletion")
	changed := p.DeepCopy()
	c := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint",
	}
	if was := podstate.Condition(changed, corev1.DisruptionTarget); was != nil {
		*was = c
	} else {
		changed.Status.Conditions = append(changed.Status.Conditions, c)
	}
	if _, err := l.client.Update(ctx, l.pods, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("evict pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}
