package alloc

import (
	"context"
	"fmt"
	"math/big"
	"slices"

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

// nodePortsOf are the node ports that a service has.
func nodePortsOf(s *corev1.Service) []int32 {
	if !hasNodePorts(s) {
		return nil
	}
	var ports []int32
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			ports = append(ports, p.NodePort)
		}
	}
	return ports
}

// hasNodePorts says whether node ports lead to a service.
func hasNodePorts(s *corev1.Service) bool {
	return s != nil && kinds.ServiceUsesNodePorts(s)
}

// portsOf are the node ports that a service has, the health-check port among
// them.
func portsOf(s *corev1.Service) []int32 {
	ports := nodePortsOf(s)
	if hasNodePorts(s) && s.Spec.HealthCheckNodePort != 0 {
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

func (p *portSet) mark(ports ...int32) {
	for _, port := range ports {
		if p.contains(port) {
			p.bits.SetBit(p.bits, int(port-p.First), 1)
		}
	}
}

// claim takes a port that somebody chose.
func (p *portSet) claim(port int32) error {
	switch {
	case !p.contains(port):
		return fmt.Errorf(errWrongPortText, p.PortRange)
	case p.has(port):
		return errPortInUse
	}
	p.mark(port)
	return nil
}

// usedPorts are the ports of all other services. The bitmap's revision is read
// before them: who takes a port after that makes the write fail.
func (a *Services) usedPorts(ctx context.Context, w write) (*portSet, error) {
	_, revision, err := a.store.Raw(ctx, portsKey)
	if err != nil {
		return nil, err
	}
	services, err := a.others(ctx, w)
	if err != nil {
		return nil, err
	}
	p := &portSet{PortRange: a.ports, bits: new(big.Int), revision: revision}
	for _, other := range services {
		p.mark(portsOf(other)...)
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
// to claim what is new and free what is gone.
func (a *Services) allocatePorts(ctx context.Context, w write) ([]store.Side, error) {
	had := portsOf(w.was)
	if (w.s == nil || !w.wantsPorts()) && sets.New(had...).Equal(sets.New(portsOf(w.s)...)) {
		return nil, distinctNodePorts(w.s)
	}
	p, err := a.usedPorts(ctx, w)
	if err != nil {
		return nil, err
	}
	others := new(big.Int).Set(p.bits)
	p.mark(had...) // not free before all is written
	if hasNodePorts(w.s) {
		if w.was == nil {
			err = a.firstPorts(p, w.s)
		} else {
			err = a.nextPorts(p, w.s, sets.New(nodePortsOf(w.was)...))
		}
		if err == nil {
			err = a.healthPort(p, w)
		}
		if err != nil {
			return nil, err
		}
	}
	p.bits = others
	p.mark(portsOf(w.s)...)
	side, err := p.side()
	return []store.Side{side}, err
}

// wantsPorts says whether a port is still to be chosen for it, or becomes its
// health-check port.
func (w write) wantsPorts() bool {
	if kinds.ServiceNeedsHealthCheckPort(w.s) && (w.was == nil || !kinds.ServiceNeedsHealthCheckPort(w.was)) {
		return true
	}
	return kinds.ServiceNeedsNodePorts(w.s) && slices.ContainsFunc(w.s.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort == 0 })
}

// firstPorts gives a new service its node ports. The ports of one number have
// one node port, whatever their protocols; no others share one.
func (a *Services) firstPorts(p *portSet, s *corev1.Service) error {
	given := map[int32]int32{} // service port → node port
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.NodePort == 0 && !kinds.ServiceNeedsNodePorts(s) {
			continue
		}
		shared, known := given[port.Port]
		if !known {
			shared = chosenPort(s.Spec.Ports, port.Port)
			if shared != 0 {
				port.NodePort = shared
			}
		}
		switch {
		case known && port.NodePort == 0:
			port.NodePort = shared
		case known && port.NodePort == shared:
		case port.NodePort == 0:
			if err := a.choosePort(p, port); err != nil {
				return err
			}
		default:
			if err := p.claim(port.NodePort); err != nil {
				return refusedPort(s, i, err)
			}
		}
		if !known {
			given[port.Port] = port.NodePort
		}
	}
	return nil
}

// chosenPort is the node port that somebody chose for a port of a number.
func chosenPort(ports []corev1.ServicePort, number int32) int32 {
	for _, p := range ports {
		if p.Port == number && p.NodePort != 0 {
			return p.NodePort
		}
	}
	return 0
}

// nextPorts gives a service that is there the node ports that it has not had.
// Its own ports may share one if their protocols differ.
func (a *Services) nextPorts(p *portSet, s *corev1.Service, had sets.Set[int32]) error {
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		switch {
		case port.NodePort == 0 && !kinds.ServiceNeedsNodePorts(s):
			continue
		case port.NodePort == 0:
			if err := a.choosePort(p, port); err != nil {
				return err
			}
		case !had.Has(port.NodePort) && !slices.ContainsFunc(s.Spec.Ports[:i], func(q corev1.ServicePort) bool { return q.NodePort == port.NodePort }):
			if err := p.claim(port.NodePort); err != nil {
				return refusedPort(s, i, err)
			}
		}
		if err := distinctNodePort(s.Spec.Ports, i); err != nil {
			return err
		}
	}
	return nil
}

// distinctNodePorts says that an update gives two ports of one protocol the same
// node port. Who creates a service so is told that the port is allocated.
func distinctNodePorts(s *corev1.Service) error {
	if !hasNodePorts(s) {
		return nil
	}
	for i := range s.Spec.Ports {
		if err := distinctNodePort(s.Spec.Ports, i); err != nil {
			return err
		}
	}
	return nil
}

// distinctNodePort compares a port with those before it.
func distinctNodePort(ports []corev1.ServicePort, i int) error {
	front := ports[i]
	if front.NodePort != 0 && slices.ContainsFunc(ports[:i], func(q corev1.ServicePort) bool {
		return q.NodePort == front.NodePort && q.Protocol == front.Protocol
	}) {
		return fmt.Errorf("duplicate nodePort: {%s %d}", front.Protocol, front.NodePort)
	}
	return nil
}

// healthPort gives a service its health-check port when it begins to need one.
// Validation sees to it that the port stays.
func (a *Services) healthPort(p *portSet, w write) error {
	if !kinds.ServiceNeedsHealthCheckPort(w.s) || w.was != nil && kinds.ServiceNeedsHealthCheckPort(w.was) {
		return nil
	}
	port := &w.s.Spec.HealthCheckNodePort
	if *port != 0 {
		if err := p.claim(*port); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %d: %w", *port, err))
		}
		return nil
	}
	free, err := a.findPort(p)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort 0: %w", err))
	}
	*port = free
	return nil
}

// choosePort chooses a node port for a port that has none.
func (a *Services) choosePort(p *portSet, port *corev1.ServicePort) error {
	free, err := a.findPort(p)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
	}
	port.NodePort = free
	return nil
}

func refusedPort(s *corev1.Service, i int, err error) error {
	at := field.NewPath("spec", "ports").Index(i).Child("nodePort")
	return invalid(s, field.ErrorList{field.Invalid(at, s.Spec.Ports[i].NodePort, err.Error())})
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
