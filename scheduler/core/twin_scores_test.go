package core

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// scores gives the scores of feasible nodes.
func (t *twin) scores(p *corev1.Pod, feasible []*corev1.Node, spread labels.Selector) map[string]Scores {
	out := map[string]Scores{}
	add := func(name string, weight int64, raw []int64) {
		for i, n := range feasible {
			out[n.Name] = append(out[n.Name], Score{name, raw[i], weight})
		}
	}
	each := func(f func(n *corev1.Node) int64) []int64 {
		var raw []int64
		for _, n := range feasible {
			raw = append(raw, f(n))
		}
		return raw
	}
	add("NodeResourcesFit", 1, each(func(n *corev1.Node) int64 { return t.leastAllocated(p, n) }))
	add("NodeResourcesBalancedAllocation", 1, each(func(n *corev1.Node) int64 { return t.balanced(p, n) }))
	add("ImageLocality", 1, each(func(n *corev1.Node) int64 { return t.imageLocality(p, n) }))
	raw := each(func(n *corev1.Node) int64 {
		count := int64(0)
		for _, taint := range n.Spec.Taints {
			if taint.Effect == corev1.TaintEffectPreferNoSchedule && !twinTolerates(p, taint) {
				count++
			}
		}
		return count
	})
	most := slices.Max(raw)
	for i := range raw {
		if most == 0 {
			raw[i] = 100
		} else {
			raw[i] = 100 - 100*raw[i]/most
		}
	}
	add("TaintToleration", 3, raw)
	raw = each(func(n *corev1.Node) int64 {
		if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
			return 0
		}
		terms, err := nodeaffinity.NewPreferredSchedulingTerms(p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		if err != nil {
			panic(err)
		}
		return terms.Score(n)
	})
	if most := slices.Max(raw); most > 0 {
		for i := range raw {
			raw[i] = 100 * raw[i] / most
		}
	}
	add("NodeAffinity", 2, raw)
	add("PodTopologySpread", 2, t.spreadScores(p, feasible, spread))
	add("InterPodAffinity", 2, t.affinityScores(p, feasible))
	return out
}

func (t *twin) leastAllocated(p *corev1.Pod, n *corev1.Node) int64 {
	sum, kinds := int64(0), int64(0)
	for _, name := range []corev1.ResourceName{"cpu", "memory"} {
		used := measure(twinScored(p), name)
		for _, o := range t.on(n.Name, nil) {
			used += measure(twinScored(o), name)
		}
		if all := measure(n.Status.Allocatable, name); all > 0 {
			kinds++
			if used <= all {
				sum += (all - used) * 100 / all
			}
		}
	}
	if kinds == 0 {
		return 0
	}
	return sum / kinds
}

func (t *twin) balanced(p *corev1.Pod, n *corev1.Node) int64 {
	names := []corev1.ResourceName{"cpu", "memory"}
	if measure(twinRequests(p), "cpu") == 0 && measure(twinRequests(p), "memory") == 0 {
		return 0
	}
	deviation := func(pods []*corev1.Pod) float64 {
		var shares []float64
		for _, name := range names {
			used := int64(0)
			for _, o := range pods {
				used += measure(twinRequests(o), name)
			}
			if all := measure(n.Status.Allocatable, name); all > 0 {
				shares = append(shares, math.Min(float64(used)/float64(all), 1))
			}
		}
		if len(shares) < 2 {
			return 0
		}
		return math.Abs((shares[0] - shares[1]) / 2)
	}
	here := t.on(n.Name, nil)
	// Between 50, for what makes a balanced node as lopsided as can be, and 100.
	return int64((0.75 + (deviation(here)-deviation(append(here, p)))/2) * 100)
}

func (t *twin) imageLocality(p *corev1.Pod, n *corev1.Node) int64 {
	images := imagesOf(&p.Spec)
	sum := int64(0)
	for _, want := range images {
		holders, size := 0, int64(0)
		for _, o := range t.nodes {
			for _, image := range o.Status.Images {
				if slices.Contains(image.Names, want) {
					holders++
					if o == n {
						size = image.SizeBytes
					}
				}
			}
		}
		sum += int64(float64(size) * (float64(holders) / float64(len(t.nodes))))
	}
	const mb = 1 << 20
	least, most := int64(23*mb), int64(1000*mb*len(images))
	if len(images) == 0 {
		return 0
	}
	return 100 * (min(max(sum, least), most) - least) / (most - least)
}

