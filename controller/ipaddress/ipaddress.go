// Package ipaddress keeps services and their claims to addresses together: each
// address of a service has its IPAddress, and each IPAddress of the allocator
// its service. Both are written in one transaction, so what is found apart was
// taken apart by somebody.
package ipaddress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// Name is what the loop is called in events.
const Name = "ipallocator-repair-controller"

var (
	serviceKind = corev1.SchemeGroupVersion.WithKind("Service")
	claimKind   = networkingv1.SchemeGroupVersion.WithKind("IPAddress")
)

// Loop is the repair of IPAddresses. It is a part of the API server and acts as
// that.
type Loop struct {
	client                   client.Interface
	events                   events.Recorder
	services, claims, ranges *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{
		client: c, events: recorder,
		services: c.Registry().Must("", "services"),
		claims:   c.Registry().Must("networking.k8s.io", "ipaddresses"),
		ranges:   c.Registry().Must("networking.k8s.io", "servicecidrs"),
	}
}

// Name is the loop's name.
func (l *Loop) Name() string { return Name }

// Sources are services, by their keys, and claims, whose keys have no namespace.
// A claim wakes its service too, and a service what it claimed.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.services, Keys: func(old, new api.Object) []api.Key {
			var keys []api.Key
			if new != nil {
				keys = append(keys, api.Key{Namespace: new.GetNamespace(), Name: new.GetName()})
			}
			if old != nil && (new == nil || !slices.Equal(addressesOf(old.(*corev1.Service)), addressesOf(new.(*corev1.Service)))) {
				keys = append(keys, claimKeys(old)...)
			}
			return keys
		}},
		{Resource: l.claims, Keys: func(old, new api.Object) []api.Key {
			var keys []api.Key
			for _, o := range []api.Object{old, new} {
				if claim, ok := o.(*networkingv1.IPAddress); ok {
					keys = append(keys, api.Key{Name: claim.Name})
					if toService(claim) {
						keys = append(keys, api.Key{Namespace: claim.Spec.ParentRef.Namespace, Name: claim.Spec.ParentRef.Name})
					}
				}
			}
			return keys
		}},
		{Resource: l.ranges, Keys: func(old, new api.Object) []api.Key {
			if old != nil && new != nil {
				return nil
			}
			var keys []api.Key
			for o := range l.client.View().List(l.services, "") {
				keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
			}
			return keys
		}},
	}
}

func claimKeys(s api.Object) []api.Key {
	var keys []api.Key
	for _, ip := range addressesOf(s.(*corev1.Service)) {
		keys = append(keys, api.Key{Name: ip})
	}
	return keys
}

// Step looks at one service or at one claim.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	w := seen{l, view}
	if key.Namespace == "" {
		claim := w.claim(key.Name)
		if claim == nil {
			return 0, nil
		}
		if r, wrong := planClaim(claim, w); wrong {
			return 0, l.clean(ctx, claim, r)
		}
		return 0, nil
	}
	s := w.service(key.Namespace, key.Name)
	if s == nil {
		return 0, nil
	}
	return 0, l.look(ctx, s)
}

// look repairs the claims of a service.
func (l *Loop) look(ctx context.Context, s *corev1.Service) error {
	for _, r := range planService(s, seen{l, l.client.View()}) {
		if err := l.repair(ctx, s, r); err != nil {
			return err
		}
	}
	return nil
}

// clean removes a claim that is not its service's, and lets the service whose
// address it is have another.
func (l *Loop) clean(ctx context.Context, claim *networkingv1.IPAddress, r repair) error {
	l.events.Event(events.About(claimKind, claim, ""), corev1.EventTypeWarning, r.reason, r.message)
	if err := l.remove(ctx, claim); err != nil {
		return err
	}
	for o := range l.client.View().List(l.services, "") {
		if s := o.(*corev1.Service); slices.Contains(addressesOf(s), claim.Name) {
			return l.look(ctx, s)
		}
	}
	return nil
}

// repair gives a service the claim that it should have.
func (l *Loop) repair(ctx context.Context, s *corev1.Service, r repair) error {
	if r.make != nil {
		// The view may show a service that was deleted together with its claim.
		now, err := l.client.Get(ctx, api.RefTo(l.services, s))
		if apierrors.IsNotFound(err) || err == nil && !slices.Contains(addressesOf(now.(*corev1.Service)), r.make.Name) {
			return nil
		} else if err != nil {
			return fmt.Errorf("repair %s: %w", api.RefTo(l.services, s), err)
		}
	}
	if r.reason != "" {
		l.events.Event(events.About(serviceKind, s, ""), corev1.EventTypeWarning, r.reason, r.message)
	}
	if r.make == nil {
		return nil
	}
	if have := (seen{l, l.client.View()}).claim(r.make.Name); have != nil {
		if err := l.remove(ctx, have); err != nil {
			return err
		}
	}
	if _, err := l.client.Create(ctx, l.claims, r.make, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("claim %s for service %s/%s: %w", r.make.Name, s.Namespace, s.Name, err)
	}
	return nil
}

func (l *Loop) remove(ctx context.Context, claim *networkingv1.IPAddress) error {
	err := l.client.Delete(ctx, api.RefTo(l.claims, claim), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &claim.UID, ResourceVersion: &claim.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove claim %s: %w", claim.Name, err)
	}
	return nil
}

// seen is the world as the view shows it.
type seen struct {
	*Loop
	view client.View
}

func (w seen) claim(ip string) *networkingv1.IPAddress {
	claim, _ := w.view.Get(w.claims, api.Key{Name: ip}).(*networkingv1.IPAddress)
	return claim
}

func (w seen) service(namespace, name string) *corev1.Service {
	s, _ := w.view.Get(w.services, api.Key{Namespace: namespace, Name: name}).(*corev1.Service)
	return s
}

func (w seen) ranged(ip netip.Addr) bool {
	for o := range w.view.List(w.ranges, "") {
		for _, text := range o.(*networkingv1.ServiceCIDR).Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil && kinds.RangeContains(p, ip) {
				return true
			}
		}
	}
	return false
}
