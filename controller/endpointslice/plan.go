package endpointslice

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// perSlice is the most endpoints that a slice of ours holds, as upstream.
const perSlice = 100

// managedBy marks the slices that are ours.
const managedBy = "endpointslice-controller.k8s.io"

// group is endpoints that share their ports; pods whose named ports differ are
// in different groups.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints map[string]discoveryv1.Endpoint // by pod uid
}

// actions bring the slices to what they should be. Objects are fresh.
type actions struct {
	create, update, delete []*discoveryv1.EndpointSlice
}

// endpointOf is a pod as an endpoint of a service.
func endpointOf(s *corev1.Service, p *corev1.Pod, zone string) discoveryv1.Endpoint {
	serving, terminating := podstate.Ready(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{p.Status.PodIP},
		Conditions: discoveryv1.EndpointConditions{
			Ready:       ptr.To(s.Spec.PublishNotReadyAddresses || serving && !terminating),
			Serving:     &serving,
			Terminating: &terminating,
		},
		TargetRef: controller.PodReference(p),
	}
	if h := controller.HostnameFor(s, p); h != "" {
		e.Hostname = &h
	}
	if p.Spec.NodeName != "" {
		e.NodeName = &p.Spec.NodeName
	}
	if zone != "" {
		e.Zone = &zone
	}
	e.Hints = hintsOf(s, p.Spec.NodeName, zone)
	return e
}

// portsOf are the ports of a service as a pod has them. A named port that the
// pod lacks is left out.
func portsOf(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	ports := []discoveryv1.EndpointPort{}
	for i := range s.Spec.Ports {
		sp := &s.Spec.Ports[i]
		n, err := controller.TargetPort(p, sp)
		if err != nil {
			continue
		}
		ports = append(ports, discoveryv1.EndpointPort{Name: ptr.To(sp.Name), Port: &n, Protocol: ptr.To(sp.Protocol), AppProtocol: sp.AppProtocol})
	}
	return ports
}

// hintsOf say for whom an endpoint is, when the service asks that traffic stay
// near (trafficDistribution).
func hintsOf(s *corev1.Service, node, zone string) *discoveryv1.EndpointHints {
	var h discoveryv1.EndpointHints
	switch ptr.Deref(s.Spec.TrafficDistribution, "") {
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if node != "" {
			h.ForNodes = []discoveryv1.ForNode{{Name: node}}
		}
		fallthrough
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		if zone != "" {
			h.ForZones = []discoveryv1.ForZone{{Name: zone}}
		}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return &h
}

// desired sorts a service's pods into groups by their ports.
func desired(s *corev1.Service, pods []*corev1.Pod, zoneOf func(node string) string) map[string]*group {
	groups := map[string]*group{}
	for _, p := range pods {
		ports := portsOf(s, p)
		key := controller.PortsKey(ports)
		g := groups[key]
		if g == nil {
			g = &group{ports: ports, endpoints: map[string]discoveryv1.Endpoint{}}
			groups[key] = g
		}
		g.endpoints[string(p.UID)] = endpointOf(s, p, zoneOf(p.Spec.NodeName))
	}
	return groups
}

// plan changes as few slices as it can (documentation: "EndpointSlices",
// "Distribution of EndpointSlices"). A service without endpoints keeps one empty
// slice, so that "none" can be told from "not known yet".
func plan(s *corev1.Service, groups map[string]*group, existing []*discoveryv1.EndpointSlice) actions {
	var a actions
	byPorts := map[string][]*discoveryv1.EndpointSlice{}
	for _, sl := range existing {
		if sl.AddressType != discoveryv1.AddressTypeIPv4 || !metav1.IsControlledBy(sl, s) {
			a.delete = append(a.delete, sl)
			continue
		}
		byPorts[controller.PortsKey(sl.Ports)] = append(byPorts[controller.PortsKey(sl.Ports)], sl)
	}
	if len(groups) == 0 {
		groups = map[string]*group{"": {ports: []discoveryv1.EndpointPort{}}}
	}
	var unused []*discoveryv1.EndpointSlice
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		unused = append(unused, a.fit(s, groups[key], byPorts[key])...)
		delete(byPorts, key)
	}
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		unused = append(unused, byPorts[key]...)
	}
	a.recycle(unused)
	return a
}

// filling is a slice with what it is to hold.
type filling struct {
	was     *discoveryv1.EndpointSlice
	now     *discoveryv1.EndpointSlice
	changed bool
}

func (f *filling) room() int { return max(0, perSlice-len(f.now.Endpoints)) }