func (t *twin) spreadScores(p *corev1.Pod, feasible []*corev1.Node, byDefault labels.Selector) []int64 {
	soft := byAction(p, corev1.ScheduleAnyway)
	selectors := []labels.Selector{}
	for i := range soft {
		selectors = append(selectors, twinSelector(soft[i].LabelSelector))
	}
	needsAll := len(p.Spec.TopologySpreadConstraints) > 0
	if !needsAll && byDefault != nil && !byDefault.Empty() {
		soft = []corev1.TopologySpreadConstraint{
			{TopologyKey: corev1.LabelHostname, MaxSkew: 3}, {TopologyKey: corev1.LabelTopologyZone, MaxSkew: 5},
		}
		selectors = []labels.Selector{byDefault, byDefault}
	}
	out := make([]int64, len(feasible))
	if len(soft) == 0 {
		return out
	}
	ignored := func(n *corev1.Node) bool {
		return needsAll && slices.ContainsFunc(soft, func(c corev1.TopologySpreadConstraint) bool {
			_, ok := n.Labels[c.TopologyKey]
			return !ok
		})
	}
	var scored []*corev1.Node
	for _, n := range feasible {
		if !ignored(n) {
			scored = append(scored, n)
		}
	}
	least, most := int64(math.MaxInt64), int64(0)
	for i, n := range feasible {
		if ignored(n) {
			continue
		}
		sum := 0.0
		for k := range soft {
			if _, ok := n.Labels[soft[k].TopologyKey]; ok {
				sum += t.spreadScore(p, n, scored, &soft[k], selectors[k], ignored)
			}
		}
		out[i] = int64(math.Round(sum))
		least, most = min(least, out[i]), max(most, out[i])
	}
	for i, n := range feasible {
		switch {
		case ignored(n):
			out[i] = 0
		case most == 0:
			out[i] = 100
		default:
			out[i] = 100 * (most + least - out[i]) / most
		}
	}
	return out
}

func (t *twin) spreadScore(p *corev1.Pod, n *corev1.Node, scored []*corev1.Node, c *corev1.TopologySpreadConstraint, s labels.Selector, ignored func(*corev1.Node) bool) float64 {
	host := c.TopologyKey == corev1.LabelHostname
	domains := map[string]bool{}
	for _, o := range scored {
		domains[o.Labels[c.TopologyKey]] = true
	}
	weight := math.Log(float64(len(domains) + 2))
	if host {
		weight = math.Log(float64(len(scored) + 2))
	}
	count := 0
	for _, o := range t.nodes {
		if host && o != n || !host && (!sameDomain(n, o, c.TopologyKey) || ignored(o) || !twinIncluded(p, o, c)) {
			continue
		}
		for _, there := range t.on(o.Name, nil) {
			if twinCounts(p, there, s) {
				count++
			}
		}
	}
	return float64(count)*weight + float64(c.MaxSkew-1)
}

func (t *twin) affinityScores(p *corev1.Pod, feasible []*corev1.Node) []int64 {
	out := make([]int64, len(feasible))
	for i, n := range feasible {
		for _, o := range t.everywhere(nil) {
			count := func(owner *corev1.Pod, term *corev1.PodAffinityTerm, other *corev1.Pod, weight int64) {
				if sameDomain(n, t.nodes[o.node], term.TopologyKey) && t.twinSelects(owner, term, other) {
					out[i] += weight
				}
			}
			near, far := preferredAffinity(p)
			for k := range near {
				count(p, &near[k].PodAffinityTerm, o.pod, int64(near[k].Weight))
			}
			for k := range far {
				count(p, &far[k].PodAffinityTerm, o.pod, -int64(far[k].Weight))
			}
			must, _ := requiredAffinity(o.pod)
			for k := range must {
				count(o.pod, &must[k], p, 1)
			}
			near, far = preferredAffinity(o.pod)
			for k := range near {
				count(o.pod, &near[k].PodAffinityTerm, p, int64(near[k].Weight))
			}
			for k := range far {
				count(o.pod, &far[k].PodAffinityTerm, p, -int64(far[k].Weight))
			}
		}
	}
	least, most := slices.Min(out), slices.Max(out)
	for i := range out {
		if most == least {
			out[i] = 0
		} else {
			out[i] = int64(100 * (float64(out[i]-least) / float64(most-least)))
		}
	}
	return out
}
