// Package nfttest stands in for the kernel in tests of code that plans nftables
// rules: it keeps a table as a value, refuses what the kernel would refuse, and
// prints what it was told.
package nfttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"hansa.dev/hansa/network/internal/nft"
)

// A Table is an nftables table in memory.
type Table struct {
	State *nft.State
	Log   strings.Builder // every batch applied, as text
	Fail  error           // returned by the next Apply, which then does nothing
}

// Apply carries out a batch, or refuses all of it.
func (t *Table) Apply(b nft.Batch) error {
	if err := t.Fail; err != nil {
		t.Fail = nil
		return err
	}
	s := nft.NewState()
	if t.State != nil {
		maps.Copy(s.Chains, t.State.Chains)
		maps.Copy(s.Sets, t.State.Sets)
		for k, v := range t.State.Elements {
			s.Elements[k] = maps.Clone(v)
		}
	}
	for i, op := range b {
		if err := apply(s, op); err != nil {
			return fmt.Errorf("operation %d, %s: %w", i, nft.Batch{op}, err)
		}
	}
	t.State = s
	t.Log.WriteString(b.String())
	return nil
}

func apply(s *nft.State, op nft.Op) error {
	switch op.Verb {
	case nft.Reset:
		*s = *nft.NewState()
	case nft.AddSet:
		if s.Sets[op.Set.Name] != nil {
			return fmt.Errorf("set exists")
		}
		s.Sets[op.Set.Name] = op.Set
	case nft.DelSet:
		if s.Sets[op.Set.Name] == nil {
			return fmt.Errorf("no such set")
		}
		if user := setUser(s, op.Set.Name); user != "" {
			return fmt.Errorf("in use by chain %s", user)
		}
		delete(s.Sets, op.Set.Name)
		delete(s.Elements, op.Set.Name)
	case nft.AddChain:
		if s.Chains[op.Chain.Name] != nil {
			return fmt.Errorf("chain exists")
		}
		s.Chains[op.Chain.Name] = &nft.Chain{Name: op.Chain.Name, Hook: op.Chain.Hook}
	case nft.FlushChain:
		c := s.Chains[op.Chain.Name]
		if c == nil {
			return fmt.Errorf("no such chain")
		}
		s.Chains[op.Chain.Name] = &nft.Chain{Name: c.Name, Hook: c.Hook}
	case nft.DelChain:
		c := s.Chains[op.Chain.Name]
		if c == nil || len(c.Rules) > 0 {
			return fmt.Errorf("no such chain, or it has rules")
		}
		if user := chainUser(s, op.Chain.Name); user != "" {
			return fmt.Errorf("in use by %s", user)
		}
		delete(s.Chains, op.Chain.Name)
	case nft.AddRules:
		return addRules(s, op.Chain)
	case nft.AddElements, nft.DelElements:
		return elements(s, op)
	default:
		return fmt.Errorf("unknown operation")
	}
	return nil
}

func addRules(s *nft.State, c *nft.Chain) error {
	old := s.Chains[c.Name]
	if old == nil {
		return fmt.Errorf("no such chain")
	}
	for _, r := range c.Rules {
		for _, word := range references(r) {
			if set, ok := strings.CutPrefix(word, "@"); ok && s.Sets[set] == nil {
				return fmt.Errorf("rule %q: no set %s", r, set)
			} else if !ok && s.Chains[word] == nil {
				return fmt.Errorf("rule %q: no chain %s", r, word)
			}
		}
	}
	s.Chains[c.Name] = &nft.Chain{Name: c.Name, Hook: old.Hook, Rules: slices.Concat(old.Rules, c.Rules)}
	return nil
}

func elements(s *nft.State, op nft.Op) error {
	if s.Sets[op.Set.Name] == nil {
		return fmt.Errorf("no such set")
	}
	for _, e := range op.Elements {
		have, ok := s.Elements[op.Set.Name][e.Key]
		switch {
		case op.Verb == nft.DelElements && !ok:
			return fmt.Errorf("no element %s", e.Key.Text)
		case op.Verb == nft.DelElements:
			delete(s.Elements[op.Set.Name], e.Key)
			continue
		case ok && have != e.Data:
			return fmt.Errorf("element %s exists with data %s", e.Key.Text, have.Text)
		}
		if chain, ok := strings.CutPrefix(e.Data.Text, "goto "); ok && s.Chains[chain] == nil {
			return fmt.Errorf("element %s: no chain %s", e.Key.Text, chain)
		}
		s.AddElement(op.Set.Name, e.Key, e.Data)
	}
	return nil
}

// references lists what a rule refers to: sets as @name, chains as name.
func references(r nft.Rule) []string {
	var out []string
	words := strings.Fields(r.String())
	for i, w := range words {
		if strings.HasPrefix(w, "@") {
			out = append(out, w)
		}
		if i > 0 && (words[i-1] == "goto" || words[i-1] == "jump") {
			out = append(out, w)
		}
	}
	return out
}

func setUser(s *nft.State, set string) string { return ruleUser(s, "@"+set) }

func chainUser(s *nft.State, chain string) string {
	for name, es := range s.Elements {
		for k, d := range es {
			if d.Text == "goto "+chain {
				return fmt.Sprintf("element %s of %s", k.Text, name)
			}
		}
	}
	return ruleUser(s, chain)
}

func ruleUser(s *nft.State, word string) string {
	for name, c := range s.Chains {
		for _, r := range c.Rules {
			if slices.Contains(references(r), word) {
				return name
			}
		}
	}
	return ""
}

// Print returns the table's whole content as the script that makes it.
func Print(s *nft.State) string { return nft.Program(s).String() }
