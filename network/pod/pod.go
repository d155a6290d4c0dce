package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/network/internal/nft"
)

// A Config says which instance's network a Manager keeps, and where.
type Config struct {
	// Instance is the 8 hexadecimal digits that name the instance's objects.
	Instance string
	// NodeCIDR is the node's range of pod addresses, ClusterCIDR that of all
	// nodes, ServiceCIDR the range of service addresses.
	NodeCIDR, ClusterCIDR, ServiceCIDR netip.Prefix
	// Dir is a directory of the Manager's own, for what must outlive it.
	Dir string
	// Socket is the path at which the CNI plugin is served.
	Socket string
	// Ledger, if set, is called before each object on the host is made, with
	// the object's kind (link, route, table, rule, sysctl) and its name. An
	// error keeps the object from being made. It may be called concurrently.
	Ledger func(kind, name string) error
	// Log receives what goes wrong without a caller; nil is slog.Default().
	Log *slog.Logger
	// Clock bounds how long a request may take; nil is the real one.
	Clock clock.Clock
}

func (c Config) record(kind, name string) error {
	if c.Ledger == nil {
		return nil
	}
	if err := c.Ledger(kind, name); err != nil {
		return fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	return nil
}

func (c Config) check() error {
	if len(c.Instance) != 8 || strings.Trim(c.Instance, "0123456789abcdef") != "" {
		return fmt.Errorf("instance %q is not 8 hexadecimal digits", c.Instance)
	}
	for _, p := range []netip.Prefix{c.NodeCIDR, c.ClusterCIDR, c.ServiceCIDR} {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("range %s is not an IPv4 prefix", p)
		}
	}
	if c.NodeCIDR.Bits() > 29 {
		return fmt.Errorf("range %s is too small for a node: /29 is the smallest", c.NodeCIDR)
	}
	if !c.ClusterCIDR.Overlaps(c.NodeCIDR) || c.NodeCIDR.Bits() < c.ClusterCIDR.Bits() {
		return fmt.Errorf("range %s of the node is not inside %s", c.NodeCIDR, c.ClusterCIDR)
	}
	if c.ServiceCIDR.Overlaps(c.ClusterCIDR) {
		return fmt.Errorf("ranges %s for services and %s for pods overlap", c.ServiceCIDR, c.ClusterCIDR)
	}
	return nil
}

// tableName is the instance's table; ownTables starts that of any instance.
func (c Config) tableName() string { return ownTables + c.Instance }

const ownTables = "hansa-"

func isOwnTable(name string) bool { return strings.HasPrefix(name, ownTables) }

// A Manager keeps one node's pod network.
//
//	New → Start → (CNI requests) → Close or Teardown
//
// Invariants: a record is on disk before the address it holds is used, and
// until everything made for it is gone; the table's elements are those of the
// records. Its methods may be called concurrently, except as drawn above.
type Manager struct {
	cfg   Config
	log   *slog.Logger
	files files
	table *nft.Table

	mu      sync.Mutex // guards what follows and the table's elements
	pool    *pool
	records map[string]*Record // by container; values are not written to
	busy    map[string]chan struct{}

	server *server
	stop   context.CancelFunc
	done   sync.WaitGroup
	dirty  chan struct{} // a foreign chain changed
	lost   chan struct{} // our table is gone
}

// New returns a Manager that has touched nothing yet.
func New(cfg Config) (*Manager, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("pod network: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Manager{
		cfg:     cfg,
		log:     cfg.Log,
		files:   files{cfg.Dir},
		table:   nft.NewTable(cfg.tableName()),
		pool:    newPool(cfg.NodeCIDR),
		records: map[string]*Record{},
		busy:    map[string]chan struct{}{},
		dirty:   make(chan struct{}, 1),
		lost:    make(chan struct{}, 1),
	}, nil
}

// Start reads the records, sets the host up, removes or repairs the
// attachments that need it, and serves the CNI plugin until Close. It returns
// once the socket is open.
func (m *Manager) Start(ctx context.Context) error {
	if err := m.adopt(); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if err := m.Setup(); err != nil {
		return err
	}
	m.repair()
	ctx, m.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := m.watch(ctx); err != nil {
		m.stop()
		return fmt.Errorf("pod network: %w", err)
	}
	s, err := listen(m.cfg, m.handle)
	if err != nil {
		m.stop()
		m.done.Wait()
		return fmt.Errorf("pod network: %w", err)
	}
	m.server = s
	m.done.Add(1)
	go func() {
		defer m.done.Done()
		s.serve(ctx)
	}()
	return nil
}

// Close stops serving, waits for requests under way, and leaves the network of
// the pods and the host as it is.
func (m *Manager) Close() error {
	if m.stop == nil {
		return nil
	}
	err := m.server.close()
	m.stop()
	m.done.Wait()
	m.stop = nil
	return err
}

