package dependencies

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
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Reasons of events and conditions.
const (
	waitingFor = "WaitingForDependencies"
	areMet     = "DependenciesMet"
	hasFailed  = "DependencyFailed"
	isLost     = "DependencyLost"
	isBack     = "DependencyRestored"
	inCircle   = "CircularDependency"
)

func (l *Loop) tell(p *corev1.Pod, kind, reason, message string) {
	l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Pod"), p, ""), kind, reason, message)
}

// act carries out what was planned for pods: gates, then statuses, then deletions.
// What fails is found anew at the next look.
func (l *Loop) act(ctx context.Context, p plan, circle []dependency.Target, now time.Time) error {
	pods, err := l.openGates(ctx, p.pods)
	if err != nil {
		return err
	}
	if err := l.report(ctx, p.pods, pods, now); err != nil {
		return err
	}
	if circle != nil && slices.ContainsFunc(p.pods, func(one podPlan) bool { return one.message != "" }) {
		l.tellCircle(circle)
	}
	return controller.AtOnce(ctx, len(p.pods), func(ctx context.Context, i int) error {
		one := p.pods[i]
		switch {
		case one.stop != "":
			l.tell(one.pod, corev1.EventTypeWarning, hasFailed, "Stopping: "+one.stop)
		case one.restart != "":
			l.tell(one.pod, corev1.EventTypeNormal, isBack, "Restarting, as what had failed is back: "+one.restart)
		default:
			return nil
		}
		err := l.client.Delete(ctx, api.RefTo(l.pods, one.pod), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &one.pod.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete pod %s: %w", one.pod.Name, err)
		}
		return nil
	})
}

// openGates answers with the pods as they are then; one that is gone is nil.
func (l *Loop) openGates(ctx context.Context, plans []podPlan) ([]*corev1.Pod, error) {
	pods := make([]*corev1.Pod, len(plans))
	var writes []client.Write
	var which []int
	for i, one := range plans {
		if pods[i] = one.pod; len(one.drop) > 0 {
			changed := one.pod.DeepCopy()
			changed.Spec.SchedulingGates = without(changed.Spec.SchedulingGates, one.drop)
			writes, which = append(writes, client.Write{Resource: l.pods, Update: changed}), append(which, i)
		}
	}
	var failed error
	for k, result := range l.batch(ctx, writes) {
		i := which[k]
		switch p, _ := result.Object.(*corev1.Pod); {
		case result.Err != nil:
			pods[i] = nil
			if !apierrors.IsNotFound(result.Err) && failed == nil {
				failed = fmt.Errorf("take gates from pod %s: %w", plans[i].pod.Name, result.Err)
			}
		default:
			if pods[i] = p; len(dependency.Gates(p)) == 0 {
				l.tell(p, corev1.EventTypeNormal, areMet, "Nothing is missing any more of what the pod depends on")
			}
		}
	}
	return pods, failed
}

func (l *Loop) batch(ctx context.Context, writes []client.Write) []client.Result {
	if len(writes) == 0 {
		return nil
	}
	return l.client.Batch(ctx, writes)
}

// report writes the conditions by which pods say what they wait for, what they lack, and
// why they are stopped.
func (l *Loop) report(ctx context.Context, plans []podPlan, pods []*corev1.Pod, now time.Time) error {
	var writes []client.Write
	var which []int
	for i, one := range plans {
		if pods[i] == nil {
			continue
		}
		changed := pods[i].DeepCopy()
		switch scheduled := podstate.Condition(changed, corev1.PodScheduled); {
		case one.message != "" && scheduled != nil:
			scheduled.Message = one.message
		case one.fail != "":
			setCondition(changed, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionTrue, Reason: hasFailed, Message: one.fail}, now)
		case one.lack != "":
			setCondition(changed, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionUnknown, Reason: isLost, Message: one.lack}, now)
		case one.back:
			setCondition(changed, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionFalse, Reason: isBack}, now)
		case one.stop != "" || one.restart != "":
			c := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: hasFailed, Message: one.stop + one.restart}
			setCondition(changed, c, now)
		default:
			continue
		}
		writes, which = append(writes, client.Write{Resource: l.pods, Update: changed, Subresource: "status"}), append(which, i)
	}
	var failed error
	for k, result := range l.batch(ctx, writes) {
		one := plans[which[k]]
		switch {
		case result.Err != nil && !apierrors.IsNotFound(result.Err) && failed == nil:
			failed = fmt.Errorf("write the status of pod %s: %w", one.pod.Name, result.Err)
		case result.Err != nil:
		case one.message != "" && one.message != plain:
			l.tell(one.pod, corev1.EventTypeNormal, waitingFor, one.message)
		case one.fail != "":
			l.tell(one.pod, corev1.EventTypeWarning, hasFailed, "Restarts once it is back: "+one.fail)
		}
	}
	return failed
}

