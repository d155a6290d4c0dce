package core

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// topology is how a class stands to the pods on the nodes: who its spread
// constraints and affinity terms select, and whose terms select it, counted by
// topology domain. It is kept up to date one placement at a time.
type topology struct {
	class       *class
	hard, soft  []*spreadCount
	needsLabels bool // soft constraints only score nodes with all their keys

	// Required terms. A pod counts for affinity only if it meets all terms.
	affinity, antiAffinity []*tally
	affinityPods           int64   // counted over all domains of all terms
	existing               tallies // anti-affinity of pods on nodes to this class
	scores                 tallies // preferences, in both directions
}

// tally counts by the values of one topology key.
type tally struct {
	key    string
	column *labelColumn // nil: no node has the key
	n      []int64      // by the column's numbers
}

func (c *Cluster) newTally(key string) *tally {
	col := c.labels.columns[key]
	return &tally{key: key, column: col, n: make([]int64, col.size())}
}

// tallies are tallies by topology key.
type tallies []*tally

func (ts *tallies) of(c *Cluster, key string) *tally {
	for _, t := range *ts {
		if t.key == key {
			return t
		}
	}
	t := c.newTally(key)
	*ts = append(*ts, t)
	return t
}

// add counts n for the domain that a slot is in, if it is in one.
func (ts *tallies) add(c *Cluster, key string, slot int, n int64) {
	t := ts.of(c, key)
	if v := t.column.value(slot); v != 0 {
		t.n[v] += n
	}
}

// newTopology counts from scratch. It answers nil when no pod that exists, or
// that may come, makes a difference for the class.
func (c *Cluster) newTopology(cl *class) *topology {
	t := &topology{class: cl, needsLabels: len(cl.pod.Object.Spec.TopologySpreadConstraints) > 0}
	all := len(cl.pod.spread) > 0
	for i := range cl.pod.spread {
		s := c.newSpreadCount(cl, &cl.pod.spread[i])
		if cl.pod.spread[i].hard {
			t.hard = append(t.hard, s)
		} else {
			t.soft = append(t.soft, s)
		}
	}
	c.findEligible(cl, t.hard, true)
	c.findEligible(cl, t.soft, t.needsLabels)
	if own := cl.pod.terms; own != nil {
		all = true
		for i := range own.affinity {
			t.affinity = append(t.affinity, c.newTally(own.affinity[i].topologyKey))
		}
		for i := range own.antiAffinity {
			t.antiAffinity = append(t.antiAffinity, c.newTally(own.antiAffinity[i].topologyKey))
		}
	}
	minded := false
	slots := c.withTerms
	if all {
		slots = c.present
	}
	for slot := range slots.all() {
		if !c.present.has(slot) {
			continue
		}
		for _, p := range c.on[slot] {
			if all || p.terms != nil {
				t.count(c, slot, p, 1)
				minded = minded || p.terms != nil && c.mindsClass(p, cl)
			}
		}
	}
	for _, promised := range c.nominated {
		for _, p := range promised {
			minded = minded || p.terms != nil && c.mindsClass(p, cl)
		}
	}
	if !all && !minded {
		return nil
	}
	return t
}

// mindsClass says whether a pod has a term that selects a class.
func (c *Cluster) mindsClass(p *Pod, cl *class) bool {
	for _, terms := range [][]podTerm{p.terms.antiAffinity, p.terms.affinity, p.terms.likes, p.terms.dislikes} {
		for i := range terms {
			if c.selects(&terms[i], cl.pod.Object) {
				return true
			}
		}
	}
	return false
}

func (c *Cluster) selects(t *podTerm, p *corev1.Pod) bool {
	return t.matches(p, c.namespaces[p.Namespace])
}

// selectsAll says whether a pod meets each of some terms, of which there is one.
func (c *Cluster) selectsAll(terms []podTerm, p *corev1.Pod) bool {
	for i := range terms {
		if !c.selects(&terms[i], p) {
			return false
		}
	}
	return len(terms) > 0
}

