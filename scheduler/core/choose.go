package core

import (
	"container/heap"
	"math"
)

// scratch is memory that evaluations reuse.
type scratch struct {
	feasible bitset
	slots    []int
	total    []int64
	raw      []int64
	seen     []bool
}

// Choose finds the node for a pod: the feasible one with the highest score, of
// several the one with fewest pods, of several the first. When there is none it
// says why. It changes nothing; a caller that means it calls Add.
func (c *Cluster) Choose(p *Pending) (node string, refusal *Refusal) {
	cl := c.classOf(p)
	if cl.refusal != nil && cl.stamp == c.stamp() && c.NominatedTo(p.UID()) == "" {
		return "", cl.refusal
	}
	slot := -1
	switch {
	case cl.volumes != "":
	case c.keepsPromise(cl, p):
		slot = c.nominatedAt[p.UID()]
	case cl.topology == nil && !c.hasRivals(p.Pod):
		slot = c.best(cl)
	default:
		slot = c.evaluate(cl, p, nil)
	}
	if slot >= 0 {
		return c.names[slot], nil
	}
	refusal = c.explainRefusal(cl, p)
	if c.NominatedTo(p.UID()) == "" {
		cl.refusal, cl.stamp = refusal, c.stamp()
	}
	return "", refusal
}

// keepsPromise says whether the pod may have the node it is nominated to: then
// it gets that one, whatever others score.
func (c *Cluster) keepsPromise(cl *class, p *Pending) bool {
	slot, ok := c.nominatedAt[p.UID()]
	if !ok || !c.present.has(slot) || slot >= len(cl.allowed)*64 || !cl.allowed.has(slot) {
		return false
	}
	if cl.topology != nil {
		cl.topology.findMinima()
	}
	return c.feasible(cl, p, slot)
}

// roomIn says whether a slot's free resources and ports take the pod.
func (c *Cluster) roomIn(slot int, p *Pod) bool {
	return c.resources.fits(slot, p) && c.portsFree(slot, p)
}

func (c *Cluster) portsFree(slot int, p *Pod) bool {
	if len(p.ports) == 0 || !c.withPorts.has(slot) {
		return true
	}
	for _, o := range c.on[slot] {
		for _, taken := range o.ports {
			for _, want := range p.ports {
				if want.conflicts(taken) {
					return false
				}
			}
		}
	}
	return true
}

// passes asks the filters that depend on other pods. The minima of hard
// constraints must be current.
func (c *Cluster) passes(cl *class, p *Pending, slot int) bool {
	return c.roomIn(slot, p.Pod) && (cl.topology == nil || cl.topology.refuses(c, slot).filter == 0)
}

// feasible says whether an allowed slot takes the pod: as things are, and also
// if all who were promised room there before it came.
func (c *Cluster) feasible(cl *class, p *Pending, slot int) bool {
	if len(c.nominated) == 0 {
		return c.passes(cl, p, slot)
	}
	if rivals := c.rivals(slot, p.Pod); len(rivals) > 0 {
		pass := false
		c.suppose(cl, slot, rivals, 1, func() { pass = c.passes(cl, p, slot) })
		if !pass {
			return false
		}
	}
	return c.passes(cl, p, slot)
}

// suppose runs f as if some pods had come to a slot (sign 1) or left it (-1).
func (c *Cluster) suppose(cl *class, slot int, pods []*Pod, sign int64, f func()) {
	for _, p := range pods {
		c.supposeOne(cl, slot, p, sign)
	}
	if cl.topology != nil {
		cl.topology.findMinima()
	}
	f()
	for _, p := range pods {
		c.supposeOne(cl, slot, p, -sign)
	}
	if cl.topology != nil {
		cl.topology.findMinima()
	}
}

// supposeOne changes the counts for one class without a word in the log; whoever
// calls it takes it back before anybody else looks.
func (c *Cluster) supposeOne(cl *class, slot int, p *Pod, sign int64) {
	if sign > 0 {
		c.on[slot] = append(c.on[slot], p)
	} else {
		for i, o := range c.on[slot] {
			if o.UID() == p.UID() {
				last := len(c.on[slot]) - 1
				c.on[slot][i] = c.on[slot][last]
				c.on[slot] = c.on[slot][:last]
				break
			}
		}
	}
	c.count(slot, p, sign)
	if cl.topology != nil && c.present.has(slot) {
		cl.topology.count(c, slot, p, sign)
	}
}

