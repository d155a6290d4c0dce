package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

const (
	// deletionTimeout is how long a pod that a budget let go counts as gone
	// although nobody has deleted it yet.
	deletionTimeout = 2 * time.Minute
	// staleAfter is how long a pod may be marked for a disruption that does not
	// come.
	staleAfter = 2 * time.Minute
)

// verdict is what a budget's pods amount to.
type verdict struct {
	status policyv1.PodDisruptionBudgetStatus
	// late are pods that the budget let go and that nobody has deleted in time:
	// they count again.
	late []*corev1.Pod
	// after is when the next pod is late if nothing else happens; zero: none.
	after time.Duration
}

// byScale says whether a budget is about a share of what is asked for, so that
// the owners of its pods have to be asked how many that are.
func byScale(spec *policyv1.PodDisruptionBudgetSpec) bool {
	return spec.MaxUnavailable != nil || spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.String
}

// plan computes the status of a budget from the pods that it selects and, where
// byScale says so, from the replicas that their owners ask for together.
// (Documentation: "Specifying a Disruption Budget for your Application".)
func plan(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, scale int32, now time.Time) (verdict, error) {
	expected, desired, err := bounds(&b.Spec, len(pods), scale)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{status: policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation,
		DesiredHealthy:     desired,
		ExpectedPods:       expected,
		Conditions:         append([]metav1.Condition(nil), b.Status.Conditions...),
	}}
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		since, let := b.Status.DisruptedPods[p.Name]
		wait := since.Add(deletionTimeout).Sub(now)
		switch {
		case let && wait > 0:
			if v.status.DisruptedPods == nil {
				v.status.DisruptedPods = map[string]metav1.Time{}
			}
			v.status.DisruptedPods[p.Name] = since
			v.after = controller.Sooner(v.after, wait)
			continue
		case let:
			v.late = append(v.late, p)
		}
		if podstate.Ready(p) {
			v.status.CurrentHealthy++
		}
	}
	// A budget whose first pods are still to come allows nothing.
	if expected > 0 {
		v.status.DisruptionsAllowed = max(0, v.status.CurrentHealthy-desired)
	}
	c := metav1.Condition{Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason}
	if v.status.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	setAllowed(&v.status, c, now)
	return v, nil
}

// bounds are how many pods a budget expects, and how many of them must stay
// healthy. Shares are rounded up.
func bounds(spec *policyv1.PodDisruptionBudgetSpec, pods int, scale int32) (expected, desired int32, err error) {
	switch {
	case spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, int(scale), true)
		return scale, max(0, scale-int32(n)), err
	case spec.MinAvailable == nil:
		return 0, 0, nil
	case spec.MinAvailable.Type == intstr.Int:
		return int32(pods), spec.MinAvailable.IntVal, nil
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, int(scale), true)
	return scale, int32(n), err
}

// failed is the status of a budget that could not be computed: it lets nothing
// go until it can be.
func failed(b *policyv1.PodDisruptionBudget, why error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	s := *b.Status.DeepCopy()
	s.DisruptionsAllowed = 0
	setAllowed(&s, metav1.Condition{Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: why.Error()}, now)
	return s
}

func setAllowed(s *policyv1.PodDisruptionBudgetStatus, c metav1.Condition, now time.Time) {
	c.Type, c.ObservedGeneration, c.LastTransitionTime = policyv1.DisruptionAllowedCondition, s.ObservedGeneration, metav1.NewTime(now)
	meta.SetStatusCondition(&s.Conditions, c)
}

// replicas adds up what the owners of pods ask for, each once. unmanaged says
// that there are pods that nobody owns; they count for nothing.
func replicas(pods []*corev1.Pod, owner func(*corev1.Pod, *metav1.OwnerReference) (scaled, error)) (sum int32, unmanaged bool, err error) {
	byUID := map[types.UID]int32{}
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil {
			unmanaged = true
			continue
		}
		if _, known := byUID[ref.UID]; known {
			continue
		}
		o, err := owner(p, ref)
		if err != nil {
			return 0, unmanaged, err
		}
		if o.uid == "" {
			return 0, unmanaged, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
		byUID[o.uid] = o.replicas
	}
	for _, n := range byUID {
		sum += n
	}
	return sum, unmanaged, nil
}

// marked answers whether a pod says that it is to be disrupted although nobody
// has deleted it, and how long that may still be so. Marks of the node's agent
// are not stale, however old.
func marked(p *corev1.Pod, now time.Time) (marked bool, left time.Duration) {
	c := podstate.Condition(p, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == corev1.PodReasonTerminationByKubelet || !podstate.Active(p) {
		return false, 0
	}
	return true, max(0, c.LastTransitionTime.Add(staleAfter).Sub(now))
}

// unmark is a copy of a pod that is to be disrupted no more.
func unmark(p *corev1.Pod, now time.Time) *corev1.Pod {
	p = p.DeepCopy()
	c := podstate.Condition(p, corev1.DisruptionTarget)
	c.Status, c.Reason, c.Message = corev1.ConditionFalse, "", ""
	c.ObservedGeneration, c.LastTransitionTime = p.Generation, metav1.NewTime(now)
	return p
}