// count takes in that a pod has come to a slot (sign 1) or left it (-1).
func (t *topology) count(c *Cluster, slot int, p *Pod, sign int64) {
	us := t.class.pod
	for _, s := range t.hard {
		s.count(us.Object, slot, p, sign)
	}
	for _, s := range t.soft {
		s.count(us.Object, slot, p, sign)
	}
	if own := us.terms; own != nil {
		t.countOwn(c, own, slot, p, sign)
	}
	if p.terms == nil {
		return
	}
	for i := range p.terms.antiAffinity {
		if term := &p.terms.antiAffinity[i]; c.selects(term, us.Object) {
			t.existing.add(c, term.topologyKey, slot, sign)
		}
	}
	// A pod that needs others near it is taken to like them a little.
	for i := range p.terms.affinity {
		if term := &p.terms.affinity[i]; c.selects(term, us.Object) {
			t.scores.add(c, term.topologyKey, slot, sign)
		}
	}
	t.countPreferred(c, p.terms, us.Object, slot, sign)
}

func (t *topology) countOwn(c *Cluster, own *podTerms, slot int, p *Pod, sign int64) {
	if c.selectsAll(own.affinity, p.Object) {
		for _, a := range t.affinity {
			if v := a.column.value(slot); v != 0 {
				a.n[v] += sign
				t.affinityPods += sign
			}
		}
	}
	for i, a := range t.antiAffinity {
		if v := a.column.value(slot); v != 0 && c.selects(&own.antiAffinity[i], p.Object) {
			a.n[v] += sign
		}
	}
	t.countPreferred(c, own, p.Object, slot, sign)
}

// countPreferred scores a slot's domains by the preferred terms that select p.
func (t *topology) countPreferred(c *Cluster, terms *podTerms, p *corev1.Pod, slot int, sign int64) {
	for i := range terms.likes {
		if term := &terms.likes[i]; c.selects(term, p) {
			t.scores.add(c, term.topologyKey, slot, sign*term.weight)
		}
	}
	for i := range terms.dislikes {
		if term := &terms.dislikes[i]; c.selects(term, p) {
			t.scores.add(c, term.topologyKey, slot, -sign*term.weight)
		}
	}
}

// refusal is why the pods on the nodes keep the class from a slot.
type refusal struct {
	filter       Filter
	reason       string
	unresolvable bool
}

// refuses answers with the zero refusal when the slot may take the class. The
// minima of hard constraints must be current.
func (t *topology) refuses(c *Cluster, slot int) refusal {
	for _, s := range t.hard {
		v := s.column.value(slot)
		if v == 0 {
			return refusal{PodTopologySpread, reasonSpreadLabel, true}
		}
		if s.n[v]+s.self-s.minimum > int64(s.rule.maxSkew) {
			return refusal{PodTopologySpread, reasonSpread, false}
		}
	}
	if !t.nearFriends(c, slot) {
		return refusal{InterPodAffinity, reasonPodAffinity, true}
	}
	for _, a := range t.antiAffinity {
		if v := a.column.value(slot); v != 0 && a.n[v] > 0 {
			return refusal{InterPodAffinity, reasonPodAntiAffinity, false}
		}
	}
	for _, e := range t.existing {
		if v := e.column.value(slot); v != 0 && e.n[v] > 0 {
			return refusal{InterPodAffinity, reasonExistingAnti, false}
		}
	}
	return refusal{}
}

// nearFriends says whether required affinity is met. The first of pods that
// want each other's company may go anywhere that has the topology keys.
func (t *topology) nearFriends(c *Cluster, slot int) bool {
	met := true
	for _, a := range t.affinity {
		v := a.column.value(slot)
		if v == 0 {
			return false
		}
		met = met && a.n[v] > 0
	}
	return met || t.affinityPods == 0 && c.selectsAll(t.class.pod.terms.affinity, t.class.pod.Object)
}

// spreadConstraint is one topology spread constraint, read.
type spreadConstraint struct {
	hard          bool
	key           string
	maxSkew       int32
	minDomains    int
	selector      labels.Selector
	honorAffinity bool
	honorTaints   bool
}

