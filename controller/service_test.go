package controller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/endpoints"
	"hansa.dev/hansa/controller/endpointslice"
	"hansa.dev/hansa/controller/mirroring"
)

func endpointSlices(c client.Interface, r events.Recorder) controller.Loop {
	return endpointslice.New(c, r)
}
func endpointsOf(c client.Interface, r events.Recorder) controller.Loop { return endpoints.New(c, r) }
func mirrors(c client.Interface, r events.Recorder) controller.Loop     { return mirroring.New(c, r) }

func aService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"l": "v"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, // its address does not matter here
			Selector:  map[string]string{"app": name},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("web")},
				{Name: "a", Port: 81},
			},
		},
	}
}

// backend makes a ready pod of a service with an address.
func (w *world) backend(service, name, ip string) *corev1.Pod {
	w.Helper()
	t := template(map[string]string{"app": service}, "one")
	t.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}
	p := w.runs(create(w, aPod(name, t)))
	return update(w, p, "status", func(p *corev1.Pod) {
		p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	})
}

func (w *world) slices() []*discoveryv1.EndpointSlice {
	return all[*discoveryv1.EndpointSlice](w, "default")
}

// backends are the ready addresses of a service, from its slices.
func (w *world) backends() (ready []string) {
	for _, sl := range w.slices() {
		for _, e := range sl.Endpoints {
			if *e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	slices.Sort(ready)
	return ready
}

func (w *world) addresses(name string) (ready, notReady []string) {
	e := get[*corev1.Endpoints](w, "default", name)
	if e == nil {
		return nil, nil
	}
	for _, s := range e.Subsets {
		for _, a := range s.Addresses {
			ready = append(ready, a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			notReady = append(notReady, a.IP)
		}
	}
	return ready, notReady
}

func (w *world) wantBackends(ready, notReady []string) {
	w.Helper()
	if got := w.backends(); !slices.Equal(got, ready) {
		w.Errorf("ready in slices: %v, want %v", got, ready)
	}
	if r, n := w.addresses("web"); !slices.Equal(r, ready) || !slices.Equal(n, notReady) {
		w.Errorf("ready %v and not %v in endpoints, want %v and %v", r, n, ready, notReady)
	}
}

func services(t *testing.T) *world {
	w := newWorld(t)
	w.run(endpointSlices)
	w.run(endpointsOf)
	w.run(collector)
	return w
}

// Documentation: "Service", "EndpointSlices".
func TestEndpointsFollowPods(t *testing.T) {
	w := services(t)
	s := create(w, aService("web"))
	w.settle()
	if len(w.slices()) != 1 || get[*corev1.Endpoints](w, "default", "web") == nil {
		t.Fatalf("%d slices for a service without pods", len(w.slices()))
	}
	w.rests()
	b := w.backend("web", "b", "10.42.0.2")
	a := w.backend("web", "a", "10.42.0.1")
	w.backend("other", "c", "10.42.0.3")
	w.settle()
	w.wantBackends([]string{"10.42.0.1", "10.42.0.2"}, nil)
	sl := w.slices()[0]
	if _, ok := sl.Labels[corev1.IsHeadlessService]; !ok || sl.Labels["l"] != "v" || sl.Labels[discoveryv1.LabelServiceName] != "web" || *sl.Ports[0].Port != 8080 {
		t.Errorf("slice = %+v", sl)
	}
	w.rests()

	update(w, a, "status", func(p *corev1.Pod) { setReady(p, false, w.stamp()) })
	w.settle()
	w.wantBackends([]string{"10.42.0.2"}, []string{"10.42.0.1"})

	remove(w, b, metav1.DeleteOptions{})
	w.settle()
	w.wantBackends(nil, []string{"10.42.0.1"})
	w.rests()
	w.gone(b)
	update(w, s, "", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true })
	w.settle()
	w.wantBackends([]string{"10.42.0.1"}, nil)

	w.exits(a, 0)
	w.settle()
	w.wantBackends(nil, nil)
	w.rests()

	remove(w, s, metav1.DeleteOptions{})
	w.settle()
	if len(w.slices()) != 0 || get[*corev1.Endpoints](w, "default", "web") != nil {
		t.Errorf("%d slices are left", len(w.slices()))
	}
	w.rests()
}

// What others do to our objects is mended.
func TestEndpointsAreMended(t *testing.T) {
	w := services(t)
	create(w, aService("web"))
	w.backend("web", "a", "10.42.0.1")
	w.settle()
	update(w, w.slices()[0], "", func(sl *discoveryv1.EndpointSlice) { sl.Endpoints, sl.OwnerReferences = nil, nil })
	remove(w, get[*corev1.Endpoints](w, "default", "web"), metav1.DeleteOptions{})
	w.settle()
	w.wantBackends([]string{"10.42.0.1"}, nil)
	if len(w.slices()) != 1 {
		t.Errorf("%d slices", len(w.slices()))
	}
	w.rests()
}

// Documentation: "EndpointSlices", "EndpointSlice mirroring". A service without
// a selector is its owner's own business: what he writes is mirrored.
func TestEndpointsOfOthersAreMirrored(t *testing.T) {
	w := services(t)
	w.run(mirrors)
	s := aService("web")
	s.Spec.Selector = nil
	e := create(w, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"own": "yes"}}, Subsets: []corev1.EndpointSubset{{
		Addresses:         []corev1.EndpointAddress{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}},
		NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.2"}},
		Ports:             []corev1.EndpointPort{{Name: "http", Port: 80}},
	}}})
	w.settle()
	if len(w.slices()) != 0 {
		t.Errorf("%d slices before there is a service", len(w.slices()))
	}
	s = create(w, s)
	w.settle()
	if got := w.backends(); !slices.Equal(got, []string{"192.0.2.1", "2001:db8::1"}) || len(w.slices()) != 2 {
		t.Errorf("ready %v in %d slices", got, len(w.slices()))
	}
	sl := w.slices()[0]
	if sl.Labels["own"] != "yes" || sl.Labels[discoveryv1.LabelServiceName] != "web" ||
		sl.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" || !metav1.IsControlledBy(sl, e) || *sl.Ports[0].Port != 80 {
		t.Errorf("slice %+v", sl)
	}
	w.rests()

	// The mirror follows, and is mended.
	remove(w, sl, metav1.DeleteOptions{})
	update(w, e, "", func(e *corev1.Endpoints) {
		e.Subsets[0].Addresses, e.Subsets[0].NotReadyAddresses = []corev1.EndpointAddress{{IP: "192.0.2.2"}}, nil
	})
	w.settle()
	if got := w.backends(); !slices.Equal(got, []string{"192.0.2.2"}) || len(w.slices()) != 1 {
		t.Errorf("ready %v in %d slices", got, len(w.slices()))
	}
	update(w, e, "", func(e *corev1.Endpoints) { e.Labels[discoveryv1.LabelSkipMirror] = "true" })
	w.settle()
	if len(w.slices()) != 0 {
		t.Errorf("%d slices of Endpoints that are not to be mirrored", len(w.slices()))
	}
	update(w, e, "", func(e *corev1.Endpoints) { delete(e.Labels, discoveryv1.LabelSkipMirror) })
	w.settle()
	w.rests()

	remove(w, s, metav1.DeleteOptions{})
	w.settle()
	if get[*corev1.Endpoints](w, "default", "web") != nil || len(w.slices()) != 0 {
		t.Error("the endpoints outlive their service")
	}
	w.rests()
}

