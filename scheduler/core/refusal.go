package core

import (
	"fmt"
	"slices"
	"strings"
)

// Refusal says why no node takes a pod.
type Refusal struct {
	// Filters are those that refused some node.
	Filters Filter
	// Message is the sentence for users: how many nodes each reason excluded.
	Message string
	// notEvicting is why preemption would not help either, once that is known.
	notEvicting string
	// mayFree are the slots where fewer pods might help.
	mayFree []int
}

// Verdict is what was found about one node.
type Verdict struct {
	Node string
	// Refused is the filter that refused the node, zero if none did.
	Refused Filter
	Reasons []string
	// Unresolvable: no eviction on this node would help.
	Unresolvable bool
	// Scores are those of a node that was not refused.
	Scores Scores
}

// Score is one score of a node, between 0 and 100.
type Score struct {
	Name          string
	Score, Weight int64
}

// Scores are a node's scores.
type Scores []Score

// Total is what nodes are compared by.
func (s Scores) Total() int64 {
	sum := int64(0)
	for _, x := range s {
		sum += x.Score * x.Weight
	}
	return sum
}

// Explain says for every node why it was refused or what it scores, by name.
func (c *Cluster) Explain(p *Pending) []Verdict {
	cl := c.classOf(p)
	var out []Verdict
	refused := func(slot int, v Verdict) { out = append(out, v) }
	c.refusals(cl, p, refused)
	if cl.volumes == "" {
		c.evaluate(cl, p, func(slot int, s Scores) { out = append(out, Verdict{Node: c.names[slot], Scores: s}) })
	}
	slices.SortFunc(out, func(a, b Verdict) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// refusals finds the nodes that are refused, each with the first filter that
// does.
func (c *Cluster) refusals(cl *class, p *Pending, refused func(slot int, v Verdict)) {
	selected := c.nodesSelected(cl)
	if cl.topology != nil {
		cl.topology.findMinima()
	}
	for slot := range c.present.all() {
		v := Verdict{Node: c.names[slot]}
		switch {
		case cl.volumes != "":
			v.Refused, v.Reasons, v.Unresolvable = VolumeBinding, []string{cl.volumes}, true
		case cl.named != nil && len(cl.named) == 0:
			v.Refused, v.Reasons, v.Unresolvable = NodeAffinity, []string{reasonNamesConflict}, true
		case cl.named != nil && !cl.named[c.names[slot]]:
			v.Refused, v.Reasons, v.Unresolvable = NodeAffinity, []string{reasonNotNamed}, true
		case c.cordoned.has(slot) && !toleratesCordon(p.Object):
			v.Refused, v.Reasons, v.Unresolvable = NodeUnschedulable, []string{reasonUnschedulable}, true
		case p.Object.Spec.NodeName != "" && p.Object.Spec.NodeName != c.names[slot]:
			v.Refused, v.Reasons, v.Unresolvable = NodeName, []string{reasonNodeName}, true
		case c.tainted.has(slot) && untolerated(p.Object, c.nodes[slot]):
			v.Refused, v.Reasons, v.Unresolvable = TaintToleration, []string{reasonTaint}, true
		case !selected.has(slot):
			v.Refused, v.Reasons, v.Unresolvable = NodeAffinity, []string{reasonAffinity}, true
		default:
			c.dynamicRefusal(cl, p, slot, &v)
		}
		if v.Refused != 0 {
			refused(slot, v)
		}
	}
}

// dynamicRefusal asks the filters that depend on other pods, those to come
// first.
func (c *Cluster) dynamicRefusal(cl *class, p *Pending, slot int, v *Verdict) {
	if rivals := c.rivals(slot, p.Pod); len(rivals) > 0 {
		c.suppose(cl, slot, rivals, 1, func() { c.presentRefusal(cl, p, slot, v) })
		if v.Refused != 0 {
			return
		}
	}
	c.presentRefusal(cl, p, slot, v)
}

func (c *Cluster) presentRefusal(cl *class, p *Pending, slot int, v *Verdict) {
	if !c.portsFree(slot, p.Pod) {
		v.Refused, v.Reasons = NodePorts, []string{reasonPorts}
		return
	}
	if reasons, unresolvable := c.resources.shortages(slot, p.Pod); len(reasons) > 0 {
		v.Refused, v.Reasons, v.Unresolvable = NodeResourcesFit, reasons, unresolvable
		return
	}
	if cl.topology == nil {
		return
	}
	if r := cl.topology.refuses(c, slot); r.filter != 0 {
		v.Refused, v.Reasons, v.Unresolvable = r.filter, []string{r.reason}, r.unresolvable
	}
}

// explainRefusal puts into words that no node takes a pod.
func (c *Cluster) explainRefusal(cl *class, p *Pending) *Refusal {
	out := &Refusal{}
	nodes := c.Nodes()
	if nodes == 0 {
		out.Message = "no nodes available to schedule pods"
		return out
	}
	reasons := map[string]int{}
	c.refusals(cl, p, func(slot int, v Verdict) {
		out.Filters |= v.Refused
		for _, r := range v.Reasons {
			reasons[r]++
		}
		if !v.Unresolvable {
			out.mayFree = append(out.mayFree, slot)
		}
	})
	if whole := cl.volumes; whole != "" || cl.named != nil && len(cl.named) == 0 {
		if whole == "" {
			whole = reasonNamesConflict
		}
		out.Message = fmt.Sprintf("0/%d nodes are available: %s.", nodes, whole)
		return out
	}
	out.Message = unavailable(nodes, reasons)
	return out
}

// unavailable is the sentence that counts nodes by reason.
func unavailable(nodes int, reasons map[string]int) string {
	parts := make([]string, 0, len(reasons))
	for r, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, r))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}
