package alloc

import (
	"context"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/store"
)

// portsKey is where Kubernetes keeps the bitmap of node ports.
const portsKey = "/registry/ranges/servicenodeports"

// portBand is where the dynamic band of ports begins.
func (a *Services) portBand() int { return int(band(uint64(a.ports.size()), 32, 16, 128)) }

// portsOf are the node ports that a service has, the health-check port among
// them.
func portsOf(s *corev1.Service) []int32 {
	if s == nil || s.Spec.Type != corev1.ServiceTypeNodePort && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var ports []int32
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			ports = append(ports, p.NodePort)
		}
	}
	if s.Spec.HealthCheckNodePort != 0 {
		ports = append(ports, s.Spec.HealthCheckNodePort)
	}
	return ports
}

// portSet is the bitmap at a revision.
type portSet struct {
	bits     *big.Int
	revision int64
}

func (a *Services) readPorts(ctx context.Context) (*portSet, error) {
	value, revision, err := a.store.Raw(ctx, portsKey)
	if err != nil {
		return nil, err
	}
	p := &portSet{bits: new(big.Int), revision: revision}
	if revision == 0 {
		return p, nil
	}
	stored := &corev1.RangeAllocation{}
	if err := decode(value, stored); err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("decode the allocation of node ports: %w", err))
	}
	if stored.Range == a.ports.String() {
		p.bits.SetBytes(stored.Data)
		return p, nil
	}
	// The range is another one than before: what is used is what services say.
	return p, a.refill(ctx, p)
}

// refill makes the bitmap from the services that there are.
func (a *Services) refill(ctx context.Context, p *portSet) error {
	services, err := a.services(ctx)
	if err != nil {
		return err
	}
	p.bits.SetInt64(0)
	for _, obj := range services {
		for _, port := range portsOf(obj.(*corev1.Service)) {
			a.mark(p, port, 1)
		}
	}
	return nil
}

func (a *Services) has(p *portSet, port int32) bool { return p.bits.Bit(int(port-a.ports.First)) == 1 }

func (a *Services) mark(p *portSet, port int32, bit uint) {
	if port >= a.ports.First && port <= a.ports.Last {
		p.bits.SetBit(p.bits, int(port-a.ports.First), bit)
	}
}

func (a *Services) side(p *portSet) (store.Side, error) {
	obj := &corev1.RangeAllocation{Range: a.ports.String(), Data: p.bits.Bytes()}
	value, err := encode("v1", "RangeAllocation", obj)
	return store.Side{Key: portsKey, Revision: p.revision, Value: value}, err
}

// allocatePorts gives the service the node ports it still needs, and says how
// to claim what is new and free what is gone.
func (a *Services) allocatePorts(ctx context.Context, s, was *corev1.Service) ([]store.Side, error) {
	had, kept := sets.New(portsOf(was)...), sets.New(portsOf(s)...)
	wanted := kinds.ServiceNodePortsWanted(s)
	health := kinds.ServiceNeedsHealthCheckPort(s) && s.Spec.HealthCheckNodePort == 0
	if len(wanted) == 0 && !health && had.Equal(kept) {
		return nil, nil
	}
	return a.changePorts(ctx, was, s, had)
}

// changePorts takes the bitmap from what the service had to what it is to have;
// s is nil when it goes away.
func (a *Services) changePorts(ctx context.Context, was, s *corev1.Service, had sets.Set[int32]) ([]store.Side, error) {
	if s == nil && len(had) == 0 {
		return nil, nil
	}
	p, err := a.readPorts(ctx)
	if err != nil {
		return nil, err
	}
	before := new(big.Int).Set(p.bits)
	if s != nil {
		if err := a.claimChosen(ctx, p, s, had); err != nil {
			return nil, err
		}
		if err := a.claimWanted(p, s); err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
	}
	for port := range had.Difference(sets.New(portsOf(s)...)) {
		a.mark(p, port, 0)
	}
	if p.bits.Cmp(before) == 0 {
		return nil, nil
	}
	side, err := a.side(p)
	return []store.Side{side}, err
}

