package controller_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/endpoints"
	"hansa.dev/hansa/controller/endpointslice"
)

func endpointSlices(c client.Interface, _ events.Recorder) controller.Loop {
	return endpointslice.New(c)
}
func endpointsOf(c client.Interface, _ events.Recorder) controller.Loop { return endpoints.New(c) }

func aService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"l": "v"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, // no addresses are allocated here
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

// A service without a selector is its owner's own business.
func TestEndpointsOfOthersStay(t *testing.T) {
	w := services(t)
	s := aService("web")
	s.Spec.Selector = nil
	create(w, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 80}},
	}}})
	w.settle()
	create(w, s)
	w.settle()
	if r, _ := w.addresses("web"); !slices.Equal(r, []string{"192.0.2.1"}) || len(w.slices()) != 0 {
		t.Errorf("addresses %v, %d slices", r, len(w.slices()))
	}
	w.rests()
	remove(w, s, metav1.DeleteOptions{})
	w.settle()
	if get[*corev1.Endpoints](w, "default", "web") != nil {
		t.Error("the endpoints outlive their service")
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
