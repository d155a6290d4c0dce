package alloc

import (
	"context"
	"fmt"
	"math/big"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/store"
)

// portsKey is where Kubernetes keeps the bitmap of node ports, below the root.
const portsKey = "ranges/servicenodeports"

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

// portSet are the ports in use, as the bitmap at a revision is to have them.
type portSet struct {
	PortRange
	bits     *big.Int
	revision int64
}

func (p *portSet) has(port int32) bool { return p.bits.Bit(int(port-p.First)) == 1 }

func (p *portSet) contains(port int32) bool { return port >= p.First && port <= p.Last }

func (p *portSet) mark(port int32) {
	if p.contains(port) {
		p.bits.SetBit(p.bits, int(port-p.First), 1)
	}
}

// usedPorts are the ports of all services but s. The bitmap's revision is read
// before them: who takes a port after that makes the write fail.
func (a *Services) usedPorts(ctx context.Context, s *corev1.Service) (*portSet, error) {
	_, revision, err := a.store.Raw(ctx, portsKey)
	if err != nil {
		return nil, err
	}
	services, err := a.others(ctx, s)
	if err != nil {
		return nil, err
	}
	p := &portSet{PortRange: a.ports, bits: new(big.Int), revision: revision}
	for _, other := range services {
		for _, port := range portsOf(other) {
			p.mark(port)
		}
	}
	return p, nil
}

// side writes the bitmap, also when it stays the same: what is compared is that
// nobody else has written it.
func (p *portSet) side() (store.Side, error) {
	obj := &corev1.RangeAllocation{Range: p.String(), Data: p.bits.Bytes()}
	value, err := encode("v1", "RangeAllocation", obj)
	return store.Side{Key: portsKey, Revision: p.revision, Value: value}, err
}

// allocatePorts gives the service the node ports it still needs, and says how
// to claim what is new and free what is gone. s is nil when it goes away.
func (a *Services) allocatePorts(ctx context.Context, s, was *corev1.Service) ([]store.Side, error) {
	had := sets.New(portsOf(was)...)
	if had.Equal(sets.New(portsOf(s)...)) && (s == nil || len(kinds.ServiceNodePortsWanted(s)) == 0 && !wantsHealthPort(s)) {
		return nil, nil
	}
	self := s
	if self == nil {
		self = was
	}
	p, err := a.usedPorts(ctx, self)
	if err != nil {
		return nil, err
	}
	if s != nil {
		if errs := p.claimChosen(s, had); len(errs) > 0 {
			return nil, invalid(s, errs)
		}
		if err := a.claimWanted(p, s); err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
	}
	side, err := p.side()
	return []store.Side{side}, err
}

func wantsHealthPort(s *corev1.Service) bool {
	return kinds.ServiceNeedsHealthCheckPort(s) && s.Spec.HealthCheckNodePort == 0
}

// claimChosen claims the ports that the user chose or that the service had. A
// number may be shared by the service's own ports of different protocols.
func (p *portSet) claimChosen(s *corev1.Service, had sets.Set[int32]) field.ErrorList {
	mine := had.Clone()
	claim := func(port int32, at *field.Path) field.ErrorList {
		switch {
		case port == 0:
			return nil
		case mine.Has(port):
		case !p.contains(port):
			return field.ErrorList{field.Invalid(at, port, fmt.Sprintf(errWrongPortText, p.PortRange))}
		case p.has(port):
			return field.ErrorList{field.Invalid(at, port, errPortInUse.Error())}
		}
		mine.Insert(port)
		p.mark(port)
		return nil
	}
	if len(portsOf(s)) == 0 {
		return nil
	}
	for i, port := range s.Spec.Ports {
		if errs := claim(port.NodePort, field.NewPath("spec", "ports").Index(i).Child("nodePort")); len(errs) > 0 {
			return errs
		}
	}
	return claim(s.Spec.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"))
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
	if wantsHealthPort(s) {
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
			if !p.has(port) {
				p.mark(port)
				return port, nil
			}
		}
	}
	return 0, errFull
}
