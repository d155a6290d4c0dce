package controller_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/resourcequota"
	"hansa.dev/hansa/internal/charges"
)

func amountsOf(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, pair := range strings.Fields(text) {
		name, amount, _ := strings.Cut(pair, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

func (w *world) quota(name string) *corev1.ResourceQuota {
	return w.api.View().Get(w.h.Registry.Must("", "resourcequotas"), api.Key{Namespace: "default", Name: name}).(*corev1.ResourceQuota)
}

func (w *world) uses(name, want string) {
	w.Helper()
	q := w.quota(name)
	var parts []string
	for n, amount := range q.Status.Used {
		parts = append(parts, string(n)+"="+amount.String())
	}
	slices.Sort(parts)
	if got := strings.Join(parts, " "); got != want {
		w.Errorf("quota %s uses %s, want %s", name, got, want)
	}
}

// "Resource Quotas": the status follows spec and objects, without being asked.
func TestResourceQuotas(t *testing.T) {
	w := newWorld(t)
	book := charges.NewBook()
	d := w.run(func(c client.Interface, _ events.Recorder) controller.Loop { return resourcequota.New(c, book) })
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}})
	q := create(w, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: amountsOf("secrets=5 pods=2 cpu=3 count/widgets.example.com=1")}})
	w.settle()
	// Nobody can count widgets: there are none.
	w.uses("q", "cpu=0 pods=0 secrets=1")
	if got := w.quota("q").Status.Hard; len(got) != 4 {
		t.Errorf("the limits are %v", got)
	}
	if got := d.loop.(controller.Waiter).Waiting(); len(got) != 1 {
		t.Errorf("quotas that wait for kinds are %v", got)
	}
	pod := func(name string) *corev1.Pod {
		p := aPod(name, template(nil, "x"))
		p.Spec.Containers[0].Resources.Requests = amountsOf("cpu=1")
		return create(w, p)
	}
	p, second := pod("p"), pod("second")
	// Creates are admission's to count, until the quota is counted anew.
	w.settle()
	w.uses("q", "cpu=0 pods=0 secrets=1")
	update(w, q, "", func(q *corev1.ResourceQuota) { q.Spec.Hard["secrets"] = resource.MustParse("6") })
	w.settle()
	w.uses("q", "cpu=2 pods=2 secrets=1")
	update(w, p, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	w.settle()
	w.uses("q", "cpu=1 pods=1 secrets=1")
	remove(w, second, metav1.DeleteOptions{})
	w.settle()
	w.uses("q", "cpu=0 pods=0 secrets=1")
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}})
	w.settle()
	w.uses("q", "cpu=0 pods=0 secrets=1")
	w.pass(5 * time.Minute)
	w.settle()
	w.uses("q", "cpu=0 pods=0 secrets=2")
}

// What is charged for a write under way is not given away again, however often
// the quota is counted meanwhile.
func TestChargesUnderWay(t *testing.T) {
	w := newWorld(t)
	book := charges.NewBook()
	d := w.run(func(c client.Interface, _ events.Recorder) controller.Loop { return resourcequota.New(c, book) })
	other := create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}})
	q := create(w, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: amountsOf("secrets=5")}})
	w.settle()
	charge := &charges.Charge{UID: "not yet", Amounts: map[types.UID]corev1.ResourceList{q.UID: amountsOf("secrets=1")}}
	s := book.Open("default")
	s.Lock()
	s.Add(charge)
	s.Unlock()
	s.Close()
	d.add(api.Key{Namespace: "default", Name: "q"})
	w.settle()
	w.uses("q", "secrets=2")
	remove(w, other, metav1.DeleteOptions{})
	w.settle()
	w.uses("q", "secrets=1")
	woken := false
	cancel := d.loop.(controller.Woken).Listen(func(key api.Key) {
		woken = true
		d.add(key)
	})
	defer cancel()
	charge.End(false)
	w.settle()
	w.uses("q", "secrets=0")
	if !woken {
		t.Error("the loop does not hear that a write failed")
	}
	// Once the object is seen, it counts instead of its charge.
	made := create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "made"}})
	charge = &charges.Charge{UID: made.UID, Amounts: map[types.UID]corev1.ResourceList{q.UID: amountsOf("secrets=1")}}
	s = book.Open("default")
	s.Lock()
	s.Add(charge)
	s.Unlock()
	s.Close()
	d.add(api.Key{Namespace: "default", Name: "q"})
	w.settle()
	w.uses("q", "secrets=1")
	charge.End(true)
}