// fill moves as many endpoints as there is room for.
func (f *filling) fill(missing []discoveryv1.Endpoint) (left []discoveryv1.Endpoint) {
	n := min(len(missing), f.room())
	f.now.Endpoints = append(f.now.Endpoints, missing[:n]...)
	f.changed = f.changed || n > 0
	return missing[n:]
}

// fit places one group: endpoints stay where they are; new ones go into slices
// that change anyway; what is left then goes into the fullest slice that takes
// all of it, or else into new ones: one creation is better than two updates. It
// answers with the slices that are left over.
func (a *actions) fit(s *corev1.Service, g *group, existing []*discoveryv1.EndpointSlice) (unused []*discoveryv1.EndpointSlice) {
	slices.SortFunc(existing, func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	kept, missing := stay(s, g, existing)
	fullestFirst := func(x, y *filling) int { return cmp.Compare(x.room(), y.room()) }
	slices.SortStableFunc(kept, fullestFirst)
	for _, f := range kept {
		if f.changed && len(f.now.Endpoints) > 0 {
			missing = f.fill(missing)
		}
	}
	for _, f := range kept {
		if !f.changed && len(missing) > 0 && f.room() >= len(missing) {
			missing = f.fill(missing)
		}
	}
	some := false
	for _, f := range kept {
		some = some || len(f.now.Endpoints) > 0
	}
	for len(missing) > 0 || !some {
		f := &filling{now: newSlice(s, g.ports)}
		missing = f.fill(missing)
		a.create = append(a.create, f.now)
		some = true
	}
	for _, f := range kept {
		switch {
		case len(f.now.Endpoints) == 0:
			unused = append(unused, f.was)
		case f.changed:
			a.update = append(a.update, f.now)
		}
	}
	return unused
}

// stay leaves endpoints where they are, up to date, and answers with those that
// have no place yet.
func stay(s *corev1.Service, g *group, existing []*discoveryv1.EndpointSlice) (kept []*filling, missing []discoveryv1.Endpoint) {
	placed := map[string]bool{}
	for _, sl := range existing {
		f := &filling{was: sl, now: sl.DeepCopy()}
		f.now.Endpoints = f.now.Endpoints[:0]
		for _, e := range sl.Endpoints {
			uid := uidOf(e)
			if want, ok := g.endpoints[uid]; ok && !placed[uid] && f.room() > 0 {
				placed[uid] = true
				f.now.Endpoints = append(f.now.Endpoints, want)
			}
		}
		decorate(f.now, s)
		f.changed = !equality.Semantic.DeepEqual(f.now, sl)
		kept = append(kept, f)
	}
	for _, uid := range slices.Sorted(maps.Keys(g.endpoints)) {
		if !placed[uid] {
			missing = append(missing, g.endpoints[uid])
		}
	}
	return kept, missing
}

// recycle makes new slices of those that are not used any more, and deletes the
// rest. A slice that is as a new one would be stays.
func (a *actions) recycle(unused []*discoveryv1.EndpointSlice) {
	for i, n := range a.create {
		if i == len(unused) {
			a.create = a.create[i:]
			return
		}
		meta := unused[i].ObjectMeta.DeepCopy()
		meta.Labels = n.Labels
		n.ObjectMeta = *meta
		if !equality.Semantic.DeepEqual(n, unused[i]) {
			a.update = append(a.update, n)
		}
	}
	a.delete = append(a.delete, unused[min(len(a.create), len(unused)):]...)
	a.create = nil
}

func uidOf(e discoveryv1.Endpoint) string {
	if e.TargetRef == nil {
		return ""
	}
	return string(e.TargetRef.UID)
}

func newSlice(s *corev1.Service, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	sl := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, GenerateName: s.Name + "-",
			OwnerReferences: []metav1.OwnerReference{controller.ServiceOwner(s)},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       ports,
		Endpoints:   []discoveryv1.Endpoint{},
	}
	decorate(sl, s)
	return sl
}

// decorate gives a slice the labels of its service, and its own.
func decorate(sl *discoveryv1.EndpointSlice, s *corev1.Service) {
	l := map[string]string{}
	for k, v := range s.Labels {
		if !strings.HasPrefix(k, "endpointslice.kubernetes.io/") && k != corev1.IsHeadlessService && k != discoveryv1.LabelServiceName {
			l[k] = v
		}
	}
	l[discoveryv1.LabelServiceName] = s.Name
	l[discoveryv1.LabelManagedBy] = managedBy
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	sl.Labels = l
}
