// Package nft describes the content of one nftables table as values.
//
// A State is what a table should hold. States are compared (Diff), the
// difference is a Batch of operations that prints as an nft script, and a
// Kernel carries a batch out in one transaction. Nothing but the Kernel
// touches the system, so rules are planned and tested as text.
//
// All tables are of family inet, so that one table holds the rules of both
// address families.
package nft

import (
	"time"

	"github.com/google/nftables/expr"
)

// A Type is the type of one field of a set's key or data, by nft's name.
type Type string

// The field types that sets here use. Mark is a 32-bit number in host order.
const (
	IPv4Addr    Type = "ipv4_addr"
	IPv6Addr    Type = "ipv6_addr"
	InetProto   Type = "inet_proto"
	InetService Type = "inet_service"
	Mark        Type = "mark"
	VerdictType Type = "verdict"
)

// A Set is a named set or, when Data is not empty, a named map.
// Its elements are part of the State, not of the Set.
type Set struct {
	Name string
	Key  []Type
	Data []Type
	// Dynamic sets are filled by rules; the State never lists their elements.
	Dynamic bool
	// Timeout is the age at which an untouched dynamic element goes; 0 is never.
	Timeout time.Duration
	// Size is the greatest number of elements; needed for dynamic sets.
	Size uint32
}

// A Hook binds a chain to a point of the packet's way.
type Hook struct {
	Point    Point
	Kind     Kind
	Priority int
}

// A Point is a hook's place, by nft's name.
type Point string

// The points chains are hooked to.
const (
	Prerouting  Point = "prerouting"
	Input       Point = "input"
	Forward     Point = "forward"
	Output      Point = "output"
	Postrouting Point = "postrouting"
)

// A Kind is the type of a base chain.
type Kind string

// The kinds of base chains.
const (
	Filter Kind = "filter"
	NAT    Kind = "nat"
)

// A Term is one match or statement of a rule: its nft text, by which rules
// are compared, and the kernel's expressions for it.
type Term struct {
	Text  string
	Exprs []expr.Any
}

// A Rule is a list of terms, evaluated left to right.
type Rule []Term

// Of makes a Rule of terms.
func Of(terms ...Term) Rule { return terms }

// String returns the rule in nft syntax.
func (r Rule) String() string {
	n := 0
	for _, t := range r {
		n += len(t.Text) + 1
	}
	b := make([]byte, 0, n)
	for i, t := range r {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, t.Text...)
	}
	return string(b)
}

// A Chain is a named list of rules; a base chain when Hook is set.
// Base chains accept what their rules leave.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule
}

// A State is the content of a table, or of a part of it. The values it holds
// are immutable once another state may share them.
type State struct {
	Chains   map[string]*Chain
	Sets     map[string]*Set
	Elements map[string]map[Datum]Datum // by set; the data of a plain set's element is zero
}

// NewState returns an empty state.
func NewState() *State {
	return &State{
		Chains:   map[string]*Chain{},
		Sets:     map[string]*Set{},
		Elements: map[string]map[Datum]Datum{},
	}
}

// AddChain adds or replaces a chain.
func (s *State) AddChain(c *Chain) { s.Chains[c.Name] = c }

// AddSet adds or replaces the declaration of a set.
func (s *State) AddSet(set *Set) { s.Sets[set.Name] = set }

// AddElement adds an element to the set of that name; data is the zero Datum
// unless the set is a map.
func (s *State) AddElement(set string, key, data Datum) {
	m := s.Elements[set]
	if m == nil {
		m = map[Datum]Datum{}
		s.Elements[set] = m
	}
	m[key] = data
}
