package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// target is what the scale of the workload says: how many replicas it is to have
// and has, and which pods they are.
type target struct {
	replicas, current int32
	selector          string
}

// snapshot is what a plan is made from.
type snapshot struct {
	autoscaler *autoscalingv2.HorizontalPodAutoscaler
	target     target
	pods       []*corev1.Pod // that the selector matches
	measured   readings
	// rivals are the autoscalers, this one among them, that select one of the
	// pods, when there is another.
	rivals []string
	had    history
	now    time.Time
}

// event is one to be told.
type event struct{ kind, reason, message string }

// decision is what to do. The status is what is to be written when nothing is to
// be scaled; done and refused complete it where something is.
type decision struct {
	status  autoscalingv2.HorizontalPodAutoscalerStatus
	rescale bool
	size    int32  // to be set, if rescale
	reason  string // why
	events  []event
	had     history
}

// measures says whether the size of a target is told by metrics, rather than by
// the autoscaler's bounds alone.
func measures(h *autoscalingv2.HorizontalPodAutoscaler, t target) bool {
	least := leastReplicas(h)
	switch {
	case t.replicas == 0:
		zeroed := isTrue(h, autoscalingv2.ScaledToZero)
		return zeroed && (least != 0 || countsOthers(h))
	case t.replicas > h.Spec.MaxReplicas, t.replicas < least:
		return false
	}
	return true
}

func leastReplicas(h *autoscalingv2.HorizontalPodAutoscaler) int32 {
	return ptr.Deref(h.Spec.MinReplicas, 1)
}

// countsOthers says whether an autoscaler has a metric that is there without
// pods, without which nothing can be scaled from zero.
func countsOthers(h *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, m := range h.Spec.Metrics {
		if m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType {
			return true
		}
	}
	return false
}

