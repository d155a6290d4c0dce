package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/network/internal/byservice"
	"hansa.dev/hansa/network/internal/nft"
)

// A Config says for which node a Proxy works.
type Config struct {
	// Instance is the 8 hexadecimal digits that name the instance's objects.
	Instance string
	// NodeName and Zone say which endpoints are local or meant for here.
	NodeName, Zone string
	// NodeCIDR is the node's range of pod addresses, ClusterCIDR that of all
	// nodes, ServiceCIDR the range of service addresses.
	NodeCIDR, ClusterCIDR, ServiceCIDR netip.Prefix
	// Log receives what Run cannot return; nil is slog.Default().
	Log *slog.Logger
	// Clock times Run's retries; nil is the real one.
	Clock clock.Clock
}

// A Proxy holds services and endpoints and brings the kernel to them.
// Its methods may be called concurrently. Objects given to it are read until
// they are replaced, and never written to.
type Proxy struct {
	cfg    Config
	kernel Kernel
	wake   chan struct{} // something is to be flushed

	flushing sync.Mutex // held over a whole Flush, before mu

	mu       sync.Mutex
	services map[Key]*corev1.Service
	slices   *byservice.Slices
	dirty    map[Key]bool

	// Only Flush uses these.
	programmed bool
	committed  map[Key]*servicePlan
	claims     claims
	health     map[Key]HealthCheck
	pending    []Flows // to be forgotten, after a Forget that failed
}

// New returns a Proxy without services that has not touched the kernel.
func New(cfg Config, kernel Kernel) *Proxy {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Proxy{
		cfg: cfg, kernel: kernel, wake: make(chan struct{}, 1),
		services: map[Key]*corev1.Service{}, slices: byservice.New(),
		dirty: map[Key]bool{}, committed: map[Key]*servicePlan{}, claims: claims{}, health: map[Key]HealthCheck{},
	}
}

// touch notes that a service has to be planned again; p.mu is held.
func (p *Proxy) touch(k Key) {
	p.dirty[k] = true
	p.nudge()
}

func (p *Proxy) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// SetService adds or replaces a service.
func (p *Proxy) SetService(svc *corev1.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := Key{Namespace: svc.Namespace, Name: svc.Name}
	p.services[k] = svc
	p.touch(k)
}

// DeleteService removes a service.
func (p *Proxy) DeleteService(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.services, k)
	p.touch(k)
}

// SetSlice adds or replaces an endpoint slice. A slice without the label that
// names its service belongs to none.
func (p *Proxy) SetSlice(s *discoveryv1.EndpointSlice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, svc := range p.slices.Set(s) {
		p.touch(svc)
	}
}

// DeleteSlice removes an endpoint slice.
func (p *Proxy) DeleteSlice(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, svc := range p.slices.Delete(k) {
		p.touch(svc)
	}
}

// Synced reports whether the kernel holds everything the Proxy was told, as of
// the last Flush.
func (p *Proxy) Synced() bool {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.programmed && len(p.dirty) == 0 && len(p.pending) == 0
}

// Resync makes the next Flush write the whole table, as after somebody else
// changed it.
func (p *Proxy) Resync() {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	p.programmed = false
	p.nudge()
}

// An update is a service whose plan is to be replaced.
type update struct {
	key      Key
	old, new *servicePlan // new is nil for a service that is gone
}

// Flush brings the kernel to what the Proxy was told, in one transaction: the
// differences, or everything the first time and after an error. Changes that
// come meanwhile are left to the next Flush.
func (p *Proxy) Flush(ctx context.Context) error {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	updates := p.plan()
	old, new := p.merge(updates)
	for _, u := range updates {
		p.pending = append(p.pending, changedFlows(u.old, u.new)...)
	}
	var batch nft.Batch
	if p.programmed {
		batch = nft.Diff(old, new)
	} else {
		batch = nft.Program(p.whole())
	}
	if len(batch) > 0 {
		if err := p.kernel.Apply(batch); err != nil {
			p.programmed = false
			return fmt.Errorf("service proxy: %w", err)
		}
	}
	p.programmed = true
	return p.after()
}

