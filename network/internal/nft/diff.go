package nft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// An Op is one change of a table.
type Op struct {
	Verb     Verb
	Chain    *Chain    // chain verbs and AddRules
	Set      *Set      // set and element verbs
	Elements []Element // element verbs, sorted by key
}

// A Verb says what an Op does.
type Verb string

// The verbs of operations. Reset empties the table, making it if need be;
// AddRules appends all rules of a chain.
const (
	Reset       Verb = "reset table"
	AddSet      Verb = "add set"
	AddChain    Verb = "add chain"
	AddElements Verb = "add element"
	DelElements Verb = "delete element"
	FlushChain  Verb = "flush chain"
	AddRules    Verb = "add rule"
	DelChain    Verb = "delete chain"
	DelSet      Verb = "delete set"
)

// An Element is a key of a set with its data.
type Element struct{ Key, Data Datum }

// A Batch is a list of operations that take effect together or not at all.
type Batch []Op

// Program returns the batch that makes a table hold s and nothing else,
// whatever it held before. In one transaction no packet sees it empty.
func Program(s *State) Batch {
	return append(Batch{{Verb: Reset}}, Diff(NewState(), s)...)
}

// Diff returns the operations that turn old into new. It is ordered such that
// nothing is used before it exists or goes while it is used: a kernel would
// refuse that even within a transaction.
//
// The two may be parts of a table: elements may belong to sets, and rules
// refer to sets and chains, that neither state declares. A set's name stands
// for its declaration: what is declared differently is named differently.
func Diff(old, new *State) Batch {
	var b Batch
	for _, name := range sortedKeys(new.Sets) {
		if old.Sets[name] == nil {
			b = append(b, Op{Verb: AddSet, Set: new.Sets[name]})
		}
	}
	for _, name := range sortedKeys(new.Chains) {
		if old.Chains[name] == nil {
			b = append(b, Op{Verb: AddChain, Chain: new.Chains[name]})
		}
	}
	b = append(b, diffElements(old, new)...)
	for _, name := range changedChains(old, new) {
		if o := old.Chains[name]; o != nil && len(o.Rules) > 0 {
			b = append(b, Op{Verb: FlushChain, Chain: o})
		}
		if c := new.Chains[name]; c != nil && len(c.Rules) > 0 {
			b = append(b, Op{Verb: AddRules, Chain: c})
		}
	}
	for _, name := range sortedKeys(old.Chains) {
		if new.Chains[name] == nil {
			b = append(b, Op{Verb: DelChain, Chain: old.Chains[name]})
		}
	}
	for _, name := range sortedKeys(old.Sets) {
		if new.Sets[name] == nil {
			b = append(b, Op{Verb: DelSet, Set: old.Sets[name]})
		}
	}
	return b
}

// changedChains lists the chains whose rules differ, those that go included.
func changedChains(old, new *State) []string {
	var names []string
	for name, c := range new.Chains {
		if o := old.Chains[name]; o == nil || !sameRules(o.Rules, c.Rules) {
			names = append(names, name)
		}
	}
	for name := range old.Chains {
		if new.Chains[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// diffElements deletes before it adds, because an element's data changes by
// deleting and adding it. Elements go with their set, unless they lead to
// chains: those may go only when no element leads there.
func diffElements(old, new *State) Batch {
	var dels, adds Batch
	names := map[string]bool{}
	for name := range old.Elements {
		names[name] = true
	}
	for name := range new.Elements {
		names[name] = true
	}
	for _, name := range sortedKeys(names) {
		o, n := old.Elements[name], new.Elements[name]
		var del, add []Element
		for k, d := range o {
			if v, ok := n[k]; !ok || v != d {
				del = append(del, Element{k, d})
			}
		}
		for k, d := range n {
			if v, ok := o[k]; !ok || v != d {
				add = append(add, Element{k, d})
			}
		}
		set := &Set{Name: name}
		goes := old.Sets[name] != nil && new.Sets[name] == nil
		if len(del) > 0 && (!goes || old.Sets[name].leads()) {
			dels = append(dels, Op{Verb: DelElements, Set: set, Elements: sortElements(del)})
		}
		if len(add) > 0 {
			adds = append(adds, Op{Verb: AddElements, Set: set, Elements: sortElements(add)})
		}
	}
	return append(dels, adds...)
}

// leads reports whether the set's elements lead to chains.
func (s *Set) leads() bool { return slices.Contains(s.Data, VerdictType) }

func sortElements(es []Element) []Element {
	slices.SortFunc(es, func(a, b Element) int { return cmp.Compare(a.Key.Text, b.Key.Text) })
	return es
}

func sameRules(a, b []Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool {
		return slices.EqualFunc(x, y, func(s, t Term) bool { return s.Text == t.Text })
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// String returns the batch as a script in nft syntax, one command a line.
func (b Batch) String() string {
	var w strings.Builder
	for _, op := range b {
		switch op.Verb {
		case Reset:
			fmt.Fprintln(&w, op.Verb)
		case AddSet:
			word := "set"
			if len(op.Set.Data) > 0 {
				word = "map"
			}
			fmt.Fprintf(&w, "add %s %s %s\n", word, op.Set.Name, op.Set)
		case DelSet:
			fmt.Fprintf(&w, "delete set %s\n", op.Set.Name)
		case AddChain:
			fmt.Fprintf(&w, "add chain %s%s\n", op.Chain.Name, op.Chain.Hook)
		case AddRules:
			for _, r := range op.Chain.Rules {
				fmt.Fprintf(&w, "add rule %s %s\n", op.Chain.Name, r)
			}
		case FlushChain, DelChain:
			fmt.Fprintf(&w, "%s %s\n", op.Verb, op.Chain.Name)
		case AddElements, DelElements:
			for _, e := range op.Elements {
				fmt.Fprintf(&w, "%s %s %s\n", op.Verb, op.Set.Name, e)
			}
		}
	}
	return w.String()
}

// String returns the element in nft syntax.
func (e Element) String() string {
	if e.Data.IsZero() {
		return "{ " + e.Key.Text + " }"
	}
	return "{ " + e.Key.Text + " : " + e.Data.Text + " }"
}

// String returns the set's declaration in nft syntax.
func (s *Set) String() string {
	text := "{ type " + joinTypes(s.Key)
	if len(s.Data) > 0 {
		text += " : " + joinTypes(s.Data)
	}
	if s.Dynamic {
		text += "; flags dynamic"
	}
	if s.Timeout > 0 {
		text += fmt.Sprintf(",timeout; timeout %ds", s.Timeout/time.Second)
	}
	if s.Size > 0 {
		text += fmt.Sprintf("; size %d", s.Size)
	}
	return text + " }"
}

func joinTypes(ts []Type) string {
	words := make([]string, len(ts))
	for i, t := range ts {
		words[i] = string(t)
	}
	return strings.Join(words, " . ")
}

// String returns the hook in nft syntax, with a leading space; a nil hook is
// the empty string.
func (h *Hook) String() string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf(" { type %s hook %s priority %d; }", h.Kind, h.Point, h.Priority)
}
