package horizontalpodautoscaler

import (
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"pgregory.net/rapid"

	"k8s.io/utils/ptr"
)

func rules(window int32, selects autoscalingv2.ScalingPolicySelect, policies ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	return &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window, SelectPolicy: &selects, Policies: policies}
}

func percent(value, seconds int32) autoscalingv2.HPAScalingPolicy {
	return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: value, PeriodSeconds: seconds}
}

func podsPer(value, seconds int32) autoscalingv2.HPAScalingPolicy {
	return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: value, PeriodSeconds: seconds}
}

// Documentation: "Scaling policies".
func TestPolicies(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name            string
		up              bool
		rules           *autoscalingv2.HPAScalingRules
		had             history
		current, wanted int32
		want            int32
		reason          string
	}{
		{"pods, up", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{}, 5, 20, 8, "ScaleUpLimit"},
		{"percent, up, rounded up", true, rules(0, autoscalingv2.MaxChangePolicySelect, percent(10, 60)), history{}, 5, 20, 6, "ScaleUpLimit"},
		{"the greater, up", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60), percent(100, 60)), history{}, 5, 20, 10, "ScaleUpLimit"},
		{"the lesser, up", true, rules(0, autoscalingv2.MinChangePolicySelect, podsPer(3, 60), percent(100, 60)), history{}, 5, 20, 8, "ScaleUpLimit"},
		{"disabled, up", true, rules(0, autoscalingv2.DisabledPolicySelect, podsPer(3, 60)), history{}, 5, 20, 5, "ScaleUpLimit"},
		{"some were added in the period", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{added: []change{{2, ago(30 * time.Second)}, {9, ago(time.Minute)}}}, 5, 20, 6, "ScaleUpLimit"},
		{"more were added than may be", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{added: []change{{4, ago(30 * time.Second)}}}, 5, 20, 5, "ScaleUpLimit"},
		{"some were removed in the period", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{removed: []change{{2, ago(30 * time.Second)}}}, 5, 20, 10, "ScaleUpLimit"},
		{"the maximum", true, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(90, 60)), history{}, 5, 70, 50, "TooManyReplicas"},
		{"pods, down", false, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{}, 20, 5, 17, "ScaleDownLimit"},
		{"percent, down, rounded down", false, rules(0, autoscalingv2.MaxChangePolicySelect, percent(10, 60)), history{}, 15, 5, 13, "ScaleDownLimit"},
		{"the greater, down", false, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60), percent(50, 60)), history{}, 20, 5, 10, "ScaleDownLimit"},
		{"the lesser, down", false, rules(0, autoscalingv2.MinChangePolicySelect, podsPer(3, 60), percent(50, 60)), history{}, 20, 5, 17, "ScaleDownLimit"},
		{"disabled, down", false, rules(0, autoscalingv2.DisabledPolicySelect, podsPer(3, 60)), history{}, 20, 5, 20, "ScaleDownLimit"},
		{"some were removed", false, rules(0, autoscalingv2.MaxChangePolicySelect, podsPer(3, 60)), history{removed: []change{{2, ago(30 * time.Second)}}}, 20, 5, 19, "ScaleDownLimit"},
		{"the minimum", false, rules(0, autoscalingv2.MaxChangePolicySelect, percent(100, 60)), history{}, 20, 1, 2, "TooFewReplicas"},
		{"nothing to do", false, rules(0, autoscalingv2.MaxChangePolicySelect, percent(100, 60)), history{}, 20, 20, 20, "DesiredWithinRange"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := autoscaler(2, 50, cpu(50))
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: c.rules, ScaleDown: c.rules}
			if got, reason, _ := bounded(h, c.had, c.current, c.wanted, now); got != c.want || reason != c.reason {
				t.Errorf("%d, to be %d, becomes %d: %s; want %d: %s", c.current, c.wanted, got, reason, c.want, c.reason)
			}
		})
	}
}

// Documentation: "Stabilization window".
func TestStabilization(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	both := &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(60, autoscalingv2.MaxChangePolicySelect), ScaleDown: rules(120, autoscalingv2.MaxChangePolicySelect)}
	unset := both.DeepCopy()
	unset.ScaleDown.StabilizationWindowSeconds = nil
	for _, c := range []struct {
		name            string
		b               *autoscalingv2.HorizontalPodAutoscalerBehavior
		before          []change
		current, wanted int32
		want            int32
		reason          string
	}{
		{"up at once without a behavior", nil, []change{{2, ago(time.Second)}}, 2, 6, 6, "ScaleDownStabilized"},
		{"down after five minutes", nil, []change{{9, ago(301 * time.Second)}, {5, ago(300 * time.Second)}}, 9, 2, 5, "ScaleDownStabilized"},
		{"up by the lowest of the window", both, []change{{3, ago(59 * time.Second)}, {1, ago(time.Minute)}}, 2, 6, 3, "ScaleUpStabilized"},
		{"down by the highest of the window", both, []change{{7, ago(119 * time.Second)}, {9, ago(2 * time.Minute)}}, 9, 2, 7, "ScaleDownStabilized"},
		{"between both", both, []change{{3, ago(30 * time.Second)}, {9, ago(30 * time.Second)}}, 6, 2, 6, "ScaleDownStabilized"},
		{"the default window", unset, []change{{7, ago(299 * time.Second)}, {9, ago(5 * time.Minute)}}, 9, 2, 7, "ScaleDownStabilized"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, reason, _ := stabilized(c.b, c.before, c.current, c.wanted, now); got != c.want || reason != c.reason {
				t.Errorf("%d, to be %d, becomes %d: %s; want %d: %s", c.current, c.wanted, got, reason, c.want, c.reason)
			}
		})
	}
	s := scene(autoscaler(1, 9, cpu(50)), 4, "100m", "100m", "100m", "100m")
	wantCondition(t, plan(s), autoscalingv2.AbleToScale, "True ScaleDownStabilized: recent recommendations were higher than current one, applying the highest recent recommendation")
}

