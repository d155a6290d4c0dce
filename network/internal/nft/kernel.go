package nft

import (
	"fmt"
	"math"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
)

// A Table is one table in the kernel of the calling thread's network namespace.
type Table struct{ name string }

// NewTable returns the inet table of that name; nothing is made yet.
func NewTable(name string) *Table { return &Table{name: name} }

// Name returns the table's name.
func (t *Table) Name() string { return t.name }

// A transaction travels in one datagram, and the kernel answers every message
// of it before we read the first answer.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 256 << 20
	// elementsPerMessage keeps an element list below an attribute's 64 KiB.
	elementsPerMessage = 400
)

func dial() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		if err := c.SetWriteBuffer(sendBuffer); err != nil {
			return err
		}
		return c.SetReadBuffer(receiveBuffer)
	}))
}

func (t *Table) handle() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
}

// Apply carries out the batch as one transaction: all of it or, on an error,
// nothing.
func (t *Table) Apply(b Batch) error {
	if len(b) == 0 {
		return nil
	}
	c, err := dial()
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	w := writer{conn: c, table: t.handle()}
	for _, op := range b {
		if err := w.op(op); err != nil {
			return fmt.Errorf("table %s: %s: %w", t.name, op.Verb, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("table %s: commit %d operations: %w", t.name, len(b), err)
	}
	return nil
}

// Delete removes the table; it is no error if there is none.
func (t *Table) Delete() error {
	c, err := dial()
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	// Adding first makes the deletion succeed in either case.
	c.AddTable(t.handle())
	c.DelTable(t.handle())
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete table %s: %w", t.name, err)
	}
	return nil
}

// Exists reports whether the kernel has the table.
func (t *Table) Exists() (bool, error) {
	c, err := dial()
	if err != nil {
		return false, fmt.Errorf("connect to nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, x := range tables {
		if x.Name == t.name {
			return true, nil
		}
	}
	return false, nil
}

// writer turns operations into messages of one transaction.
type writer struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  uint32
}

func (w *writer) op(op Op) error {
	switch op.Verb {
	case Reset:
		w.conn.AddTable(w.table)
		w.conn.DelTable(w.table)
		w.conn.AddTable(w.table)
	case AddSet:
		s := w.set(op.Set)
		// Set here because the library numbers sets from a global without a lock.
		w.sets++
		s.ID = w.sets
		return w.conn.AddSet(s, nil)
	case DelSet:
		w.conn.DelSet(w.set(op.Set))
	case AddChain:
		w.conn.AddChain(w.chain(op.Chain))
	case FlushChain:
		w.conn.FlushChain(w.chain(op.Chain))
	case DelChain:
		w.conn.DelChain(w.chain(op.Chain))
	case AddRules:
		for _, r := range op.Chain.Rules {
			var es []expr.Any
			for _, term := range r {
				es = append(es, term.Exprs...)
			}
			w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: w.chain(op.Chain), Exprs: es})
		}
	case AddElements, DelElements:
		return w.elements(op)
	default:
		return fmt.Errorf("unknown operation %q", op.Verb)
	}
	return nil
}

func (w *writer) elements(op Op) error {
	set := &nftables.Set{Table: w.table, Name: op.Set.Name} // elements go by the set's name
	for es := op.Elements; len(es) > 0; {
		n := min(len(es), elementsPerMessage)
		list := make([]nftables.SetElement, n)
		for i, e := range es[:n] {
			list[i] = nftables.SetElement{Key: []byte(e.Key.Raw)}
			if op.Verb == DelElements {
				continue
			}
			if chain, ok := strings.CutPrefix(e.Data.Text, "goto "); ok {
				list[i].VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}
			} else {
				list[i].Val = []byte(e.Data.Raw)
			}
		}
		var err error
		if op.Verb == AddElements {
			err = w.conn.SetAddElements(set, list)
		} else {
			err = w.conn.SetDeleteElements(set, list)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", op.Set.Name, err)
		}
		es = es[n:]
	}
	return nil
}

var types = map[Type]nftables.SetDatatype{
	IPv4Addr:    nftables.TypeIPAddr,
	IPv6Addr:    nftables.TypeIP6Addr,
	InetProto:   nftables.TypeInetProto,
	InetService: nftables.TypeInetService,
	Mark:        nftables.TypeMark,
	VerdictType: nftables.TypeVerdict,
}

func datatype(ts []Type) nftables.SetDatatype {
	if len(ts) == 1 {
		return types[ts[0]]
	}
	fields := make([]nftables.SetDatatype, len(ts))
	for i, t := range ts {
		fields[i] = types[t]
	}
	return nftables.MustConcatSetType(fields...)
}

func (w *writer) set(s *Set) *nftables.Set {
	out := &nftables.Set{
		Table:         w.table,
		Name:          s.Name,
		KeyType:       datatype(s.Key),
		Concatenation: len(s.Key) > 1,
		Dynamic:       s.Dynamic,
		HasTimeout:    s.Timeout > 0,
		Timeout:       s.Timeout,
		Size:          s.Size,
	}
	if len(s.Data) > 0 {
		out.IsMap = true
		out.DataType = datatype(s.Data)
	}
	if len(s.Key) == 1 && s.Key[0] == Mark {
		out.KeyByteOrder = binaryutil.NativeEndian
	}
	return out
}

var hookPoints = map[Point]*nftables.ChainHook{
	Prerouting:  nftables.ChainHookPrerouting,
	Input:       nftables.ChainHookInput,
	Forward:     nftables.ChainHookForward,
	Output:      nftables.ChainHookOutput,
	Postrouting: nftables.ChainHookPostrouting,
}

func (w *writer) chain(c *Chain) *nftables.Chain {
	out := &nftables.Chain{Name: c.Name, Table: w.table}
	if h := c.Hook; h != nil {
		accept := nftables.ChainPolicyAccept
		out.Hooknum = hookPoints[h.Point]
		out.Type = nftables.ChainType(h.Kind)
		out.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(min(max(h.Priority, math.MinInt32), math.MaxInt32)))
		out.Policy = &accept
	}
	return out
}