// tellCircle tells all who wait for one another. Admission lets in no circle, but for
// writes at the same time that make one together.
func (l *Loop) tellCircle(circle []dependency.Target) {
	for _, t := range circle {
		if r, obj := t.Object(l.graph.Registry, l.graph.View); obj != nil {
			l.events.Event(events.About(r.GVK(), obj, ""), corev1.EventTypeWarning, inCircle,
				"Waits in a circle, so that nothing of it will start: "+dependency.Spell(circle)+"; take one of these dependencies away")
		}
	}
}

// noteDone keeps in mind what is done for good, for pods to come.
func (l *Loop) noteDone(ctx context.Context, root dependency.Link, text string) error {
	if text == root.Object.GetAnnotations()[dependency.Completed] {
		return nil
	}
	if err := l.patch(ctx, root, map[string]any{"annotations": map[string]string{dependency.Completed: text}}); err != nil {
		return fmt.Errorf("note what is completed: %w", err)
	}
	return nil
}

// patch changes metadata of the very version that was looked at. What is gone needs
// no change.
func (l *Loop) patch(ctx context.Context, at dependency.Link, meta map[string]any) error {
	meta["uid"], meta["resourceVersion"] = at.Object.GetUID(), at.Object.GetResourceVersion()
	body, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return err
	}
	_, err = l.client.Patch(ctx, api.RefTo(at.Resource, at.Object), types.MergePatchType, body, metav1.PatchOptions{}, "")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// order looks at an object's part in a stop order.
func (l *Loop) order(ctx context.Context, x dependency.Link, now time.Time) (time.Duration, error) {
	o := order{first: dependency.Reversed(x.Object), finalizer: isFinal(x.Object)}
	self, isPod := x.Object.(*corev1.Pod)
	// A pod stays until it has stopped, whatever is deleted how.
	o.first = o.first && !isPod
	ns := l.client.View().Get(l.namespaces, api.Key{Name: x.Object.GetNamespace()})
	o.all = ns == nil || ns.GetDeletionTimestamp() != nil
	for _, u := range l.index.of(x.Target()) {
		r, user := l.find(u.key)
		if user == nil || !dependency.Reversed(user) || isPod && podstate.Finished(self) {
			continue
		}
		if p, ok := user.(*corev1.Pod); ok && podstate.Finished(p) {
			continue
		}
		if l.graph.After(x, dependency.Link{Resource: r, Object: user}) {
			o.used = true
			o.waits = o.waits || o.all || user.GetDeletionTimestamp() != nil
		}
	}
	p := planOrder(x.Object, o, now)
	finalizers := slices.Clone(x.Object.GetFinalizers())
	switch {
	case p.foreground:
		uid, policy := x.Object.GetUID(), metav1.DeletePropagationForeground
		err := l.client.Delete(ctx, api.RefTo(x.Resource, x.Object), metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil {
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			return 0, err
		}
		// It is in the view by now, with the finalizer that keeps it.
		if x.Object = l.client.View().Get(x.Resource, api.RefTo(x.Resource, x.Object).Key()); x.Object == nil {
			return 0, nil
		}
		return l.order(ctx, x, now)
	case p.add:
		return 0, l.patch(ctx, x, map[string]any{"finalizers": append(finalizers, dependency.Finalizer)})
	case p.remove:
		left := slices.DeleteFunc(finalizers, func(f string) bool { return f == dependency.Finalizer })
		return 0, l.patch(ctx, x, map[string]any{"finalizers": left})
	}
	return p.after, nil
}
