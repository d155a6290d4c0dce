package pod

import (
	"fmt"
	"net/netip"
)

// NodeAddress is the node's own address in its pod range: the first after the
// network's address. It is on the link hansa-INSTANCE; pods and the host reach
// the node's DNS server there.
func NodeAddress(node netip.Prefix) netip.Addr { return node.Masked().Addr().Next() }

// pool hands out the addresses of a node's range, each to one holder. An
// address that was given back is used again as late as possible, so that
// nobody's stale idea of it meets a new pod.
type pool struct {
	prefix netip.Prefix
	used   map[netip.Addr]bool
	last   netip.Addr // the search starts after it
}

func newPool(prefix netip.Prefix) *pool {
	prefix = prefix.Masked()
	return &pool{prefix: prefix, used: map[netip.Addr]bool{}, last: NodeAddress(prefix)}
}

// usable reports whether a pod may have the address: inside the range, and
// neither the network's, the node's nor, in IPv4, the broadcast address.
func (p *pool) usable(a netip.Addr) bool {
	return p.prefix.Contains(a) && a != p.prefix.Addr() && a != NodeAddress(p.prefix) &&
		(a.Is6() || p.prefix.Contains(a.Next()))
}

// take marks an address as used; it fails if it is foreign or taken.
func (p *pool) take(a netip.Addr) error {
	if !p.usable(a) {
		return fmt.Errorf("address %s is not a pod's in range %s", a, p.prefix)
	}
	if p.used[a] {
		return fmt.Errorf("address %s is in use already", a)
	}
	p.used[a] = true
	if p.last.Less(a) {
		p.last = a
	}
	return nil
}

// next takes a free address.
func (p *pool) next() (netip.Addr, error) {
	for a, wrapped := p.last.Next(), false; ; a = a.Next() {
		if !p.prefix.Contains(a) {
			if wrapped {
				return netip.Addr{}, fmt.Errorf("no free address in %s: all %d are in use", p.prefix, len(p.used))
			}
			a, wrapped = p.prefix.Addr(), true
		}
		if p.usable(a) && !p.used[a] {
			p.used[a], p.last = true, a
			return a, nil
		}
	}
}

// release gives an address back.
func (p *pool) release(a netip.Addr) { delete(p.used, a) }
