package horizontalpodautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// downWindow is for how long the highest recommendation counts when fewer
// replicas are wanted, where the autoscaler does not say
// (--horizontal-pod-autoscaler-downscale-stabilization).
const downWindow = 5 * time.Minute

// Without a behavior, a target grows at once to at most twice its size, or to 4.
const (
	growthFactor = 2
	growthLeast  = 4
)

// longestWindow bounds what is remembered: no window or period may be longer
// (API reference, HPAScalingRules).
const longestWindow = time.Hour

// change is a number of replicas at a time: recommended, added or removed.
type change struct {
	replicas int32
	at       time.Time
}

// history is what an autoscaler recommended and did in the last hour. It is kept
// in memory alone, as in Kubernetes: after a restart the windows begin anew with
// the size that there is. A value: its methods answer with another.
type history struct{ recommended, added, removed []change }

// begin notes the size of a target that is seen for the first time.
func (h history) begin(size int32, now time.Time) history {
	h.recommended, h.added, h.removed = recent(h.recommended, now), recent(h.added, now), recent(h.removed, now)
	if len(h.recommended) == 0 {
		h.recommended = []change{{size, now}}
	}
	return h
}

// recent are the changes of the last hour, in a slice of their own.
func recent(list []change, now time.Time) []change {
	return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.at.Before(now.Add(-longestWindow)) })
}

// scaled notes what has been done.
func (h history) scaled(was, is int32, now time.Time) history {
	if is > was {
		h.added = append(recent(h.added, now), change{is - was, now})
	} else {
		h.removed = append(recent(h.removed, now), change{was - is, now})
	}
	return h
}

// sum adds up the changes of the last seconds.
func sum(list []change, seconds int32, now time.Time) (n int32) {
	cutoff := now.Add(-time.Duration(seconds) * time.Second)
	for _, c := range list {
		if c.at.After(cutoff) {
			n += c.replicas
		}
	}
	return n
}

// limit brings a recommended size within what windows, rates and bounds allow,
// and notes it.
func (d *decision) limit(s snapshot, wanted int32) int32 {
	h, now := s.autoscaler, s.target.replicas
	stable, reason, message := stabilized(h.Spec.Behavior, d.had.recommended, now, wanted, s.now)
	d.had.recommended = append(d.had.recommended, change{wanted, s.now})
	if stable == wanted {
		reason, message = "ReadyForNewScale", "recommended size matches current size"
	}
	d.condition(s.now, autoscalingv2.AbleToScale, corev1.ConditionTrue, reason, message)
	size, reason, message := bounded(h, d.had, now, stable, s.now)
	limited := corev1.ConditionFalse
	if size != stable {
		limited = corev1.ConditionTrue
	}
	d.condition(s.now, autoscalingv2.ScalingLimited, limited, reason, message)
	return size
}

// stabilized is the recommendation that holds in view of those before: the lowest
// of the window to grow, the highest of the window to shrink.
func stabilized(b *autoscalingv2.HorizontalPodAutoscalerBehavior, before []change, current, wanted int32, now time.Time) (size int32, reason, message string) {
	const higher = "recent recommendations were higher than current one, applying the highest recent recommendation"
	if b == nil {
		size = wanted
		for _, c := range before {
			if !c.at.Before(now.Add(-downWindow)) {
				size = max(size, c.replicas)
			}
		}
		return size, "ScaleDownStabilized", higher
	}
	up, down := wanted, wanted
	for _, c := range before {
		if c.at.After(now.Add(-window(b.ScaleUp, 0))) {
			up = min(up, c.replicas)
		}
		if c.at.After(now.Add(-window(b.ScaleDown, downWindow))) {
			down = max(down, c.replicas)
		}
	}
	size = min(max(current, up), down)
	if wanted >= current {
		return size, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"
	}
	return size, "ScaleDownStabilized", higher
}

func window(r *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// bounded is the size nearest to the wanted one that bounds and rates allow.
func bounded(h *autoscalingv2.HorizontalPodAutoscaler, had history, current, wanted int32, now time.Time) (size int32, reason, message string) {
	least, most := leastReplicas(h), h.Spec.MaxReplicas
	b := h.Spec.Behavior
	within := func() (int32, string, string) {
		return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
	}
	var fastest int32
	switch {
	case b == nil && wanted < least:
		return least, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
	case b == nil:
		fastest = max(clamp(growthFactor*float64(current)), growthLeast)
	case wanted > current:
		fastest = max(byPolicies(b.ScaleUp, had, current, now, true), current)
	case wanted < current:
		slowest := min(byPolicies(b.ScaleDown, had, current, now, false), current)
		switch {
		case wanted >= max(least, slowest):
			return within()
		case least < slowest:
			return slowest, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
		}
		return least, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
	default:
		return within()
	}
	switch {
	case wanted <= min(most, fastest):
		return within()
	case most > fastest:
		return fastest, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
	}
	return most, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
}

// atStart is the size at the start of a period that ends now.
func (h history) atStart(seconds, current int32, now time.Time) int32 {
	return current - sum(h.added, seconds, now) + sum(h.removed, seconds, now)
}

// byPolicies is the size up or down to which rules allow to go now, by the policy
// that they select: the one of the greatest change, unless they say otherwise.
func byPolicies(r *autoscalingv2.HPAScalingRules, had history, current int32, now time.Time, up bool) int32 {
	selects := autoscalingv2.MaxChangePolicySelect
	if r != nil {
		selects = ptr.Deref(r.SelectPolicy, selects)
	}
	if r == nil || selects == autoscalingv2.DisabledPolicySelect || len(r.Policies) == 0 {
		return current
	}
	var all []int32
	for _, p := range r.Policies {
		start := had.atStart(p.PeriodSeconds, current, now)
		switch {
		case p.Type == autoscalingv2.PodsScalingPolicy && up:
			all = append(all, clamp(float64(start)+float64(p.Value)))
		case p.Type == autoscalingv2.PodsScalingPolicy:
			all = append(all, start-p.Value)
		case up: // rounded up: a small target would never grow
			all = append(all, clamp(math.Ceil(float64(start)*(1+float64(p.Value)/100))))
		default:
			all = append(all, int32(float64(start)*(1-float64(p.Value)/100)))
		}
	}
	if (selects == autoscalingv2.MinChangePolicySelect) == up {
		return slices.Min(all)
	}
	return slices.Max(all)
}

// clamp is a number of replicas that may be too large for one.
func clamp(n float64) int32 {
	if n >= math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(n)
}
