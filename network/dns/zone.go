package dns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"hansa.dev/hansa/network/internal/byservice"
)

// A Key names a namespaced object.
type Key = byservice.Key

// label is the key as it stands in names below svc.ZONE: "name.namespace".
func label(k Key) string { return k.Name + "." + k.Namespace }

// A service is what the zone says about one. It is immutable.
type service struct {
	key      Key
	external string       // target of the CNAME, fully qualified
	ips      []netip.Addr // cluster IPs
	ports    []port       // named ports, of services with cluster IPs
	headless bool
	hosts    map[string][]netip.Addr // ready endpoints of headless services, by hostname
	targets  []target                // named ports of those endpoints
}

// A port is a named port.
type port struct {
	name, proto string // lower case
	number      uint16
}

// A target is a named port of an endpoint.
type target struct {
	port
	host string
}

// exists reports whether the service's own name does: a headless service
// without ready endpoints has none (2.4.1).
func (s *service) exists() bool { return !s.headless || len(s.hosts) > 0 }

// A zone is the cluster's data. Its methods may be called concurrently.
type zone struct {
	mu         sync.RWMutex
	synced     bool
	services   map[string]*service // by label
	namespaces map[string]bool
	names      map[netip.Addr][]string // for PTR records: fully qualified, sorted

	// What services were made from; only writers use these.
	objects map[Key]*corev1.Service
	slices  *byservice.Slices

	domain string // fully qualified, lower case
}

func newZone(domain string) *zone {
	return &zone{
		services: map[string]*service{}, namespaces: map[string]bool{}, names: map[netip.Addr][]string{},
		objects: map[Key]*corev1.Service{}, slices: byservice.New(),
		domain: domain,
	}
}

func (z *zone) setService(svc *corev1.Service) {
	z.mu.Lock()
	defer z.mu.Unlock()
	k := Key{Namespace: svc.Namespace, Name: svc.Name}
	z.objects[k] = svc
	z.rebuild(k)
}

func (z *zone) deleteService(k Key) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.objects, k)
	z.rebuild(k)
}

func (z *zone) setSlice(s *discoveryv1.EndpointSlice) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, svc := range z.slices.Set(s) {
		z.rebuild(svc)
	}
}

func (z *zone) deleteSlice(k Key) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, svc := range z.slices.Delete(k) {
		z.rebuild(svc)
	}
}

func (z *zone) setNamespace(name string, exists bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if exists {
		z.namespaces[name] = true
	} else {
		delete(z.namespaces, name)
	}
}

// rebuild replaces one service's entry; z.mu is held for writing.
func (z *zone) rebuild(k Key) {
	label := label(k)
	old := z.services[label]
	var now *service
	if obj := z.objects[k]; obj != nil {
		now = newService(obj, z.slices.Of(k))
	}
	z.moveNames(old, now)
	if now == nil {
		delete(z.services, label)
	} else {
		z.services[label] = now
	}
}

// moveNames replaces what PTR records say of old by what they say of now.
func (z *zone) moveNames(old, now *service) {
	was, is := z.reverse(old), z.reverse(now)
	for ip, names := range was {
		if slices.Equal(names, is[ip]) {
			delete(is, ip)
			continue
		}
		left := slices.DeleteFunc(slices.Clone(z.names[ip]), func(n string) bool { return slices.Contains(names, n) })
		if len(left) == 0 {
			delete(z.names, ip)
		} else {
			z.names[ip] = left
		}
	}
	for ip, names := range is {
		// Readers may hold the old list, so it is not appended to.
		all := slices.Concat(z.names[ip], names)
		slices.Sort(all)
		z.names[ip] = slices.Compact(all)
	}
}

// reverse maps a service's addresses to names (2.3.3, 2.4.3).
func (z *zone) reverse(s *service) map[netip.Addr][]string {
	out := map[netip.Addr][]string{}
	if s == nil {
		return out
	}
	name := z.serviceName(s)
	for _, ip := range s.ips {
		out[ip] = []string{name}
	}
	for _, host := range slices.Sorted(maps.Keys(s.hosts)) {
		for _, ip := range s.hosts[host] {
			out[ip] = append(out[ip], host+"."+name)
		}
	}
	return out
}

func (z *zone) serviceName(s *service) string { return label(s.key) + ".svc." + z.domain }

// newService makes a service's entry. It keeps nothing of its arguments.
func newService(obj *corev1.Service, eps []*discoveryv1.EndpointSlice) *service {
	s := &service{key: Key{Namespace: obj.Namespace, Name: obj.Name}}
	switch {
	case obj.Spec.Type == corev1.ServiceTypeExternalName:
		s.external = mdns.Fqdn(obj.Spec.ExternalName)
	case obj.Spec.ClusterIP == corev1.ClusterIPNone:
		s.headless = true
		s.addEndpoints(eps)
	default:
		for _, text := range append([]string{obj.Spec.ClusterIP}, obj.Spec.ClusterIPs...) {
			if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(s.ips, ip) {
				s.ips = append(s.ips, ip)
			}
		}
		for _, p := range obj.Spec.Ports {
			if p.Name != "" {
				s.ports = append(s.ports, port{strings.ToLower(p.Name), protoName(p.Protocol), uint16(p.Port)})
			}
		}
	}
	return s
}

func protoName(p corev1.Protocol) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(string(p))
}

// addEndpoints adds the ready endpoints of a headless service. An endpoint
// without a hostname is known by its address with dashes.
func (s *service) addEndpoints(eps []*discoveryv1.EndpointSlice) {
	s.hosts = map[string][]netip.Addr{}
	seen := map[target]bool{}
	for _, slice := range eps {
		for i := range slice.Endpoints {
			e := &slice.Endpoints[i]
			if e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
				continue
			}
			ip, err := netip.ParseAddr(e.Addresses[0])
			if err != nil {
				continue // a slice of names
			}
			host := dashed(ip)
			if e.Hostname != nil && *e.Hostname != "" {
				host = strings.ToLower(*e.Hostname)
			}
			if !slices.Contains(s.hosts[host], ip) {
				s.hosts[host] = append(s.hosts[host], ip)
			}
			for _, p := range slice.Ports {
				if p.Name == nil || *p.Name == "" || p.Port == nil {
					continue
				}
				proto := corev1.ProtocolTCP
				if p.Protocol != nil {
					proto = *p.Protocol
				}
				seen[target{port{strings.ToLower(*p.Name), protoName(proto), uint16(*p.Port)}, host}] = true
			}
		}
	}
	s.targets = slices.SortedFunc(maps.Keys(seen), func(a, b target) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.proto, b.proto), cmp.Compare(a.host, b.host), cmp.Compare(a.number, b.number))
	})
}

// dashed is an address as one label: 10-42-0-7, or with all its groups
// fd00-0000-…-0007.
func dashed(ip netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(ip.StringExpanded())
}

// undashed reads what dashed wrote, and any other form of the address.
func undashed(label string) (netip.Addr, bool) {
	if strings.Count(label, "-") == 3 {
		if ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ".")); err == nil {
			return ip, true
		}
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	return ip, err == nil && ip.Is6() && ip.Zone() == ""
}
