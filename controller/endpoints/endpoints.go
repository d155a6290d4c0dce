// Package endpoints keeps the Endpoints object of every service that has a
// selector: the older form of EndpointSlices, which some clients still read.
package endpoints

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// most is the number of addresses that an Endpoints object may have; beyond it
// the object is cut and says so.
const most = 1000

// managedByLabel tells our objects from those that people write.
const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
)

// Loop is the Endpoints controller.
type Loop struct {
	client                    client.Interface
	events                    events.Recorder
	services, pods, endpoints *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, services: r.Must("", "services"), pods: r.Must("", "pods"), endpoints: r.Must("", "endpoints")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "endpoint-controller" }

// leftPrefix before a service's name makes the key under which its Endpoints are
// looked at when it was deleted, whoever wrote them. Without it, Endpoints that
// somebody made by hand may still wait for their service.
const leftPrefix = "left/"

// Sources are services, the pods behind them, and the objects themselves.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.services, Keys: func(old, new api.Object) []api.Key {
			if new == nil {
				return []api.Key{{Namespace: old.GetNamespace(), Name: leftPrefix + old.GetName()}}
			}
			return []api.Key{{Namespace: new.GetNamespace(), Name: new.GetName()}}
		}},
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			return controller.ServicesOf(l.client.View(), l.services, old, new)
		}},
		{Resource: l.endpoints},
	}
}

// Step brings one Endpoints object up to date with its service, and removes it
// with the service.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	name, left := strings.CutPrefix(key.Name, leftPrefix)
	key.Name = name
	have, _ := view.Get(l.endpoints, key).(*corev1.Endpoints)
	s, ok := view.Get(l.services, key).(*corev1.Service)
	if !ok {
		if have == nil || !left && have.Labels[managedByLabel] != managedBy {
			return 0, nil
		}
		err := l.client.Delete(ctx, api.RefTo(l.endpoints, have), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("delete endpoints of service %s: %w", key, err)
		}
		return 0, nil
	}
	if s.DeletionTimestamp != nil || len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
		return 0, nil
	}
	want := plan(s, controller.ServicePods(view, l.pods, s), have)
	switch {
	case have == nil:
		about := l.about(want)
		_, err := l.client.Create(ctx, l.endpoints, want, metav1.CreateOptions{})
		if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			l.events.Event(about, corev1.EventTypeWarning, "FailedToCreateEndpoint", fmt.Sprintf("Failed to create endpoint for service %s: %v", key, err))
			return 0, fmt.Errorf("create endpoints of service %s: %w", key, err)
		}
	case !equality.Semantic.DeepEqual(want, have):
		if _, err := l.client.Update(ctx, l.endpoints, want, ""); err != nil && !apierrors.IsNotFound(err) {
			if !apierrors.IsConflict(err) {
				l.events.Event(l.about(have), corev1.EventTypeWarning, "FailedToUpdateEndpoint", fmt.Sprintf("Failed to update endpoint %s: %v", key, err))
			}
			return 0, fmt.Errorf("update endpoints of service %s: %w", key, err)
		}
	}
	return 0, nil
}

func (l *Loop) about(e *corev1.Endpoints) corev1.ObjectReference {
	return events.About(corev1.SchemeGroupVersion.WithKind("Endpoints"), e, "")
}

// plan is the object as it should be; what it has beyond that stays.
func plan(s *corev1.Service, pods []*corev1.Pod, have *corev1.Endpoints) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if have != nil {
		e = have.DeepCopy()
	}
	e.Labels = map[string]string{}
	for k, v := range s.Labels {
		if k != corev1.IsHeadlessService {
			e.Labels[k] = v
		}
	}
	e.Labels[managedByLabel] = managedBy
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		e.Labels[corev1.IsHeadlessService] = ""
	}
	subs := subsets(s, pods)
	if count(subs) > most {
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		e.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	} else {
		delete(e.Annotations, corev1.EndpointsOverCapacity)
	}
	e.Subsets = cut(subs)
	return e
}

// subsets groups the pods by the ports they offer, in canonical order.
func subsets(s *corev1.Service, pods []*corev1.Pod) []corev1.EndpointSubset {
	byPorts := map[string]*corev1.EndpointSubset{}
	for _, p := range pods {
		var ports []corev1.EndpointPort
		for i := range s.Spec.Ports {
			sp := &s.Spec.Ports[i]
			if n, err := controller.TargetPort(p, sp); err == nil {
				ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
			}
		}
		if len(ports) == 0 && (s.Spec.ClusterIP != corev1.ClusterIPNone || len(s.Spec.Ports) > 0) {
			continue
		}
		slices.SortFunc(ports, func(a, b corev1.EndpointPort) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Protocol), string(b.Protocol)))
		})
		var key string
		for _, port := range ports {
			key += fmt.Sprintf("%s/%d/%s,", port.Name, port.Port, port.Protocol)
		}
		sub := byPorts[key]
		if sub == nil {
			sub = &corev1.EndpointSubset{Ports: ports}
			byPorts[key] = sub
		}
		a := corev1.EndpointAddress{IP: p.Status.PodIP, TargetRef: controller.PodReference(p), Hostname: controller.HostnameFor(s, p)}
		if p.Spec.NodeName != "" {
			a.NodeName = &p.Spec.NodeName
		}
		switch {
		case s.Spec.PublishNotReadyAddresses || podstate.Ready(p) && p.DeletionTimestamp == nil:
			sub.Addresses = append(sub.Addresses, a)
		case p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodFailed:
			sub.NotReadyAddresses = append(sub.NotReadyAddresses, a)
		}
	}
	var out []corev1.EndpointSubset
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		sub := byPorts[key]
		if len(sub.Addresses)+len(sub.NotReadyAddresses) == 0 {
			continue
		}
		byIP := func(a, b corev1.EndpointAddress) int { return strings.Compare(a.IP, b.IP) }
		slices.SortFunc(sub.Addresses, byIP)
		slices.SortFunc(sub.NotReadyAddresses, byIP)
		out = append(out, *sub)
	}
	return out
}

func count(subs []corev1.EndpointSubset) int {
	n := 0
	for _, s := range subs {
		n += len(s.Addresses) + len(s.NotReadyAddresses)
	}
	return n
}

// cut leaves the first of the addresses, ready ones before others.
func cut(subs []corev1.EndpointSubset) []corev1.EndpointSubset {
	left := most
	for i := range subs {
		n := min(left, len(subs[i].Addresses))
		subs[i].Addresses = subs[i].Addresses[:n]
		left -= n
	}
	for i := range subs {
		n := min(left, len(subs[i].NotReadyAddresses))
		subs[i].NotReadyAddresses = subs[i].NotReadyAddresses[:n]
		left -= n
	}
	return slices.DeleteFunc(subs, func(s corev1.EndpointSubset) bool { return len(s.Addresses)+len(s.NotReadyAddresses) == 0 })
}
