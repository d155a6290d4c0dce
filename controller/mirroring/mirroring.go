// Package mirroring copies the Endpoints that somebody wrote for a service
// without a selector into EndpointSlices, which is what the network reads
// (documentation: "EndpointSlices", "EndpointSlice mirroring").
package mirroring

import (
	"context"
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

// Loop is the EndpointSlice mirroring controller; its keys are Endpoints.
type Loop struct {
	client                      client.Interface
	events                      events.Recorder
	services, endpoints, slices *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, services: r.Must("", "services"), endpoints: r.Must("", "endpoints"), slices: r.Must("discovery.k8s.io", "endpointslices")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "endpointslicemirroring-controller" }

// Sources are Endpoints, services of their name, and the mirrored slices, which
// are mended when somebody changes them.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.endpoints},
		{Resource: l.services},
		{Resource: l.slices, Keys: controller.KeysOfSlices(managedBy)},
	}
}

// Step brings the slices that mirror one Endpoints object up to date.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	e, _ := view.Get(l.endpoints, key).(*corev1.Endpoints)
	s, _ := view.Get(l.services, key).(*corev1.Service)
	if e != nil && e.DeletionTimestamp != nil {
		return 0, nil // the collector of garbage takes what it leaves
	}
	existing := controller.SlicesOf(view, l.slices, key, managedBy)
	a := actions{delete: existing}
	if mirrored(e, s) {
		var skipped int
		if a, skipped = plan(e, existing); skipped > 0 && len(a.create)+len(a.update) > 0 {
			l.events.Event(events.About(corev1.SchemeGroupVersion.WithKind("Endpoints"), e, ""), corev1.EventTypeWarning, "TooManyAddressesToMirror",
				fmt.Sprintf("A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", perSubset, skipped))
		}
	}
	return 0, l.act(ctx, key, a)
}

func (l *Loop) act(ctx context.Context, key api.Key, a actions) error {
	for _, sl := range a.create {
		_, err := l.client.Create(ctx, l.slices, sl, metav1.CreateOptions{})
		if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("create EndpointSlice for Endpoints %s: %w", key, err)
		}
	}
	for _, sl := range a.update {
		if _, err := l.client.Update(ctx, l.slices, sl, ""); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("update EndpointSlice %s for Endpoints %s: %w", sl.Name, key, err)
		}
	}
	for _, sl := range a.delete {
		err := l.client.Delete(ctx, api.RefTo(l.slices, sl), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &sl.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete EndpointSlice %s for Endpoints %s: %w", sl.Name, key, err)
		}
	}
	return nil
}
