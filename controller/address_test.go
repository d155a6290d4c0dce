package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/ipaddress"
	"hansa.dev/hansa/controller/servicecidr"
	"hansa.dev/hansa/store"
)

func serviceRanges(c client.Interface, r events.Recorder) controller.Loop {
	return servicecidr.New(c, r)
}
func defaultRange(c client.Interface, r events.Recorder) controller.Loop {
	return servicecidr.NewDefault(c, r, serviceRange)
}
func claimRepair(c client.Interface, r events.Recorder) controller.Loop { return ipaddress.New(c, r) }

func (w *world) cidr(name string) *networkingv1.ServiceCIDR {
	return get[*networkingv1.ServiceCIDR](w, "", name)
}

// ready is the condition of a range, as text.
func (w *world) ready(name string) string {
	c := w.cidr(name)
	if c == nil {
		return "gone"
	}
	ready := meta.FindStatusCondition(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	if ready == nil {
		return ""
	}
	return string(ready.Status) + " " + ready.Reason
}

// https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
func TestServiceRanges(t *testing.T) {
	w := newWorld(t)
	w.run(serviceRanges)
	w.run(defaultRange)
	w.rests()
	if c := w.cidr("kubernetes"); w.ready("kubernetes") != "True " || !slices.Equal(c.Finalizers, []string{servicecidr.Finalizer}) {
		t.Fatalf("the default range is %+v", c)
	}
	add := func(name, cidr string) *networkingv1.ServiceCIDR {
		t.Helper()
		c := create(w, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}})
		w.settle()
		return c
	}
	is := func(when, name, want string) {
		t.Helper()
		if got := w.ready(name); got != want {
			t.Errorf("%s: %s is %q, want %q", when, name, got, want)
		}
	}
	at := func(name, ip string) *corev1.Service {
		t.Helper()
		return create(w, addressed(name, ip))
	}
	more := add("more", "10.99.0.0/24")
	is("made", "more", "True ")
	s := at("a", "10.99.0.7")
	remove(w, more, metav1.DeleteOptions{})
	w.pass(time.Minute)
	w.rests()
	is("with a service", "more", "False Terminating")
	remove(w, s, metav1.DeleteOptions{})
	w.settle()
	is("without services", "more", "gone")

	// A larger range takes its addresses over.
	more = add("more", "10.99.0.0/24")
	at("b", "10.99.0.8")
	remove(w, more, metav1.DeleteOptions{})
	w.settle()
	is("again", "more", "False Terminating")
	add("large", "10.99.0.0/16")
	is("before all servers know", "more", "False Terminating")
	w.pass(11 * time.Second)
	is("within another", "more", "gone")
	is("another", "large", "True ")
	w.rests()
}

// The range that the server was started with is made anew, and left alone when
// it is another.
func TestDefaultRange(t *testing.T) {
	w := newWorld(t)
	remove(w, w.cidr("kubernetes"), metav1.DeleteOptions{})
	d := w.run(defaultRange)
	w.rests() // nothing wakes it: the server makes the range before loops run
	d.add(api.Key{Name: "kubernetes"})
	w.settle()
	if c := w.cidr("kubernetes"); c == nil || c.Spec.CIDRs[0] != serviceRange || w.ready("kubernetes") != "True " {
		t.Fatalf("the default range is %+v", c)
	}
	remove(w, w.cidr("kubernetes"), metav1.DeleteOptions{})
	w.rests()
	if w.cidr("kubernetes") == nil {
		t.Error("the default range was not made anew")
	}
	w.events = nil
	w.run(func(c client.Interface, r events.Recorder) controller.Loop {
		return servicecidr.NewDefault(c, r, "10.50.0.0/16")
	})
	w.settle()
	w.said("Warning KubernetesDefaultServiceCIDRInconsistent The default ServiceCIDR [10.43.0.0/16] does not match the controller flag configurations [10.50.0.0/16]")
}

// addressed is a service with an address.
func addressed(name, ip string) *corev1.Service {
	s := aService(name)
	s.Spec.ClusterIP = ip
	return s
}

// repaired is a world with services a and b and everything that keeps their
// addresses.
func repaired(t *testing.T) (w *world, a, b *corev1.Service) {
	w = newWorld(t)
	w.run(serviceRanges)
	w.run(claimRepair)
	a, b = create(w, addressed("a", "")), create(w, addressed("b", ""))
	w.rests()
	if len(w.events) > 0 {
		t.Fatalf("nothing was wrong, and it says %v", w.events)
	}
	return w, a, b
}