// claimChosen claims the ports that the user chose. A number may be shared by
// the service's own ports of different protocols.
func (a *Services) claimChosen(ctx context.Context, p *portSet, s *corev1.Service, had sets.Set[int32]) error {
	path := field.NewPath("spec", "ports")
	mine := had.Clone()
	claim := func(port int32, at *field.Path) error {
		if port == 0 || mine.Has(port) {
			return nil
		}
		err := a.claimPort(ctx, p, port, s)
		if apierrors.ReasonForError(err) != "" {
			return err
		} else if err != nil {
			return invalid(s, field.ErrorList{field.Invalid(at, port, err.Error())})
		}
		mine.Insert(port)
		return nil
	}
	if len(portsOf(s)) == 0 {
		return nil
	}
	for i, port := range s.Spec.Ports {
		if err := claim(port.NodePort, path.Index(i).Child("nodePort")); err != nil {
			return err
		}
	}
	return claim(s.Spec.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"))
}

func (a *Services) claimPort(ctx context.Context, p *portSet, port int32, s *corev1.Service) error {
	if port < a.ports.First || port > a.ports.Last {
		return fmt.Errorf(errWrongPortText, a.ports)
	}
	if a.has(p, port) {
		used, err := a.portUsed(ctx, port, nameOf(s))
		if err != nil {
			return err
		}
		if used {
			return errPortInUse
		}
	}
	a.mark(p, port, 1)
	return nil
}

// portUsed tells a claim from a leak. The services read are not older than the
// bitmap, and a change of the bitmap since then refuses the write.
func (a *Services) portUsed(ctx context.Context, port int32, by api.Key) (bool, error) {
	services, err := a.services(ctx)
	if err != nil {
		return false, err
	}
	for _, obj := range services {
		if nameOf(obj) == by {
			continue
		}
		for _, used := range portsOf(obj.(*corev1.Service)) {
			if used == port {
				return true, nil
			}
		}
	}
	return false, nil
}

// claimWanted chooses ports for those that have none. The same number is used
// for the same port under several protocols.
func (a *Services) claimWanted(p *portSet, s *corev1.Service) error {
	type front struct {
		port     int32
		protocol corev1.Protocol
	}
	given := map[int32]int32{} // service port → node port
	taken := map[front]bool{}  // node port and protocol
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 {
			given[port.Port] = port.NodePort
			taken[front{port.NodePort, port.Protocol}] = true
		}
	}
	for _, i := range kinds.ServiceNodePortsWanted(s) {
		port := &s.Spec.Ports[i]
		if shared := given[port.Port]; shared != 0 && !taken[front{shared, port.Protocol}] {
			port.NodePort = shared
		} else {
			free, err := a.findPort(p)
			if err != nil {
				return err
			}
			port.NodePort = free
		}
		given[port.Port] = port.NodePort
		taken[front{port.NodePort, port.Protocol}] = true
	}
	if kinds.ServiceNeedsHealthCheckPort(s) && s.Spec.HealthCheckNodePort == 0 {
		free, err := a.findPort(p)
		if err != nil {
			return err
		}
		s.Spec.HealthCheckNodePort = free
	}
	return nil
}

// findPort claims a free port: from a random place through the dynamic band,
// and only when that is full through the static one.
func (a *Services) findPort(p *portSet) (int32, error) {
	offset, size := a.portBand(), a.ports.size()
	for _, part := range [][2]int{{offset, size}, {0, offset}} {
		from, n := part[0], part[1]-part[0]
		if n == 0 {
			continue
		}
		start := int(a.random(uint64(n)))
		for i := range n {
			port := a.ports.First + int32(from+(start+i)%n)
			if !a.has(p, port) {
				a.mark(p, port, 1)
				return port, nil
			}
		}
	}
	return 0, errFull
}
