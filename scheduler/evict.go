package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/scheduler/core"
)

// disruptionBudgets are all that there are, as far as their selectors can be read.
func (s *Scheduler) disruptionBudgets() []core.Budget {
	var out []core.Budget
	for o := range s.view.List(s.budgets, "") {
		b := o.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			continue
		}
		counted := map[string]bool{}
		for name := range b.Status.DisruptedPods {
			counted[name] = true
		}
		out = append(out, core.Budget{Namespace: b.Namespace, Selector: selector, Allowed: b.Status.DisruptionsAllowed, Counted: counted})
	}
	return out
}

// evict makes room for a pod. Until all is written the pod is not tried again,
// lest it asks for more victims; when they are gone, that wakes it.
func (s *Scheduler) evict(it *item, e *core.Eviction) {
	none := ""
	// Pods of lower priority that the node was promised to may look elsewhere.
	for _, p := range s.cluster.Nominated(e.Node) {
		if p.Priority() >= it.pending.Priority() {
			continue
		}
		s.cluster.Withdraw(p.UID())
		key := api.Key{Namespace: p.Object.Namespace, Name: p.Object.Name}
		s.writer.report(key, p.UID(), statusChange{nominated: &none})
		if other := s.queue.items[key]; other != nil {
			s.queue.hurry(other, s.clock.Now())
		}
	}
	key, preemptor := it.key, it.pod
	s.writer.do(func(ctx context.Context) {
		var errs []error
		for _, v := range e.Victims {
			if v.Object.DeletionTimestamp == nil {
				errs = append(errs, s.evictOne(ctx, preemptor, v.Object, e.Node))
			}
		}
		err := errors.Join(errs...)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("eviction failed; the pod is tried again", "pod", key, "node", e.Node, "err", err)
		}
		s.inbox.answer(result{key: key, uid: preemptor.UID, node: e.Node, evicted: true, err: err})
	})
}

// evictOne says in a victim's status why it goes, and deletes it gracefully.
func (s *Scheduler) evictOne(ctx context.Context, preemptor, victim *corev1.Pod, node string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": victim.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message:            preemptor.Spec.SchedulerName + ": preempting to accommodate a higher priority pod",
			ObservedGeneration: victim.Generation, LastTransitionTime: metav1.NewTime(s.clock.Now()),
		}}},
	})
	if err != nil {
		return err
	}
	ref := api.RefTo(s.pods, victim)
	if _, err = s.client.Patch(ctx, ref, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err == nil {
		err = s.client.Delete(ctx, ref, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &victim.UID}})
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("evict pod %s/%s: %w", victim.Namespace, victim.Name, err)
	}
	s.events.Event(about(victim), events.Normal, "Preempted", fmt.Sprintf("Preempted by pod %s on node %s", preemptor.UID, node))
	return nil
}