func (w *world) claim(ip string) string {
	c := get[*networkingv1.IPAddress](w, "", ip)
	if c == nil {
		return ""
	}
	return c.Spec.ParentRef.Resource + "/" + c.Spec.ParentRef.Name + " " + c.Labels[networkingv1.LabelManagedBy]
}

func claimOf(ip, resource, name, manager string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{networkingv1.LabelIPAddressFamily: "IPv4", networkingv1.LabelManagedBy: manager}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: resource, Namespace: "default", Name: name}},
	}
}

// KEP-1880, "The Repair loop"; the words are those of Kubernetes' events.
func TestClaimsAreRepaired(t *testing.T) {
	const allocator = "ipallocator.k8s.io"
	w, a, _ := repaired(t)
	ip := a.Spec.ClusterIP
	wants := func(when string) {
		t.Helper()
		w.rests()
		if got := w.claim(ip); got != "services/a "+allocator {
			t.Errorf("%s: the claim is %q", when, got)
		}
	}
	have := func() *networkingv1.IPAddress { return get[*networkingv1.IPAddress](w, "", ip) }
	remove(w, have(), metav1.DeleteOptions{})
	wants("deleted")
	w.said("Warning ClusterIPNotAllocated Cluster IP [IPv4]: " + ip + " is not allocated; repairing")

	update(w, have(), "", func(c *networkingv1.IPAddress) { c.Labels = nil })
	wants("without labels")

	remove(w, have(), metav1.DeleteOptions{})
	create(w, claimOf(ip, "gateways", "g", "example.com"))
	wants("of a gateway")
	w.said("Warning ClusterIPNotAllocated the ClusterIP [IPv4]: " + ip + " for Service default/a has a wrong reference; repairing")

	remove(w, have(), metav1.DeleteOptions{})
	create(w, claimOf(ip, "services", "b", allocator))
	wants("of another service")

	create(w, claimOf("10.43.9.9", "services", "none", allocator))
	create(w, claimOf("10.43.9.8", "services", "a", allocator))
	create(w, claimOf("10.43.9.7", "gateways", "g", allocator))
	create(w, claimOf("10.43.9.6", "gateways", "g", "example.com"))
	wants("with strays")
	w.said(
		"Warning IPAddressNotAllocated IPAddress: 10.43.9.9 for Service default/none appears to have leaked: cleaning up",
		"Warning IPAddressWrongReference IPAddress: 10.43.9.8 for Service default/a has a wrong reference; cleaning up",
		"Warning IPAddressNotAllocated IPAddress 10.43.9.7 appears to have been modified, not referencing a Service &ParentReference{Group:,Resource:gateways,Namespace:default,Name:g,}: cleaning up",
	)
	if w.claim("10.43.9.9")+w.claim("10.43.9.8")+w.claim("10.43.9.7") != "" || w.claim("10.43.9.6") == "" {
		t.Error("the strays are not what they should be")
	}
	remove(w, a, metav1.DeleteOptions{})
	w.rests()
	if w.claim(ip) != "" {
		t.Error("the claim of a deleted service is still there")
	}
}

// What only people can mend is told.
func TestAddressesThatCannotBeRepaired(t *testing.T) {
	w, a, b := repaired(t)
	force := func(s *corev1.Service, ip string) {
		t.Helper()
		_, err := w.h.Store.Update(w.Context(), api.RefTo(w.row(s), s), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
			next := cur.DeepCopyObject().(*corev1.Service)
			next.Spec.ClusterIP, next.Spec.ClusterIPs = ip, []string{ip}
			return store.Outcome{Object: next}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	force(b, a.Spec.ClusterIP)
	w.settle()
	w.said("Warning ClusterIPAlreadyAllocated Cluster IP [IPv4]:" + a.Spec.ClusterIP + " was assigned to multiple services; please recreate service")
	force(b, "10.99.0.1")
	w.settle()
	w.said("Warning ClusterIPOutOfRange Cluster IP [IPv4]: 10.99.0.1 is not within any configured Service CIDR; please recreate service")
	w.rests()
	if got := w.claim(a.Spec.ClusterIP); !strings.HasPrefix(got, "services/a ") {
		t.Errorf("the claim is %q", got)
	}
}