// plan takes the services that changed and plans them.
func (p *Proxy) plan() []update {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []update
	for _, k := range slices.SortedFunc(maps.Keys(p.dirty), Key.Compare) {
		u := update{key: k, old: p.committed[k]}
		if svc := p.services[k]; svc != nil {
			u.new = planService(p.cfg, svc, p.slices.Of(k), u.old)
		}
		if u.old != nil || u.new != nil {
			out = append(out, u)
		}
	}
	p.dirty = map[Key]bool{}
	return out
}

// merge makes the updates' plans the committed ones and returns the parts of
// the table that they change, before and after.
func (p *Proxy) merge(updates []update) (old, new *nft.State) {
	old, new = nft.NewState(), nft.NewState()
	touched := map[ref]bool{}
	before := func(r ref) {
		if touched[r] {
			return
		}
		touched[r] = true
		if d, ok := p.claims.winner(r); ok {
			old.AddElement(r.set, r.key, d)
		}
	}
	for _, u := range updates {
		var was, is map[ref]nft.Datum
		if u.old != nil {
			add(old, u.old.own)
			was = u.old.claims
		}
		delete(p.committed, u.key)
		delete(p.health, u.key)
		if u.new != nil {
			add(new, u.new.own)
			is = u.new.claims
			p.committed[u.key] = u.new
			if u.new.health != nil {
				p.health[u.key] = *u.new.health
			}
		}
		p.claims.replace(u.key, was, is, before)
	}
	for r := range touched {
		if d, ok := p.claims.winner(r); ok {
			new.AddElement(r.set, r.key, d)
		}
	}
	return old, new
}

// whole is the table of all committed plans.
func (p *Proxy) whole() *nft.State {
	s := base(p.cfg)
	for _, plan := range p.committed {
		add(s, plan.own)
	}
	for r := range p.claims {
		d, _ := p.claims.winner(r)
		s.AddElement(r.set, r.key, d)
	}
	return s
}

// add puts part's content into s. Parts do not overlap.
func add(s, part *nft.State) {
	maps.Copy(s.Chains, part.Chains)
	maps.Copy(s.Sets, part.Sets)
	maps.Copy(s.Elements, part.Elements)
}

// after does what follows a transaction.
func (p *Proxy) after() error {
	var errs []error
	if len(p.pending) > 0 {
		if err := p.kernel.Forget(p.pending); err != nil {
			errs = append(errs, err)
		} else {
			p.pending = nil
		}
	}
	health := slices.SortedFunc(maps.Values(p.health), func(a, b HealthCheck) int { return a.Service.Compare(b.Service) })
	if err := p.kernel.Check(health); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("service proxy: %w", err)
	}
	return nil
}

// Run waits this long after a Flush that failed, doubled each time.
const retryMin, retryMax = time.Second, time.Minute

// Run flushes whenever something has changed, until ctx ends. It also watches
// the ruleset, and writes the table again when somebody deletes it. At most
// one goroutine may be in Run.
func (p *Proxy) Run(ctx context.Context) error {
	watching := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if l, ok := p.kernel.(*Linux); ok {
		go func() { watching <- p.watch(ctx, l) }()
	}
	for wait := retryMin; ; {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watching:
			if err != nil {
				p.cfg.Log.Error("the service proxy's table is no longer watched", "error", err)
			}
		case <-p.wake:
			err := p.Flush(ctx)
			if err == nil {
				wait = retryMin
				continue
			}
			if ctx.Err() != nil {
				return nil
			}
			p.cfg.Log.Error("cannot program services", "error", err, "retry", wait)
			select {
			case <-ctx.Done():
			case <-p.cfg.Clock.After(wait):
				p.nudge()
			}
			wait = min(2*wait, retryMax)
		}
	}
}

func (p *Proxy) watch(ctx context.Context, l *Linux) error {
	name := TableName(p.cfg.Instance)
	gone := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-gone:
				// Writing the whole table deletes it first: then it exists.
				if ok, err := l.Exists(); err == nil && !ok {
					p.Resync()
				}
			}
		}
	}()
	return nft.Watch(ctx, func() {}, func(c nft.Change, table string) {
		if c == nft.Lost || c == nft.TableDeleted && table == name {
			select {
			case gone <- struct{}{}:
			default:
			}
		}
	})
}