// The spreading of pods that say nothing about it, as upstream has it built in.
var defaultConstraints = []spreadConstraint{
	{key: corev1.LabelHostname, maxSkew: 3, minDomains: 1, honorAffinity: true},
	{key: corev1.LabelTopologyZone, maxSkew: 5, minDomains: 1, honorAffinity: true},
}

// spreadOf reads a pod's constraints; without any, defaultSpread stands for the
// pods that it is spread against.
func spreadOf(p *corev1.Pod, defaultSpread labels.Selector) []spreadConstraint {
	var out []spreadConstraint
	for i := range p.Spec.TopologySpreadConstraints {
		t := &p.Spec.TopologySpreadConstraints[i]
		s := spreadConstraint{
			hard:          t.WhenUnsatisfiable == corev1.DoNotSchedule,
			key:           t.TopologyKey,
			maxSkew:       t.MaxSkew,
			minDomains:    1,
			selector:      selectorOf(t.LabelSelector),
			honorAffinity: t.NodeAffinityPolicy == nil || *t.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor,
			honorTaints:   t.NodeTaintsPolicy != nil && *t.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor,
		}
		if t.MinDomains != nil {
			s.minDomains = int(*t.MinDomains)
		}
		out = append(out, s)
	}
	if len(out) == 0 && defaultSpread != nil && !defaultSpread.Empty() {
		for _, s := range defaultConstraints {
			s.selector = defaultSpread
			out = append(out, s)
		}
	}
	return out
}

// spreadCount counts for one constraint.
type spreadCount struct {
	tally
	rule     *spreadConstraint
	self     int64  // 1 if the pods of the class count themselves
	eligible bitset // slots whose domain and pods count
	domains  []bool // by number: has an eligible slot
	minimum  int64  // of a hard constraint, see findMinimum
	perNode  []int64
}

func (c *Cluster) newSpreadCount(cl *class, rule *spreadConstraint) *spreadCount {
	s := &spreadCount{tally: *c.newTally(rule.key), rule: rule}
	s.domains = make([]bool, len(s.n))
	if rule.selector.Matches(labels.Set(cl.pod.Object.Labels)) {
		s.self = 1
	}
	if !rule.hard && rule.key == corev1.LabelHostname {
		s.perNode = make([]int64, len(c.names))
	}
	return s
}

// findEligible finds the slots that count for constraints of one kind: those
// that have all their keys, if that is asked, and that each constraint's
// policies let in.
func (c *Cluster) findEligible(cl *class, counts []*spreadCount, allKeys bool) {
	if len(counts) == 0 {
		return
	}
	base := c.present.clone()
	for slot := range base.all() {
		for _, s := range counts {
			if allKeys && s.column.value(slot) == 0 {
				base.remove(slot)
				break
			}
		}
	}
	selected := c.nodesSelected(cl)
	for _, s := range counts {
		s.eligible = base.clone()
		for slot := range base.all() {
			if s.rule.honorAffinity && !selected.has(slot) ||
				s.rule.honorTaints && c.tainted.has(slot) && untolerated(cl.pod.Object, c.nodes[slot]) {
				s.eligible.remove(slot)
				continue
			}
			s.domains[s.column.value(slot)] = true
		}
	}
}

func (s *spreadCount) count(us *corev1.Pod, slot int, p *Pod, sign int64) {
	// Pods on their way out do not count, so that what replaces them is spread
	// as if they were gone. A selector of everything counts nobody: upstream's
	// oddity.
	if p.Object.Namespace != us.Namespace || p.Object.DeletionTimestamp != nil ||
		s.rule.selector.Empty() || !s.rule.selector.Matches(labels.Set(p.Object.Labels)) {
		return
	}
	if s.perNode != nil {
		s.perNode[slot] += sign
	}
	if s.eligible.has(slot) {
		s.n[s.column.value(slot)] += sign
	}
}

// findMinima brings the global minima of hard constraints up to date.
func (t *topology) findMinima() {
	for _, s := range t.hard {
		domains, least := 0, int64(math.MaxInt32)
		for v, there := range s.domains {
			if there {
				domains++
				least = min(least, s.n[v])
			}
		}
		if domains < s.rule.minDomains {
			least = 0
		}
		s.minimum = least
	}
}
