package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// labelColumn is one label key over all slots. Values are numbered from 1; 0
// stands for a node without the key.
type labelColumn struct {
	at     []int32 // by slot
	values []string
	nodes  []int32 // by value: how many nodes have it
	unused []int32 // values that no node has any more
	number map[string]int32
}

// labelTable is every label of every node.
type labelTable struct {
	columns map[string]*labelColumn
	slots   int
}

func (t *labelTable) grow(slots int) {
	t.slots = slots
	for _, c := range t.columns {
		c.grow(slots)
	}
}

func (c *labelColumn) grow(slots int) {
	for len(c.at) < slots {
		c.at = append(c.at, 0)
	}
}

// set replaces the labels of a slot.
func (t *labelTable) set(slot int, old, now map[string]string) {
	for key, v := range old {
		if w, kept := now[key]; kept && w == v {
			continue
		}
		t.columns[key].drop(slot)
		if len(t.columns[key].number) == 0 {
			delete(t.columns, key)
		}
	}
	for key, v := range now {
		c := t.columns[key]
		if c == nil {
			c = &labelColumn{values: []string{""}, nodes: []int32{0}, number: map[string]int32{}}
			c.grow(t.slots)
			t.columns[key] = c
		}
		c.put(slot, v)
	}
}

func (c *labelColumn) put(slot int, value string) {
	n, ok := c.number[value]
	if ok && c.at[slot] == n {
		return
	}
	if !ok {
		n = c.unusedNumber()
		c.number[value], c.values[n] = n, value
	}
	c.at[slot] = n
	c.nodes[n]++
}

func (c *labelColumn) unusedNumber() int32 {
	if n := len(c.unused); n > 0 {
		number := c.unused[n-1]
		c.unused = c.unused[:n-1]
		return number
	}
	c.values = append(c.values, "")
	c.nodes = append(c.nodes, 0)
	return int32(len(c.values) - 1)
}

func (c *labelColumn) drop(slot int) {
	n := c.at[slot]
	c.at[slot] = 0
	c.nodes[n]--
	if c.nodes[n] == 0 {
		delete(c.number, c.values[n])
		c.values[n] = ""
		c.unused = append(c.unused, n)
	}
}

// value is a slot's number in the column; 0 when there is no such column.
func (c *labelColumn) value(slot int) int32 {
	if c == nil {
		return 0
	}
	return c.at[slot]
}

// size is how many numbers are in use or were.
func (c *labelColumn) size() int {
	if c == nil {
		return 1
	}
	return len(c.values)
}

// oneLabel is a label set of at most one pair.
type oneLabel struct {
	key, value string
	present    bool
}

func (l oneLabel) Has(key string) bool   { return l.present && key == l.key }
func (l oneLabel) Get(key string) string { v, _ := l.Lookup(key); return v }
func (l oneLabel) Lookup(key string) (string, bool) {
	if l.Has(key) {
		return l.value, true
	}
	return "", false
}

// require removes from set the slots whose label does not meet a requirement.
// The requirement is asked once per value, not once per node.
func (t *labelTable) require(set bitset, r *labels.Requirement) {
	c := t.columns[r.Key()]
	accepted := make([]bool, c.size())
	accepted[0] = r.Matches(oneLabel{})
	if c == nil {
		if !accepted[0] {
			set.clear()
		}
		return
	}
	if r.Operator() == selection.In || r.Operator() == selection.Equals {
		for _, v := range r.ValuesUnsorted() {
			if n, ok := c.number[v]; ok {
				accepted[n] = true
			}
		}
	} else {
		for v, n := range c.number {
			accepted[n] = r.Matches(oneLabel{r.Key(), v, true})
		}
	}
	for slot := range set.all() {
		if !accepted[c.at[slot]] {
			set.remove(slot)
		}
	}
}

var nodeOperators = map[corev1.NodeSelectorOperator]selection.Operator{
	corev1.NodeSelectorOpIn:           selection.In,
	corev1.NodeSelectorOpNotIn:        selection.NotIn,
	corev1.NodeSelectorOpExists:       selection.Exists,
	corev1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	corev1.NodeSelectorOpGt:           selection.GreaterThan,
	corev1.NodeSelectorOpLt:           selection.LessThan,
}

// nodeTerm is one term of a node selector: all of it must hold.
type nodeTerm struct {
	labels []labels.Requirement
	names  []nameRequirement
	weight int64 // of a preferred term
}

// nameRequirement is a requirement on metadata.name.
type nameRequirement struct {
	name string
	is   bool // or is not
}

// compileTerm answers false for a term that selects nothing: one without
// requirements, or with one that cannot be read.
func compileTerm(t *corev1.NodeSelectorTerm) (nodeTerm, bool) {
	var out nodeTerm
	for i := range t.MatchExpressions {
		e := &t.MatchExpressions[i]
		r, err := labels.NewRequirement(e.Key, nodeOperators[e.Operator], e.Values)
		if err != nil {
			return nodeTerm{}, false
		}
		out.labels = append(out.labels, *r)
	}
	for i := range t.MatchFields {
		e := &t.MatchFields[i]
		in := e.Operator == corev1.NodeSelectorOpIn
		if e.Key != "metadata.name" || len(e.Values) != 1 || !in && e.Operator != corev1.NodeSelectorOpNotIn {
			return nodeTerm{}, false
		}
		out.names = append(out.names, nameRequirement{e.Values[0], in})
	}
	return out, len(out.labels)+len(out.names) > 0
}

// matching is the subset of slots that a term selects.
func (c *Cluster) matching(slots bitset, t *nodeTerm) bitset {
	set := slots.clone()
	for _, n := range t.names {
		slot, known := c.slotOf[n.name]
		switch {
		case n.is && known && set.has(slot):
			set.clear()
			set.add(slot)
		case n.is:
			set.clear()
		case known:
			set.remove(slot)
		}
	}
	for i := range t.labels {
		c.labels.require(set, &t.labels[i])
	}
	return set
}
