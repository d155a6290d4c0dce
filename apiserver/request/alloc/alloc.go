// Package alloc gives services what is unique in the cluster: cluster addresses
// and node ports. What is given is claimed by keys in the same transaction as
// the service itself, at the places and in the forms that Kubernetes has for
// them: an address by an IPAddress object of its own name, ports by the bitmap
// of a RangeAllocation.
//
// What is in use is what services say. Claims are there so that two writes that
// want the same cannot both succeed: whoever allocates reads the claim first and
// the services then, and the claim's revision guards the write. So neither a
// claim without its service nor a service without its claim, made by whoever
// edited etcd by hand, deleted a claim or restored a part of it, does harm: the
// first is taken over, the second is respected, and loops mend both. Only the
// allocator's own claims are taken over; an IPAddress that somebody else made
// holds its address.
package alloc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/store"
)

// Config says what there is to give.
type Config struct {
	// Families are those that services get addresses of, the primary first. The
	// ranges are the cluster's ServiceCIDRs.
	Families []corev1.IPFamily
	// Ports are the node ports.
	Ports PortRange
	// Random gives a number below n; nil is math/rand.
	Random func(n uint64) uint64
	Clock  clock.PassiveClock
}

// PortRange are the ports First to Last, both included.
type PortRange struct{ First, Last int32 }

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

func (r PortRange) size() int { return int(r.Last-r.First) + 1 }

// DefaultPorts are Kubernetes' node ports.
var DefaultPorts = PortRange{30000, 32767}

var (
	errFull          = errors.New("range is full")
	errNoRange       = errors.New("the provided network does not match the current range")
	errAddressInUse  = errors.New("provided IP is already allocated")
	errPortInUse     = errors.New("provided port is already allocated")
	errWrongPortText = "provided port is not in the valid range. The range of valid ports is %s"
)

// Services is the request.Allocator of services.
type Services struct {
	store      *store.Store
	row, cidrs *api.Resource
	families   []corev1.IPFamily
	ports      PortRange
	random     func(n uint64) uint64
	clock      clock.PassiveClock
}

// New makes the allocator of services.
func New(s *store.Store, registry *api.Registry, c Config) (*Services, error) {
	if c.Random == nil {
		c.Random = rand.Uint64N
	}
	if c.Ports == (PortRange{}) {
		c.Ports = DefaultPorts
	}
	if len(c.Families) == 0 {
		return nil, errors.New("services get addresses of no family")
	}
	return &Services{
		store: s, row: registry.Must("", "services"), cidrs: registry.Must("networking.k8s.io", "servicecidrs"),
		families: c.Families, ports: c.Ports, random: c.Random, clock: c.Clock,
	}, nil
}

// Allocate implements request.Allocator.
func (a *Services) Allocate(ctx context.Context, obj, old api.Object, dryRun bool) ([]store.Side, error) {
	was, _ := old.(*corev1.Service)
	if obj == nil {
		return a.release(ctx, was)
	}
	w := write{s: obj.(*corev1.Service), was: was, dryRun: dryRun}
	if errs := kinds.AssignIPFamilies(w.s, was, a.families); len(errs) > 0 {
		return nil, invalid(w.s, errs)
	}
	sides, err := a.allocateAddresses(ctx, w)
	if err != nil {
		return nil, err
	}
	ports, err := a.allocatePorts(ctx, w)
	if err != nil {
		return nil, err
	}
	return append(sides, ports...), nil
}

// write is one write of a service: s is about to replace was, which is nil on
// create; s is nil when was goes away.
type write struct {
	s, was *corev1.Service
	dryRun bool
}

// self is who writes. An update need not say it.
func (w write) self() types.UID {
	if w.was != nil {
		return w.was.UID
	}
	return w.s.UID
}

// stands says whether a dry run creates what is there already: it is told so
// later, and not that its own address is taken.
func (w write) stands(other *corev1.Service) bool {
	return w.dryRun && w.was == nil && other.Namespace == w.s.Namespace && other.Name == w.s.Name
}

func invalid(s *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}

// release frees all that a service that goes away had.
func (a *Services) release(ctx context.Context, was *corev1.Service) ([]store.Side, error) {
	var sides []store.Side
	for _, ip := range addressesOf(was) {
		side, ok, err := a.freeAddress(ctx, ip, was)
		if err != nil {
			return nil, err
		}
		if ok {
			sides = append(sides, side)
		}
	}
	ports, err := a.allocatePorts(ctx, write{was: was})
	return append(sides, ports...), err
}

// addressesOf are the cluster addresses that a service has.
func addressesOf(s *corev1.Service) []string {
	if s == nil || !kinds.ServiceNeedsClusterIP(s) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Spec.ClusterIPs), func(ip string) bool {
		return ip == "" || ip == corev1.ClusterIPNone
	})
}

// others are all services but the one that is written, of a state not older than
// what was read before. One of its name that is to be created once more is
// another.
func (a *Services) others(ctx context.Context, w write) ([]*corev1.Service, error) {
	list, err := a.store.List(ctx, store.Query{Resource: a.row}, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	others := make([]*corev1.Service, 0, len(list.Items))
	for _, obj := range list.Items {
		if obj.GetUID() != w.self() {
			others = append(others, obj.(*corev1.Service))
		}
	}
	return others, nil
}