// unknown is the decision about an autoscaler whose target has no scale that can
// be read.
func unknown(h *autoscalingv2.HorizontalPodAutoscaler, err error, had history, now time.Time) decision {
	d := decision{status: *h.Status.DeepCopy(), had: had}
	d.warn("FailedGetScale", err.Error())
	d.condition(now, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: "+err.Error())
	return d
}

// plan decides how many replicas there should be. Reasons and texts are
// Kubernetes'.
func plan(s snapshot) decision {
	h := s.autoscaler
	now, least := s.target.replicas, leastReplicas(h)
	d := decision{status: *h.Status.DeepCopy(), had: s.had.begin(now, s.now)}
	d.condition(s.now, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	switch {
	case measures(h, s.target):
		return d.measured(s)
	case now == 0:
		d.condition(s.now, autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		d.numbers(h, now, 0, nil)
		return d
	case now > h.Spec.MaxReplicas:
		d.rescale, d.size, d.reason = true, h.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	default:
		d.rescale, d.size, d.reason = true, least, "Current number of replicas below Spec.MinReplicas"
	}
	d.numbers(h, now, h.Status.DesiredReplicas, nil)
	return d
}

// measured goes on by what the metrics say.
func (d decision) measured(s snapshot) decision {
	h, now := s.autoscaler, s.target.replicas
	wanted, metric, statuses, err := d.byMetrics(s)
	if err != nil && wanted < 0 {
		d.numbers(h, now, h.Status.DesiredReplicas, statuses)
		d.warn("FailedComputeMetricsReplicas", err.Error())
		return d
	}
	size := wanted
	switch {
	case size > now:
		d.reason = metric + " above target"
	case size < now:
		d.reason = "All metrics below target"
	}
	size = d.limit(s, size)
	if now == 0 {
		size = max(size, leastReplicas(h))
	}
	if d.rescale, d.size = size != now, size; d.rescale && d.reason == "" {
		d.reason = "Current number of replicas below Spec.MinReplicas"
	}
	desired := size
	if d.rescale {
		desired = h.Status.DesiredReplicas // until it is done
	}
	d.numbers(h, now, desired, statuses)
	return d
}

// byMetrics is the size that the metric wants that wants most, and what each has
// been found to be. It is negative when nothing may be done: no metric is known,
// or some are not and the others want fewer replicas.
func (d *decision) byMetrics(s snapshot) (size int32, metric string, statuses []autoscalingv2.MetricStatus, err error) {
	h := s.autoscaler
	if err := d.checkSelector(s); err != nil {
		return -1, "", nil, err
	}
	statuses = make([]autoscalingv2.MetricStatus, len(h.Spec.Metrics))
	var first *failure
	invalid := 0
	for i := range h.Spec.Metrics {
		p, f := proposalOf(s, i)
		if f != nil {
			d.warn(f.reason, f.err.Error())
			if first == nil {
				first = f
			}
			invalid++
			continue
		}
		statuses[i] = p.status
		if size == 0 || p.replicas > size {
			size, metric = p.replicas, p.metric
		}
	}
	if first != nil {
		err = fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %s: %w", invalid, len(h.Spec.Metrics), first.doing, first.err)
	}
	if invalid == len(h.Spec.Metrics) || invalid > 0 && size < s.target.replicas {
		message := "the HPA was unable to compute the replica count: "
		if first != nil {
			message += first.err.Error()
			d.condition(s.now, autoscalingv2.ScalingActive, corev1.ConditionFalse, first.reason, message)
		}
		return -1, "", statuses, err
	}
	d.condition(s.now, autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+metric)
	return size, metric, statuses, err
}

// checkSelector demands pods that no other autoscaler is about.
func (d *decision) checkSelector(s snapshot) error {
	inactive := func(reason, message string) {
		d.condition(s.now, autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, message)
	}
	selector := s.target.selector
	if selector == "" {
		d.warn("SelectorRequired", "selector is required")
		inactive("InvalidSelector", "the HPA target's scale is missing a selector")
		return errors.New("selector is required")
	}
	if _, err := labels.Parse(selector); err != nil {
		err = fmt.Errorf("couldn't convert selector into a corresponding internal selector object: %w", err)
		d.warn("InvalidSelector", err.Error())
		inactive("InvalidSelector", err.Error())
		return err
	}
	if len(s.rivals) > 1 {
		err := fmt.Errorf("pods by selector %v are controlled by more than one HPA (e.g. %v)", selector, s.rivals)
		d.warn("AmbiguousSelector", err.Error())
		inactive("AmbiguousSelector", err.Error())
		return err
	}
	return nil
}

// done completes a decision after the target has its new size.
func (d decision) done(s snapshot) decision {
	h, was := s.autoscaler, s.target.replicas
	d.condition(s.now, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", d.size))
	d.events = append(d.events, event{corev1.EventTypeNormal, "SuccessfulRescale", fmt.Sprintf("New size: %d; reason: %s", d.size, d.reason)})
	if h.Spec.Behavior != nil {
		d.had = d.had.scaled(was, d.size, s.now)
	}
	if was > 0 && d.size == 0 && leastReplicas(h) == 0 && countsOthers(h) {
		d.condition(s.now, autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero")
	} else {
		d.condition(s.now, autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero")
	}
	d.status.DesiredReplicas = d.size
	d.status.LastScaleTime = &metav1.Time{Time: s.now}
	return d
}

// refused completes a decision after the target could not be scaled.
func (d decision) refused(s snapshot, err error) decision {
	d.warn("FailedRescale", fmt.Sprintf("New size: %d; reason: %s; error: %v", d.size, d.reason, err))
	d.condition(s.now, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err))
	return d
}

// numbers sets all of the status but its conditions and the time of the last
// change.
func (d *decision) numbers(h *autoscalingv2.HorizontalPodAutoscaler, current, desired int32, metrics []autoscalingv2.MetricStatus) {
	d.status.CurrentReplicas, d.status.DesiredReplicas = current, desired
	d.status.CurrentMetrics = metrics
	d.status.ObservedGeneration = ptr.To(h.Generation)
}

func (d *decision) warn(reason, message string) {
	d.events = append(d.events, event{corev1.EventTypeWarning, reason, message})
}

func (d *decision) condition(now time.Time, kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
	for i, c := range d.status.Conditions {
		if c.Type != kind {
			continue
		}
		if c.Status == status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		d.status.Conditions[i] = next
		return
	}
	d.status.Conditions = append(d.status.Conditions, next)
}

func isTrue(h *autoscalingv2.HorizontalPodAutoscaler, kind autoscalingv2.HorizontalPodAutoscalerConditionType) bool {
	for _, c := range h.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
