package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hansa.dev/hansa/network/internal/dump"
	"hansa.dev/hansa/network/internal/nft"
)

// A Kernel carries out what a Proxy has planned. Apply is one transaction;
// Forget and Check make what they are given true and may be repeated.
type Kernel interface {
	Apply(nft.Batch) error
	Forget([]Flows) error
	Check([]HealthCheck) error
}

// TableName is the name of an instance's table.
func TableName(instance string) string { return "hansa-" + instance + "-svc" }

// Linux is the Kernel of the process's network namespace.
type Linux struct {
	table  *nft.Table
	checks checks
}

// NewLinux returns the kernel for an instance's table.
func NewLinux(instance string) *Linux { return &Linux{table: nft.NewTable(TableName(instance))} }

// Apply changes the table.
func (l *Linux) Apply(b nft.Batch) error { return l.table.Apply(b) }

// Exists reports whether the table does.
func (l *Linux) Exists() (bool, error) { return l.table.Exists() }

// Check serves the health checks and no others.
func (l *Linux) Check(h []HealthCheck) error { return l.checks.set(h) }

// Teardown removes the table and stops health checks. It needs nothing that
// ran before, and may be repeated.
func (l *Linux) Teardown() error {
	if err := l.checks.set(nil); err != nil {
		return fmt.Errorf("stop health checks: %w", err)
	}
	return l.table.Delete()
}

// Forget deletes UDP flows from the kernel's connection tracking.
func (l *Linux) Forget(flows []Flows) error {
	if len(flows) == 0 {
		return nil
	}
	m := flowFilter{keep: make(map[netip.AddrPort][]netip.AddrPort, len(flows)), local: map[netip.Addr]bool{}}
	for _, f := range flows {
		m.keep[f.Dst] = f.Keep // the latest of an address counts
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list addresses of the host: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			m.local[ip.Unmap()] = true
		}
	}
	_, err = dump.Whole(func() (uint, error) {
		return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, m)
	})
	if err != nil {
		return fmt.Errorf("forget UDP flows to %d addresses: %w", len(flows), err)
	}
	return nil
}

// flowFilter matches the conntrack entries that are to go.
type flowFilter struct {
	keep  map[netip.AddrPort][]netip.AddrPort
	local map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m flowFilter) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	dst, ok := netip.AddrFromSlice(f.Forward.DstIP)
	src, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP)
	if !ok || !ok2 {
		return false
	}
	to := netip.AddrPortFrom(dst.Unmap(), f.Forward.DstPort)
	by := netip.AddrPortFrom(src.Unmap(), f.Reverse.SrcPort)
	keep, ok := m.keep[to]
	if !ok && m.local[to.Addr()] {
		keep, ok = m.keep[netip.AddrPortFrom(netip.Addr{}, to.Port())]
	}
	return ok && !slices.Contains(keep, by)
}