// adopt reads the records of an earlier run.
func (m *Manager) adopt() error {
	records, err := m.files.load()
	if err != nil {
		// One file that cannot be read must not keep the others' pods without
		// a network.
		m.log.Warn("some pod network records cannot be read", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		for _, ip := range r.IPs {
			if err := m.pool.take(ip); err != nil {
				m.log.Warn("pod keeps an address it should not have", "pod", r.podName(), "error", err)
			}
		}
		m.records[r.ContainerID] = r
	}
	return nil
}

// Setup makes what the host needs before any pod: forwarding, the node's link,
// the table, and accept rules in foreign chains. It is idempotent, and every
// step of it is undone by Teardown.
func (m *Manager) Setup() error {
	c := m.cfg
	if err := conflict(c.Instance, c.ClusterCIDR.Masked(), c.ServiceCIDR.Masked()); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if err := enableForwarding(m.statePath(), c.record); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if err := ensureNodeLink(c); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if err := c.record("table", m.table.Name()); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if err := m.program(); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	if _, err := ensureAccept(c.record); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	return nil
}

// program writes the whole table in one transaction.
func (m *Manager) program() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := rules(m.cfg)
	for _, r := range m.records {
		hostPorts(s, r)
	}
	return m.table.Apply(nft.Program(s))
}

func (m *Manager) statePath() string { return filepath.Join(m.cfg.Dir, stateFile) }

// Teardown closes the Manager and removes everything of the instance from the
// host, as the function of that name does.
func (m *Manager) Teardown() error { return errors.Join(m.Close(), Teardown(m.cfg)) }

// Teardown removes everything of an instance from the host: all pods' links,
// the node's link and routes, the table, accept rules in foreign chains, the
// records and the socket; and it restores the former sysctls. It needs of the
// configuration only Instance, Dir and Socket, and no Manager. It is
// idempotent and goes on after errors, which it returns joined.
func Teardown(c Config) error {
	errs := []error{
		removeAccept(),
		nft.NewTable(c.tableName()).Delete(),
		removeLinks(c.Instance),
		removeRoutes(0, nil),
		restoreForwarding(filepath.Join(c.Dir, stateFile)),
	}
	records, err := files{c.Dir}.load()
	errs = append(errs, err)
	for _, r := range records {
		errs = append(errs, files{c.Dir}.remove(r.ContainerID))
	}
	if err := os.Remove(c.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove CNI socket: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take pod network down: %w", err)
	}
	return nil
}

// Repair puts right what a container runtime left that died in the middle of
// making a pod, or of taking one away.
func (m *Manager) Repair() { m.repair() }

// repair removes attachments whose namespace is gone and connects those again
// whose link is gone.
func (m *Manager) repair() {
	m.mu.Lock()
	all := make([]*Record, 0, len(m.records))
	for _, r := range m.records {
		all = append(all, r)
	}
	m.mu.Unlock()
	for _, r := range all {
		if err := m.repairOne(r); err != nil {
			m.log.Warn("cannot repair the network of a pod", "pod", r.podName(), "error", err)
		}
	}
}

// repairOne repairs one attachment, unless a request has changed it meanwhile: one
// that is being connected has no link yet.
func (m *Manager) repairOne(r *Record) error {
	unlock, err := m.lock(context.Background(), r.ContainerID)
	if err != nil {
		return err
	}
	defer unlock()
	m.mu.Lock()
	now := m.records[r.ContainerID]
	m.mu.Unlock()
	if now != r {
		return nil
	}
	if !nsExists(r.Netns) {
		return m.removeLocked(r.ContainerID)
	}
	if _, err := netlink.LinkByName(r.Link); !notFound(err) {
		return nil
	}
	return m.reconnect(r)
}

func (m *Manager) reconnect(r *Record) error {
	ns, err := netns.GetFromPath(r.Netns)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", r.Netns, err)
	}
	defer ns.Close()
	return connect(m.cfg, r, ns)
}

// watch keeps foreign chains and our own table as they should be while others
// change the ruleset. It returns once changes are being seen.
func (m *Manager) watch(ctx context.Context) error {
	ready := make(chan struct{})
	failed := make(chan error, 1)
	m.done.Add(2)
	go func() {
		defer m.done.Done()
		err := nft.Watch(ctx, func() { close(ready) }, m.sawChange)
		if err != nil {
			m.log.Error("foreign firewall rules are no longer watched", "error", err)
		}
		failed <- err
	}()
	go func() {
		defer m.done.Done()
		m.restore(ctx)
	}()
	select {
	case <-ready:
	case err := <-failed:
		return err
	}
	// What changed between Setup and now was not seen.
	signal(m.dirty)
	return nil
}

func (m *Manager) sawChange(c nft.Change, table string) {
	switch {
	case c == nft.Lost:
		signal(m.lost)
		signal(m.dirty)
	case c == nft.TableDeleted && table == m.table.Name():
		signal(m.lost)
	case c == nft.RulesChanged && !isOwnTable(table):
		signal(m.dirty)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (m *Manager) restore(ctx context.Context) {
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-m.lost:
			err = m.restoreTable()
		case <-m.dirty:
			_, err = ensureAccept(m.cfg.record)
		}
		if err != nil && ctx.Err() == nil {
			m.log.Error("cannot restore firewall rules", "error", err)
		}
	}
}

// restoreTable writes our table again if somebody deleted it. Programming it
// deletes it too, so that most such events are our own.
func (m *Manager) restoreTable() error {
	exists, err := m.table.Exists()
	if err != nil || exists {
		return err
	}
	return m.program()
}
