// Package endpointslice keeps the EndpointSlices of every service that has a
// selector.
package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// Loop is the EndpointSlice controller.
type Loop struct {
	client                        client.Interface
	events                        events.Recorder
	services, pods, nodes, slices *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{
		client: c, events: recorder, services: r.Must("", "services"), pods: r.Must("", "pods"),
		nodes: r.Must("", "nodes"), slices: r.Must("discovery.k8s.io", "endpointslices"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "endpointslice-controller" }

// Sources are services, the pods behind them, and the slices themselves, which
// are mended when somebody changes them.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.services},
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			return controller.ServicesOf(l.client.View(), l.services, old, new)
		}},
		{Resource: l.slices, Keys: controller.KeysOfSlices(managedBy)},
		// Zones are read when a pod changes; no node wakes a service.
		{Resource: l.nodes, Keys: func(_, _ api.Object) []api.Key { return nil }},
	}
}

// Step brings the slices of one service up to date.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	s, ok := view.Get(l.services, key).(*corev1.Service)
	if !ok || s.DeletionTimestamp != nil || len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
		return 0, nil // the collector of garbage takes what a service leaves
	}
	zone := func(node string) string {
		if n := view.Get(l.nodes, api.Key{Name: node}); n != nil {
			return n.GetLabels()[corev1.LabelTopologyZone]
		}
		return ""
	}
	a := plan(s, desired(s, controller.ServicePods(view, l.pods, s), zone), controller.SlicesOf(view, l.slices, key, managedBy))
	err := l.act(ctx, key, a)
	if err != nil && !apierrors.IsConflict(err) {
		l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Service"), s, ""), corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			fmt.Sprintf("Error updating Endpoint Slices for Service %s: %v", key, err))
	}
	return 0, err
}

// act writes new and changed slices before it deletes any, so that an endpoint
// that moves is never missing.
func (l *Loop) act(ctx context.Context, key api.Key, a actions) error {
	var errs []error
	for _, sl := range a.create {
		_, err := l.client.Create(ctx, l.slices, sl, metav1.CreateOptions{})
		if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			errs = append(errs, fmt.Errorf("create endpoint slice of service %s: %w", key, err))
		}
	}
	for _, sl := range a.update {
		if _, err := l.client.Update(ctx, l.slices, sl, ""); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("update endpoint slice %s of service %s: %w", sl.Name, key, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, sl := range a.delete {
		if err := l.client.Delete(ctx, api.RefTo(l.slices, sl), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete endpoint slice %s of service %s: %w", sl.Name, key, err))
		}
	}
	return errors.Join(errs...)
}
