package endpointslice

import (
	"cmp"
	"fmt"
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
	return e
}

// portsOf are the ports of a service as a pod has them. A named port that the
// pod lacks is left out.
func portsOf(s *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	var ports []discoveryv1.EndpointPort
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

func portsKey(ports []discoveryv1.EndpointPort) string {
	keys := make([]string, 0, len(ports))
	for _, p := range ports {
		keys = append(keys, fmt.Sprintf("%s/%d/%s/%s", ptr.Deref(p.Name, ""), ptr.Deref(p.Port, 0), ptr.Deref(p.Protocol, ""), ptr.Deref(p.AppProtocol, "")))
	}
	slices.Sort(keys)
	return strings.Join(keys, ",")
}

// desired sorts a service's pods into groups by their ports.
func desired(s *corev1.Service, pods []*corev1.Pod, zoneOf func(node string) string) map[string]*group {
	groups := map[string]*group{}
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	for _, p := range pods {
		ports := portsOf(s, p)
		if len(ports) == 0 && (!headless || len(s.Spec.Ports) > 0) {
			continue
		}
		key := portsKey(ports)
		g := groups[key]
		if g == nil {
			g = &group{ports: ports, endpoints: map[string]discoveryv1.Endpoint{}}
			groups[key] = g
		}
		g.endpoints[string(p.UID)] = endpointOf(s, p, zoneOf(p.Spec.NodeName))
	}
	return groups
}

// plan changes as few slices as it can: an endpoint stays in its slice, new ones
// fill slices that change anyway or have room, and only then new slices are
// made. A service without endpoints keeps one empty slice, so that "none" can
// be told from "not known yet".
func plan(s *corev1.Service, groups map[string]*group, existing []*discoveryv1.EndpointSlice) actions {
	var a actions
	byPorts := map[string][]*discoveryv1.EndpointSlice{}
	for _, sl := range existing {
		if sl.AddressType != discoveryv1.AddressTypeIPv4 {
			a.delete = append(a.delete, sl)
			continue
		}
		byPorts[portsKey(sl.Ports)] = append(byPorts[portsKey(sl.Ports)], sl)
	}
	if len(groups) == 0 {
		groups = map[string]*group{"": {}}
	}
	for key, g := range groups {
		a.fit(s, g, byPorts[key])
		delete(byPorts, key)
	}
	for _, left := range byPorts {
		a.delete = append(a.delete, left...)
	}
	return a
}

// fit places one group into the slices that have its ports.
func (a *actions) fit(s *corev1.Service, g *group, existing []*discoveryv1.EndpointSlice) {
	slices.SortFunc(existing, func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	placed := map[string]bool{}
	next := make([]*discoveryv1.EndpointSlice, len(existing))
	for i, sl := range existing {
		n := sl.DeepCopy()
		n.Endpoints = n.Endpoints[:0]
		for _, e := range sl.Endpoints {
			uid := uidOf(e)
			if want, ok := g.endpoints[uid]; ok && !placed[uid] {
				placed[uid] = true
				n.Endpoints = append(n.Endpoints, want)
			}
		}
		decorate(n, s)
		next[i] = n
	}
	var missing []discoveryv1.Endpoint
	for _, uid := range slices.Sorted(maps.Keys(g.endpoints)) {
		if !placed[uid] {
			missing = append(missing, g.endpoints[uid])
		}
	}
	// Slices that change anyway come first, then the fullest.
	order := slices.Clone(next)
	slices.SortStableFunc(order, func(x, y *discoveryv1.EndpointSlice) int { return cmp.Compare(len(y.Endpoints), len(x.Endpoints)) })
	for _, n := range order {
		take := min(len(missing), perSlice-len(n.Endpoints))
		n.Endpoints = append(n.Endpoints, missing[:take]...)
		missing = missing[take:]
	}
	for len(missing) > 0 || len(next) == 0 {
		n := newSlice(s, g.ports)
		take := min(len(missing), perSlice)
		n.Endpoints = append(n.Endpoints, missing[:take]...)
		missing = missing[take:]
		next = append(next, n)
		a.create = append(a.create, n)
	}
	kept := 0
	for i, sl := range existing {
		n := next[i]
		if len(n.Endpoints) == 0 && (kept > 0 || i < len(next)-1) {
			a.delete = append(a.delete, sl)
			continue
		}
		kept++
		if !equality.Semantic.DeepEqual(n, sl) {
			a.update = append(a.update, n)
		}
	}
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