// More addresses than are mirrored are told of once.
func TestTooManyAddressesToMirror(t *testing.T) {
	w := newWorld(t)
	w.run(mirrors)
	s := aService("web")
	s.Spec.Selector = nil
	create(w, s)
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Subsets: []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Port: 80}}}}}
	for i := range 1003 {
		e.Subsets[0].Addresses = append(e.Subsets[0].Addresses, corev1.EndpointAddress{IP: fmt.Sprintf("192.0.%d.%d", i/250, i%250+1)})
	}
	create(w, e)
	w.settle()
	if n := len(w.backends()); n != 1000 || len(w.slices()) != 1 {
		t.Errorf("%d endpoints in %d slices", n, len(w.slices()))
	}
	w.said("Warning TooManyAddressesToMirror A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 addresses were skipped")
	w.rests()
	if len(w.events) > 0 {
		t.Errorf("said again: %v", w.events)
	}
}

// Documentation: "Service", "Over-capacity endpoints": 1000 addresses.
func TestManyEndpoints(t *testing.T) {
	w := services(t)
	create(w, aService("web"))
	for i := range 1010 {
		w.backend("web", fmt.Sprintf("p%04d", i), fmt.Sprintf("10.42.%d.%d", i/250, i%250+1))
	}
	w.settle()
	e := get[*corev1.Endpoints](w, "default", "web")
	if r, _ := w.addresses("web"); len(r) != 1000 || e.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
		t.Errorf("%d addresses, annotations %v", len(r), e.Annotations)
	}
	if n := len(w.backends()); n != 1010 || len(w.slices()) != 11 {
		t.Errorf("%d endpoints in %d slices", n, len(w.slices()))
	}
	w.rests()
}

// refusing is a client whose first writes are refused.
type refusing struct {
	client.Interface
	left int
}

func (r *refusing) refusal() error {
	if r.left--; r.left >= 0 {
		return apierrors.NewForbidden(corev1.Resource("things"), "web", errors.New("no"))
	}
	return nil
}

func (r *refusing) Create(ctx context.Context, row *api.Resource, obj api.Object, opts metav1.CreateOptions) (api.Object, error) {
	if err := r.refusal(); err != nil {
		return nil, err
	}
	return r.Interface.Create(ctx, row, obj, opts)
}

func (r *refusing) Update(ctx context.Context, row *api.Resource, obj api.Object, subresource string) (api.Object, error) {
	if err := r.refusal(); err != nil {
		return nil, err
	}
	return r.Interface.Update(ctx, row, obj, subresource)
}

// Endpoints that cannot be written are told of, and tried again.
func TestEndpointsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	door := &refusing{left: 1}
	with := func(build func(client.Interface, events.Recorder) controller.Loop) func(client.Interface, events.Recorder) controller.Loop {
		return func(c client.Interface, r events.Recorder) controller.Loop {
			door.Interface = c
			return build(door, r)
		}
	}
	w.run(with(endpointsOf))
	create(w, aService("web"))
	w.settle()
	w.said(`Warning FailedToCreateEndpoint Failed to create endpoint for service default/web: things "web" is forbidden: no`)
	w.backend("web", "a", "10.42.0.1")
	door.left = 1
	w.settle()
	w.said(`Warning FailedToUpdateEndpoint Failed to update endpoint default/web: things "web" is forbidden: no`)
	w.rests()

	w = newWorld(t)
	door.left = 1
	w.run(with(endpointSlices))
	create(w, aService("web"))
	w.settle()
	w.said(`Warning FailedToUpdateEndpointSlices Error updating Endpoint Slices for Service default/web: create endpoint slice of service default/web: things "web" is forbidden: no`)
	if len(w.slices()) != 1 {
		t.Errorf("%d slices", len(w.slices()))
	}
}
