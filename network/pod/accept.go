package pod

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// A packet that one table accepts may still be dropped by another at the same
// hook. So where a foreign chain drops what is forwarded, one rule of ours in
// that chain accepts pod packets, known by ForwardMark. Docker has a chain for
// such rules, DOCKER-USER, which it leaves alone; elsewhere the rule goes to
// the head of the dropping chain. It is written in expressions that iptables
// knows, because iptables refuses to work on a table with others.

// acceptComment marks our rules in foreign chains; iptables shows it too.
const acceptComment = "hansa"

// dockerUser is the chain that Docker keeps for the administrator's rules.
const dockerUser = "DOCKER-USER"

// A foreignChain is what acceptance is decided from.
type foreignChain struct {
	Family  nftables.TableFamily
	Table   string
	Name    string
	Forward bool // a filter base chain at the forward hook
	Drops   bool // drops what its rules leave
	Ours    int  // accept rules of ours in it
}

func (c foreignChain) compare(d foreignChain) int {
	return cmp.Or(cmp.Compare(c.Family, d.Family), cmp.Compare(c.Table, d.Table), cmp.Compare(c.Name, d.Name))
}

// An acceptAction adds an accept rule to a chain, or removes all of ours.
type acceptAction struct {
	Chain foreignChain
	Add   bool
}

func (a acceptAction) String() string {
	verb := "remove from"
	if a.Add {
		verb = "insert into"
	}
	return fmt.Sprintf("%s %s %s %s", verb, familyName(a.Chain.Family), a.Chain.Table, a.Chain.Name)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	}
	return fmt.Sprint(byte(f))
}

// planAccept decides where accept rules belong. A chain that has more of ours
// than it should is cleared first.
func planAccept(chains []foreignChain) []acceptAction {
	type table struct {
		family nftables.TableFamily
		name   string
	}
	user := map[table]bool{}
	for _, c := range chains {
		if c.Name == dockerUser {
			user[table{c.Family, c.Table}] = true
		}
	}
	drops := map[table]bool{}
	for _, c := range chains {
		if c.Forward && c.Drops {
			drops[table{c.Family, c.Table}] = true
		}
	}
	var out []acceptAction
	for _, c := range slices.SortedFunc(slices.Values(chains), foreignChain.compare) {
		t := table{c.Family, c.Table}
		want := 0
		if c.Forward && c.Drops && !user[t] || c.Name == dockerUser && drops[t] {
			want = 1
		}
		if c.Ours > want {
			out = append(out, acceptAction{Chain: c})
			c.Ours = 0
		}
		if c.Ours < want {
			out = append(out, acceptAction{Chain: c, Add: true})
		}
	}
	return out
}

// acceptRule is the rule's expressions: meta mark & ForwardMark ==
// ForwardMark counter accept.
func acceptRule() []expr.Any {
	mark := binary.NativeEndian.AppendUint32(nil, ForwardMark)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: mark, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: mark},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// isOurs knows our rules by their comment: as we write it, and as iptables
// does when it saves and restores them.
func isOurs(r *nftables.Rule) bool {
	if bytes.Equal(r.UserData, userdata.AppendString(nil, userdata.TypeComment, acceptComment)) {
		return true
	}
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		m, ok := e.(*expr.Match)
		if !ok || m.Name != "comment" {
			return false
		}
		c, ok := m.Info.(*xt.Comment)
		return ok && strings.TrimRight(string(*c), "\x00") == acceptComment
	})
}

// dropsAll reports whether a rule drops or rejects whatever reaches it.
func dropsAll(r *nftables.Rule) bool {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		case *expr.Reject:
			return true
		default:
			return false
		}
	}
	return false
}

// gone reports whether an error says that a chain or rule does not exist. The
// library's errors do not always wrap the kernel's.
func gone(err error) bool {
	return err != nil && (errors.Is(err, syscall.ENOENT) || strings.Contains(err.Error(), syscall.ENOENT.Error()))
}

// readForeign lists the chains of other programs that matter here.
func readForeign(c *nftables.Conn) ([]foreignChain, error) {
	var out []foreignChain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		for _, ch := range chains {
			if isOwnTable(ch.Table.Name) {
				continue
			}
			f := foreignChain{Family: family, Table: ch.Table.Name, Name: ch.Name}
			f.Forward = ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Type == nftables.ChainTypeFilter
			if !f.Forward && ch.Name != dockerUser {
				continue
			}
			rules, err := c.GetRules(ch.Table, ch)
			if gone(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list rules of %s %s: %w", ch.Table.Name, ch.Name, err)
			}
			f.Drops = ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop ||
				len(rules) > 0 && dropsAll(rules[len(rules)-1])
			for _, r := range rules {
				if isOurs(r) {
					f.Ours++
				}
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// ensureAccept brings accept rules where they belong. It returns how many
// chains it changed.
func ensureAccept(record func(kind, name string) error) (int, error) {
	c, err := nftables.New()
	if err != nil {
		return 0, fmt.Errorf("connect to nftables: %w", err)
	}
	chains, err := readForeign(c)
	if err != nil {
		return 0, err
	}
	actions := planAccept(chains)
	var errs []error
	for _, a := range actions {
		if a.Add {
			if err := record("rule", familyName(a.Chain.Family)+" "+a.Chain.Table+" "+a.Chain.Name); err != nil {
				return 0, err
			}
		}
		errs = append(errs, carryOut(c, a))
	}
	return len(actions), errors.Join(errs...)
}

// removeAccept takes every accept rule of ours out of foreign chains.
func removeAccept() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	chains, err := readForeign(c)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range chains {
		if f.Ours > 0 {
			errs = append(errs, carryOut(c, acceptAction{Chain: f}))
		}
	}
	return errors.Join(errs...)
}

// carryOut does one action. A chain that is gone since it was seen is no error:
// its going is an event, upon which everything is looked at again.
func carryOut(c *nftables.Conn, a acceptAction) error {
	t := &nftables.Table{Name: a.Chain.Table, Family: a.Chain.Family}
	ch := &nftables.Chain{Name: a.Chain.Name, Table: t}
	if a.Add {
		c.InsertRule(&nftables.Rule{
			Table: t, Chain: ch, Exprs: acceptRule(),
			UserData: userdata.AppendString(nil, userdata.TypeComment, acceptComment),
		})
	} else {
		rules, err := c.GetRules(t, ch)
		if err != nil && !gone(err) {
			return fmt.Errorf("%s: %w", a, err)
		}
		for _, r := range rules {
			if isOurs(r) {
				if err := c.DelRule(&nftables.Rule{Table: t, Chain: ch, Handle: r.Handle}); err != nil {
					return fmt.Errorf("%s: %w", a, err)
				}
			}
		}
	}
	if err := c.Flush(); err != nil && !gone(err) {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}
