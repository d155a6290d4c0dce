package core

import (
	"cmp"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Preemption is what can be done for a pod that found no node.
type Preemption struct {
	// Eviction makes room; nil when none would, or none is called for.
	Eviction *Eviction
	// Message says why there is no eviction, to be added to the refusal's.
	Message string
	// Keep: the pod keeps the node it is nominated to. Otherwise that is the
	// eviction's, or none.
	Keep bool
}

// Eviction is room made for a pod: once the victims have gone from the node, the
// pod fits there.
type Eviction struct {
	Node    string
	Victims []*Pod // the most important first; some may be on their way already
	// Beyond is how many of them a disruption budget cannot spare.
	Beyond int
}

// How many nodes preemption compares: a tenth of them, but at least a hundred.
const (
	fewestCandidates   = 100
	candidatesFraction = 10
)

// Preempt looks for pods of lower priority whose eviction would let in a pod
// that Choose refused. budgets are asked for once it is sure that some may have
// to go.
func (c *Cluster) Preempt(p *Pending, r *Refusal, budgets func() []Budget) Preemption {
	if c.Nodes() == 0 {
		return Preemption{Keep: true}
	}
	if policy := p.Object.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		return Preemption{Message: "preemption: not eligible due to preemptionPolicy=Never.", Keep: true}
	}
	if c.waitsForVictims(p, r) {
		return Preemption{Message: "preemption: not eligible due to a terminating pod on the nominated node.", Keep: true}
	}
	nominated := c.NominatedTo(p.UID()) != ""
	if r.notEvicting != "" && !nominated {
		return Preemption{Message: r.notEvicting}
	}
	cl := c.classOf(p)
	why := map[string]int{}
	candidates := c.candidates(cl, p, r.mayFree, why, budgets)
	if len(candidates) > 0 {
		return Preemption{Eviction: pick(candidates)}
	}
	if rest := c.Nodes() - len(r.mayFree); rest > 0 {
		why[reasonNotHelpful] += rest
	}
	message := "preemption: " + unavailable(c.Nodes(), why)
	if !nominated {
		r.notEvicting = message
	}
	return Preemption{Message: message}
}

// waitsForVictims says whether evictions for the pod are under way on the node
// it is nominated to, and may still help.
func (c *Cluster) waitsForVictims(p *Pending, r *Refusal) bool {
	slot, ok := c.nominatedAt[p.UID()]
	if !ok || !slices.Contains(r.mayFree, slot) {
		return false
	}
	return slices.ContainsFunc(c.on[slot], func(o *Pod) bool {
		return o.Priority() < p.Priority() && beingPreempted(o.Object)
	})
}

func beingPreempted(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// candidates tries slots, not always the same ones first, and counts why those
// that would not do would not.
func (c *Cluster) candidates(cl *class, p *Pending, slots []int, why map[string]int, budgets func() []Budget) []*Eviction {
	if len(slots) == 0 {
		return nil
	}
	guards := budgets()
	enough := max(fewestCandidates, len(slots)/candidatesFraction)
	start := c.firstCandidate % len(slots)
	var out []*Eviction
	for i := range slots {
		if len(out) == enough {
			break
		}
		slot := slots[(start+i)%len(slots)]
		c.firstCandidate++
		e, reasons := c.victims(cl, p, slot, guards)
		for _, r := range reasons {
			why[r]++
		}
		if len(reasons) == 0 && len(e.Victims) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// victims finds the least important pods of a slot that must go for p to fit. It
// changes nothing in the end.
func (c *Cluster) victims(cl *class, p *Pending, slot int, budgets []Budget) (e *Eviction, reasons []string) {
	var lower []*Pod
	for _, o := range c.on[slot] {
		if o.Priority() < p.Priority() {
			lower = append(lower, o)
		}
	}
	if len(lower) == 0 {
		return nil, []string{reasonNoVictims}
	}
	e = &Eviction{Node: c.names[slot]}
	c.suppose(cl, slot, lower, -1, func() {
		var v Verdict
		if c.dynamicRefusal(cl, p, slot, &v); v.Refused != 0 {
			reasons = v.Reasons
			return
		}
		// As many as possible stay: those that a budget cannot spare, and the most
		// important, first.
		slices.SortStableFunc(lower, byImportance)
		guarded := beyond(lower, budgets)
		guardedFirst(lower, guarded)
		var stay []*Pod
		for _, o := range lower {
			c.supposeOne(cl, slot, o, 1)
			if c.fitsSupposed(cl, p, slot) {
				stay = append(stay, o)
				continue
			}
			c.supposeOne(cl, slot, o, -1)
			e.Victims = append(e.Victims, o)
			if guarded[o] {
				e.Beyond++
			}
		}
		slices.SortStableFunc(e.Victims, byImportance)
		for _, o := range stay {
			c.supposeOne(cl, slot, o, -1)
		}
	})
	return e, reasons
}

func (c *Cluster) fitsSupposed(cl *class, p *Pending, slot int) bool {
	if cl.topology != nil {
		cl.topology.findMinima()
	}
	return c.feasible(cl, p, slot)
}

// byImportance orders pods by priority, then by how long they have run.
func byImportance(a, b *Pod) int {
	return cmp.Or(cmp.Compare(b.Priority(), a.Priority()), cmp.Compare(started(a), started(b)))
}

// started is when a pod began to run; a pod that has not counts as the newest.
func started(p *Pod) int64 {
	if t := p.Object.Status.StartTime; t != nil {
		return t.UnixNano()
	}
	return math.MaxInt64
}

// pick chooses the eviction that hurts least: that goes least beyond budgets, then
// the one whose most important victim is least important, then the smallest sum of priorities, then the fewest victims,
// then the one whose most important victims began to run last.
func pick(candidates []*Eviction) *Eviction {
	return slices.MinFunc(candidates, func(a, b *Eviction) int {
		return cmp.Or(
			cmp.Compare(a.Beyond, b.Beyond),
			cmp.Compare(a.Victims[0].Priority(), b.Victims[0].Priority()),
			cmp.Compare(a.sum(), b.sum()),
			cmp.Compare(len(a.Victims), len(b.Victims)),
			cmp.Compare(b.earliest(), a.earliest()),
		)
	})
}

// sum adds up priorities, all made positive so that more victims are more.
func (e *Eviction) sum() int64 {
	sum := int64(0)
	for _, v := range e.Victims {
		sum += int64(v.Priority()) + math.MaxInt32 + 1
	}
	return sum
}

// earliest is when the first of the most important victims began to run.
func (e *Eviction) earliest() int64 {
	t := int64(math.MaxInt64)
	for _, v := range e.Victims {
		if v.Priority() == e.Victims[0].Priority() {
			t = min(t, started(v))
		}
	}
	return t
}

// Nominated are the pods that a node was promised to.
func (c *Cluster) Nominated(node string) []*Pod {
	if slot, ok := c.slotOf[node]; ok {
		return slices.Clone(c.nominated[slot])
	}
	return nil
}
