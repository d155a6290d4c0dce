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

	// waiting are, by node, the pods that stay a while only; kept just to tell
	// when one may stay after all.
	mu      sync.Mutex
	waiting map[string]map[types.UID]bool
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{client: c, events: recorder, nodes: c.Registry().Must("", "nodes"), pods: c.Registry().Must("", "pods"), waiting: map[string]map[types.UID]bool{}}
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
		l.wait(key.Name, nil)
		return 0, nil
	}
	taints := noExecute(n.Spec.Taints)
	was := l.waited(n.Name)
	if len(taints) == 0 && len(was) == 0 {
		return 0, nil
	}
	var after time.Duration
	is := map[types.UID]bool{}
	for o := range l.client.View().ByIndex(l.pods, api.IndexNode, n.Name) {
		p := o.(*corev1.Pod)
		if p.DeletionTimestamp != nil {
			continue
		}
		stays, left := stay(p, taints, now)
		if stays {
			if was[p.UID] {
				l.event(p, "Cancelling deletion of")
			}
			continue
		}
		if left > 0 {
			is[p.UID] = true
			after = controller.Sooner(after, left)
			continue
		}
		if err := l.evict(ctx, p, now); err != nil {
			return 0, err
		}
	}
	l.wait(n.Name, is)
	return after, nil
}

func (l *Loop) waited(node string) map[types.UID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[node]
}

func (l *Loop) wait(node string, pods map[types.UID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(pods) == 0 {
		delete(l.waiting, node)
	} else {
		l.waiting[node] = pods
	}
}

func (l *Loop) event(p *corev1.Pod, what string) {
	l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Pod"), p, ""), corev1.EventTypeNormal, "TaintManagerEviction", fmt.Sprintf("%s Pod %s/%s", what, p.Namespace, p.Name))
}

func noExecute(taints []corev1.Taint) []corev1.Taint {
	var out []corev1.Taint
	for _, t := range taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

// stay says whether a pod may stay for good, or how long it still may.
func stay(p *corev1.Pod, taints []corev1.Taint, now time.Time) (forever bool, left time.Duration) {
	limited := false
	for i := range taints {
		tolerated, bounded, until := tolerates(p.Spec.Tolerations, &taints[i], now)
		if !tolerated {
			return false, 0
		}
		if bounded && (!limited || until < left) {
			limited, left = true, until
		}
	}
	return !limited, max(left, 0)
}

// tolerates finds the first toleration of a taint; its time counts from when the
// taint was added.
func tolerates(list []corev1.Toleration, t *corev1.Taint, now time.Time) (tolerated, bounded bool, left time.Duration) {
	for i := range list {
		if !list[i].ToleratesTaint(klog.Background(), t, false) {
			continue
		}
		if list[i].TolerationSeconds == nil {
			return true, false, 0
		}
		since := now
		if t.TimeAdded != nil {
			since = t.TimeAdded.Time
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