// A target whose load changes is scaled within its bounds, its rates, and the right
// way.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		least := int32(rapid.IntRange(1, 5).Draw(r, "least"))
		h := autoscaler(least, least+int32(rapid.IntRange(0, 20).Draw(r, "more")), cpu(int32(rapid.IntRange(10, 150).Draw(r, "target"))))
		draw := func(name string) *autoscalingv2.HPAScalingRules {
			selects := rapid.SampledFrom([]autoscalingv2.ScalingPolicySelect{autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect}).Draw(r, name)
			return rules(int32(rapid.IntRange(0, 120).Draw(r, name+" window")), selects,
				podsPer(int32(rapid.IntRange(1, 5).Draw(r, name+" pods")), int32(rapid.IntRange(15, 90).Draw(r, name+" period"))))
		}
		if rapid.Bool().Draw(r, "behavior") {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: draw("up"), ScaleDown: draw("down")}
		}
		var had history
		n := int(least)
		sizes := []change{{least, now}}
		at := now
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			at = at.Add(15 * time.Second)
			use := rapid.SampledFrom([]string{"1m", "100m", "500m", "1", "3"}).Draw(r, "use")
			uses := make([]string, n)
			for i := range uses {
				uses[i] = use
			}
			s := scene(h, n, uses...)
			s.now, s.had = at, had
			d := plan(s)
			if d.rescale {
				d = d.done(s)
				if d.size < least || d.size > h.Spec.MaxReplicas {
					r.Fatalf("%d is not within %d and %d", d.size, least, h.Spec.MaxReplicas)
				}
				checkDirection(r, s, d)
				n = int(d.size)
			}
			had = d.had
			sizes = append(sizes, change{int32(n), at})
			checkRate(r, h, sizes)
			h.Status = d.status
		}
	})
}

// checkDirection: nothing grows that has less to do than wanted, nor shrinks that
// has more.
func checkDirection(r *rapid.T, s snapshot, d decision) {
	share := *d.status.CurrentMetrics[0].Resource.Current.AverageUtilization
	wanted := *s.autoscaler.Spec.Metrics[0].Resource.Target.AverageUtilization
	recommended := make(map[bool]bool)
	for _, c := range s.had.recommended {
		recommended[c.replicas > s.target.replicas] = true
	}
	if d.size > s.target.replicas && share < wanted && !recommended[true] {
		r.Fatalf("%d grows to %d at %d %% of %d %%", s.target.replicas, d.size, share, wanted)
	}
	if d.size < s.target.replicas && share > wanted && !recommended[false] {
		r.Fatalf("%d shrinks to %d at %d %% of %d %%", s.target.replicas, d.size, share, wanted)
	}
}

// checkRate: the size differs from that at the start of a period by no more than
// the one policy allows, counted from the sizes themselves.
func checkRate(r *rapid.T, h *autoscalingv2.HorizontalPodAutoscaler, sizes []change) {
	if h.Spec.Behavior == nil {
		return
	}
	last, before := sizes[len(sizes)-1], sizes[len(sizes)-2]
	for _, rule := range []*autoscalingv2.HPAScalingRules{h.Spec.Behavior.ScaleUp, h.Spec.Behavior.ScaleDown} {
		p := rule.Policies[0]
		most, start := p.Value, sizes[0]
		for _, c := range sizes[:len(sizes)-1] {
			if last.at.Sub(c.at) >= time.Duration(p.PeriodSeconds)*time.Second {
				start = c
			}
		}
		if ptr.Deref(rule.SelectPolicy, "") == autoscalingv2.DisabledPolicySelect {
			most, start = 0, before
		}
		up := rule == h.Spec.Behavior.ScaleUp
		if up && last.replicas > max(start.replicas+most, before.replicas) || !up && last.replicas < min(start.replicas-most, before.replicas) {
			r.Fatalf("%d became %d in %s, at last from %d, by policy %+v", start.replicas, last.replicas, last.at.Sub(start.at), before.replicas, p)
		}
	}
}