// evaluate asks every filter and every score of every node. It answers with the
// best slot, or -1. verdicts, if not nil, takes the scores of each feasible
// slot.
func (c *Cluster) evaluate(cl *class, p *Pending, verdicts func(slot int, s Scores)) int {
	s := &c.scratch
	s.slots = s.slots[:0]
	if cl.topology != nil {
		cl.topology.findMinima()
	}
	for slot := range cl.allowed.all() {
		if c.feasible(cl, p, slot) {
			s.slots = append(s.slots, slot)
		}
	}
	if len(s.slots) == 0 {
		return -1
	}
	s.total = fit(s.total, len(s.slots))
	s.raw = fit(s.raw, len(s.slots))
	all := make([]Scores, 0)
	if verdicts != nil {
		all = make([]Scores, len(s.slots))
	}
	add := func(name string, weight int64, score func(i, slot int) int64) {
		for i, slot := range s.slots {
			v := score(i, slot)
			s.total[i] += weight * v
			if verdicts != nil {
				all[i] = append(all[i], Score{Name: name, Score: v, Weight: weight})
			}
		}
	}
	c.addScores(cl, p, s, add)
	best := 0
	for i := range s.slots {
		if better(s.slots[i], c.standing(s.slots[i], s.total[i]), s.slots[best], c.standing(s.slots[best], s.total[best])) {
			best = i
		}
		if verdicts != nil {
			verdicts(s.slots[i], all[i])
		}
	}
	return s.slots[best]
}

