package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hansa.dev/hansa/network/internal/dump"
	"hansa.dev/hansa/network/internal/nft"
)

// add connects a container and returns its record.
func (m *Manager) add(ctx context.Context, a attachment) (*Record, error) {
	unlock, err := m.lock(ctx, a.ContainerID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ns, err := netns.GetFromPath(a.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", a.Netns, err)
	}
	defer ns.Close()
	// What an interrupted request left of this container goes first.
	if err := m.removeLocked(a.ContainerID); err != nil {
		return nil, err
	}
	r, err := m.reserve(a)
	if err != nil {
		return nil, err
	}
	err = m.files.save(r)
	if err == nil {
		err = connect(m.cfg, r, ns)
	}
	if err == nil {
		err = m.programPorts(r)
	}
	if err != nil {
		return nil, errors.Join(err, m.removeLocked(a.ContainerID))
	}
	return r, nil
}

// reserve takes an address and host ports for an attachment.
func (m *Manager) reserve(a attachment) (*Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := portConflict(m.records, a.HostPorts); err != nil {
		return nil, err
	}
	ip, err := m.pool.next()
	if err != nil {
		return nil, err
	}
	link := linkName(m.cfg.Instance, a.ContainerID, a.IfName)
	r := &a.Record
	r.Link, r.MAC = link, podMAC(link).String()
	r.IPs = append(r.IPs, ip)
	m.records[a.ContainerID] = r
	return r, nil
}

// portConflict finds a host port that another container has. Two ports differ
// when number, protocol or address do; no address means all of them.
func portConflict(records map[string]*Record, want []HostPort) error {
	for _, w := range want {
		for _, r := range records {
			for _, p := range r.HostPorts {
				if p.HostPort == w.HostPort && p.Protocol == w.Protocol &&
					(p.anyAddress() || w.anyAddress() || p.HostIP == w.HostIP) {
					return &busyError{fmt.Sprintf("host port %d/%s is in use by pod %s", w.HostPort, w.Protocol, r.podName())}
				}
			}
		}
	}
	return nil
}

// busyError is a conflict that passes when another pod is gone.
type busyError struct{ text string }

func (e *busyError) Error() string { return e.text }

// programPorts opens the record's host ports.
func (m *Manager) programPorts(r *Record) error {
	if len(r.HostPorts) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.table.Apply(nft.Diff(nft.NewState(), elementsOf(r))); err != nil {
		return fmt.Errorf("open host ports of pod %s: %w", r.podName(), err)
	}
	return nil
}

// remove disconnects a container; it is no error if it is not connected.
func (m *Manager) remove(container string) error {
	unlock, err := m.lock(context.Background(), container)
	if err != nil {
		return err
	}
	defer unlock()
	return m.removeLocked(container)
}

// removeLocked is remove for callers that have locked the container.
func (m *Manager) removeLocked(container string) error {
	m.mu.Lock()
	r := m.records[container]
	m.mu.Unlock()
	if r == nil {
		return nil
	}
	if err := m.closePorts(r); err != nil {
		return err
	}
	if err := disconnect(r.Link); err != nil {
		return err
	}
	// The record goes last: while it is there, the address is not given away.
	if err := m.files.remove(container); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, container)
	for _, ip := range r.IPs {
		m.pool.release(ip)
	}
	return nil
}

// closePorts removes the record's host ports, and the connections through them
// that have no end of their own (UDP): the port's next pod would not get them.
func (m *Manager) closePorts(r *Record) error {
	if len(r.HostPorts) == 0 {
		return nil
	}
	m.mu.Lock()
	err := m.deletePorts(r)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close host ports of pod %s: %w", r.podName(), err)
	}
	udp := slices.ContainsFunc(r.HostPorts, func(p HostPort) bool { return p.Protocol == nft.UDP })
	if !udp {
		return nil
	}
	filter := &netlink.ConntrackFilter{}
	err = errors.Join(
		filter.AddIP(netlink.ConntrackReplySrcIP, r.IPs[0].AsSlice()),
		filter.AddProtocol(unix.IPPROTO_UDP))
	if err == nil {
		_, err = dump.Whole(func() (uint, error) {
			return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter)
		})
	}
	if err != nil {
		return fmt.Errorf("end UDP connections of pod %s: %w", r.podName(), err)
	}
	return nil
}

// deletePorts deletes the record's elements. An interrupted request may have
// left none of them, or all; both are told apart by trying.
func (m *Manager) deletePorts(r *Record) error {
	err := m.table.Apply(nft.Diff(elementsOf(r), nft.NewState()))
	if gone(err) {
		return nil
	}
	return err
}

// check reports what is wrong with a container's connection.
func (m *Manager) check(container, path string) error {
	m.mu.Lock()
	r := m.records[container]
	m.mu.Unlock()
	if r == nil {
		return fmt.Errorf("container %s has no network", container)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	return verify(r, ns)
}

// collect removes every attachment whose container is not in valid.
func (m *Manager) collect(valid map[string]bool) error {
	m.mu.Lock()
	ids := slices.Sorted(maps.Keys(m.records))
	m.mu.Unlock()
	var errs []error
	for _, id := range ids {
		if !valid[id] {
			errs = append(errs, m.remove(id))
		}
	}
	return errors.Join(errs...)
}

// lock makes requests for one container wait for each other.
func (m *Manager) lock(ctx context.Context, container string) (unlock func(), err error) {
	for {
		m.mu.Lock()
		held := m.busy[container]
		if held == nil {
			mine := make(chan struct{})
			m.busy[container] = mine
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.busy, container)
				m.mu.Unlock()
				close(mine)
			}, nil
		}
		m.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for an earlier request for container %s: %w", container, ctx.Err())
		}
	}
}

// checkNetns refuses a namespace that is the host's own: its links are not
// pods'.
func checkNetns(path string) error {
	var ns, self unix.Stat_t
	if err := unix.Stat(path, &ns); err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &self); err != nil {
		return fmt.Errorf("own network namespace: %w", err)
	}
	if ns.Dev == self.Dev && ns.Ino == self.Ino {
		return fmt.Errorf("network namespace %s is the host's own", path)
	}
	return nil
}

// validIfName reports whether name may be a link's name.
func validIfName(name string) bool {
	return name != "" && name != "." && name != ".." && name != "lo" && len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/: \t\n")
}