func fit(s []int64, n int) []int64 {
	if cap(s) < n {
		return make([]int64, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// standing is what makes one slot preferred to another.
type standing struct{ score, pods int64 }

func (c *Cluster) standing(slot int, score int64) standing {
	return standing{score, c.resources.pods[slot]}
}

// better is the order in which slots are preferred.
func better(a int, as standing, b int, bs standing) bool {
	if as.score != bs.score {
		return as.score > bs.score
	}
	if as.pods != bs.pods {
		return as.pods < bs.pods
	}
	return a < b
}

// addScores adds each score of the profile, in the range of 0 to maxScore.
func (c *Cluster) addScores(cl *class, p *Pending, s *scratch, add func(string, int64, func(i, slot int) int64)) {
	add("NodeResourcesFit", weightFit, func(_, slot int) int64 { return c.resources.leastAllocated(slot, p.Pod) })
	add("NodeResourcesBalancedAllocation", weightBalanced, func(_, slot int) int64 { return c.resources.balanced(slot, p.Pod) })
	if cl.image != nil {
		add("ImageLocality", weightImage, func(_, slot int) int64 { return cl.image[slot] })
	}
	most := maximum(s.slots, cl.taints)
	add("TaintToleration", weightTaint, func(_, slot int) int64 { return taintScore(cl, slot, most) })
	if cl.affinity != nil {
		most := maximum(s.slots, cl.affinity)
		add("NodeAffinity", weightAffinity, func(_, slot int) int64 { return affinityScore(cl, slot, most) })
	}
	t := cl.topology
	if t == nil {
		return
	}
	if len(t.soft) > 0 {
		t.spreadScores(s)
		add("PodTopologySpread", weightSpread, func(i, _ int) int64 { return s.raw[i] })
	}
	if len(t.scores) > 0 {
		t.interPodScores(s)
		add("InterPodAffinity", weightInterPod, func(i, _ int) int64 { return s.raw[i] })
	}
}

func maximum(slots []int, raw []int64) int64 {
	most := int64(0)
	if raw != nil {
		for _, slot := range slots {
			most = max(most, raw[slot])
		}
	}
	return most
}

// taintScore: the more taints advise against a node, the less.
func taintScore(cl *class, slot int, most int64) int64 {
	if most == 0 {
		return maxScore
	}
	return maxScore - maxScore*cl.taints[slot]/most
}

// affinityScore: the more weight of preferences a node meets, the more.
func affinityScore(cl *class, slot int, most int64) int64 {
	if most == 0 {
		return 0
	}
	return maxScore * cl.affinity[slot] / most
}

// spreadScores leaves in raw the scores for soft spread constraints: the fewer
// pods of the same kind share a slot's domains, the higher. Where there are many
// domains each pod counts for more, so that a constraint on zones is not drowned
// by one on hosts.
func (t *topology) spreadScores(s *scratch) {
	const ignored = -1
	counted := 0
	for i, slot := range s.slots {
		s.raw[i] = 0
		for _, soft := range t.soft {
			if t.needsLabels && soft.column.value(slot) == 0 {
				s.raw[i] = ignored
			}
		}
		if s.raw[i] != ignored {
			counted++
		}
	}
	weights := make([]float64, len(t.soft))
	for k, soft := range t.soft {
		domains := counted
		if soft.perNode == nil {
			domains = soft.domainsAmong(s, ignored)
		}
		weights[k] = math.Log(float64(domains + 2))
	}
	least, most := int64(math.MaxInt64), int64(0)
	for i, slot := range s.slots {
		if s.raw[i] == ignored {
			continue
		}
		sum := 0.0
		for k, soft := range t.soft {
			v := soft.column.value(slot)
			if v == 0 {
				continue
			}
			n := soft.n[v]
			if soft.perNode != nil {
				n = soft.perNode[slot]
			}
			sum += float64(n)*weights[k] + float64(soft.rule.maxSkew-1)
		}
		s.raw[i] = int64(math.Round(sum))
		least, most = min(least, s.raw[i]), max(most, s.raw[i])
	}
	for i := range s.raw {
		switch {
		case s.raw[i] == ignored:
			s.raw[i] = 0
		case most == 0:
			s.raw[i] = maxScore
		default:
			s.raw[i] = maxScore * (most + least - s.raw[i]) / most
		}
	}
}

// domainsAmong counts the domains of the slots that are not ignored. Having no
// domain counts as one where such slots are scored.
func (sc *spreadCount) domainsAmong(s *scratch, ignored int64) int {
	if cap(s.seen) < len(sc.n) {
		s.seen = make([]bool, len(sc.n))
	}
	seen := s.seen[:len(sc.n)]
	clear(seen)
	n := 0
	for i, slot := range s.slots {
		if v := sc.column.value(slot); s.raw[i] != ignored && !seen[v] {
			seen[v] = true
			n++
		}
	}
	return n
}

// interPodScores leaves in raw the scores for preferred affinity.
func (t *topology) interPodScores(s *scratch) {
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for i, slot := range s.slots {
		s.raw[i] = 0
		for _, tally := range t.scores {
			if v := tally.column.value(slot); v != 0 {
				s.raw[i] += tally.n[v]
			}
		}
		least, most = min(least, s.raw[i]), max(most, s.raw[i])
	}
	for i := range s.raw {
		if most == least {
			s.raw[i] = 0
		} else {
			s.raw[i] = int64(maxScore * (float64(s.raw[i]-least) / float64(most-least)))
		}
	}
}

// ranking holds the feasible slots of a class that no topology concerns, best
// first: placing a pod changes the score of one node only.
type ranking struct {
	// at is by slot how it stood when it was last put in its place. A heap mends one
	// change at a time: of several slots that have changed, those whose turn has not
	// come have to look as before.
	at    []standing
	order []int // a heap of slots
	place []int // by slot: its index in order, -1 for none
	// What scores are relative to: the highest raw scores of feasible slots.
	mostTaints, mostAffinity int64
}

func (r *ranking) Len() int { return len(r.order) }
func (r *ranking) Less(i, j int) bool {
	a, b := r.order[i], r.order[j]
	return better(a, r.at[a], b, r.at[b])
}
func (r *ranking) Swap(i, j int) {
	r.order[i], r.order[j] = r.order[j], r.order[i]
	r.place[r.order[i]], r.place[r.order[j]] = i, j
}
func (r *ranking) Push(x any) {
	slot := x.(int)
	r.place[slot] = len(r.order)
	r.order = append(r.order, slot)
}
func (r *ranking) Pop() any {
	last := len(r.order) - 1
	slot := r.order[last]
	r.order = r.order[:last]
	r.place[slot] = -1
	return slot
}

// best is the slot that ranks first, or -1.
func (c *Cluster) best(cl *class) int {
	if cl.ranking == nil {
		c.rank(cl)
	}
	if len(cl.ranking.order) == 0 {
		return -1
	}
	return cl.ranking.order[0]
}

func (c *Cluster) rank(cl *class) {
	r := &ranking{at: make([]standing, len(c.names)), place: make([]int, len(c.names))}
	for slot := range r.place {
		r.place[slot] = -1
	}
	for slot := range cl.allowed.all() {
		if c.roomIn(slot, cl.pod.Pod) {
			r.place[slot] = len(r.order)
			r.order = append(r.order, slot)
		}
	}
	r.mostTaints, r.mostAffinity = maximum(r.order, cl.taints), maximum(r.order, cl.affinity)
	for _, slot := range r.order {
		r.at[slot] = c.standing(slot, c.score(cl, r, slot))
	}
	heap.Init(r)
	cl.ranking = r
}

// score is a slot's whole score where topology does not matter.
func (c *Cluster) score(cl *class, r *ranking, slot int) int64 {
	p := cl.pod.Pod
	total := weightFit*c.resources.leastAllocated(slot, p) + weightBalanced*c.resources.balanced(slot, p) +
		weightTaint*taintScore(cl, slot, r.mostTaints)
	if cl.image != nil {
		total += weightImage * cl.image[slot]
	}
	if cl.affinity != nil {
		total += weightAffinity * affinityScore(cl, slot, r.mostAffinity)
	}
	return total
}

// rerank puts a slot where it belongs after the pods on it have changed.
func (c *Cluster) rerank(cl *class, slot int) {
	r := cl.ranking
	if slot >= len(r.place) || !cl.allowed.has(slot) {
		return
	}
	was, is := r.place[slot] >= 0, c.roomIn(slot, cl.pod.Pod)
	if was != is && c.setsScale(cl, slot) {
		cl.ranking = nil // what all scores are relative to may have changed
		return
	}
	if is {
		r.at[slot] = c.standing(slot, c.score(cl, r, slot))
	}
	switch {
	case was && is:
		heap.Fix(r, r.place[slot])
	case was:
		heap.Remove(r, r.place[slot])
	case is:
		heap.Push(r, slot)
	}
}

// setsScale says whether a slot's coming or going changes the maxima that scores
// are relative to.
func (c *Cluster) setsScale(cl *class, slot int) bool {
	r := cl.ranking
	return cl.taints != nil && cl.taints[slot] > 0 && cl.taints[slot] >= r.mostTaints ||
		cl.affinity != nil && cl.affinity[slot] > 0 && cl.affinity[slot] >= r.mostAffinity
}
