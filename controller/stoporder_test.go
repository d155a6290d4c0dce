package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
)

// chained are deployments db, api and web in a namespace, each of which depends on the
// one before it and stops before it.
func chained(w *world, namespace string) {
	w.Helper()
	before := ""
	for _, name := range []string{"db", "api", "web"} {
		d := aDeployment(name, 1)
		if d.Namespace = namespace; before != "" {
			annotated(d, dependency.DependsOn, "deployment/"+before, dependency.StopOrder, dependency.Reverse)
		}
		create(w, d)
		before = name
	}
	w.live()
	w.rests()
}

// stopping names the apps with a pod that is on its way out.
func (w *world) stopping() string {
	var names []string
	for _, p := range all[*corev1.Pod](w, "") {
		if p.DeletionTimestamp != nil {
			names = append(names, p.Labels["app"])
		}
	}
	return strings.Join(names, " ")
}

// stops checks that apps stop one after the other, in this order.
func (w *world) stops(order ...string) {
	w.Helper()
	for _, name := range order {
		w.settle()
		if got := w.stopping(); got != name {
			w.Errorf("%q stops, want %q", got, name)
		}
		w.agent()
	}
	w.settle()
	if left := all[*appsv1.Deployment](w, ""); len(left) > 0 {
		w.Errorf("%s is left: %v", left[0].Name, left[0].Finalizers)
	}
	w.rests()
}

// kubectl delete -l: one after the other, in no order of ours.
func TestStopOrderOfASelector(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		w, _ := shopping(t, t)
		chained(w, "default")
		for _, name := range []string{"db", "web", "api"} {
			remove(w, w.deployment(name), metav1.DeleteOptions{PropagationPolicy: &policy})
			w.settle()
			w.clock.Step(time.Second / 2)
		}
		w.pass(4 * time.Second)
		w.stops("web", "api", "db")
	}
}

func TestStopOrderOfANamespace(t *testing.T) {
	w, _ := shopping(t, t)
	ns := create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	chained(w, "shop")
	remove(w, ns, metav1.DeleteOptions{})
	w.stops("web", "api", "db")
	if w.namespace("shop") != nil {
		t.Error("the namespace is still there")
	}
}

// A service that is depended on stands for its pods.
func TestStopOrderByService(t *testing.T) {
	w, _ := shopping(t, t)
	ns := create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	create(w, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "store"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "db"}, Ports: []corev1.ServicePort{{Port: 80}},
	}})
	db := aDeployment("db", 1)
	db.Namespace = "shop"
	create(w, db)
	web := annotated(aDeployment("web", 1), dependency.DependsOn, "service/store:Exists", dependency.StopOrder, dependency.Reverse)
	web.Namespace = "shop"
	create(w, web)
	w.live()
	remove(w, ns, metav1.DeleteOptions{})
	w.stops("web", "db")
}

// Who is not deleted holds nobody up for more than a moment.
func TestStopOrderOfADependencyAlone(t *testing.T) {
	w, _ := shopping(t, t)
	chained(w, "default")
	remove(w, w.deployment("db"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.settle()
	if got := w.stopping(); got != "" {
		t.Errorf("%s stops at once", got)
	}
	w.pass(3 * time.Second)
	if got := w.stopping(); got != "db" {
		t.Errorf("%q stops", got)
	}
	w.live()
	// Without a word about the order nobody has a part in it.
	for _, name := range []string{"api", "web"} {
		update(w, w.deployment(name), "", func(d *appsv1.Deployment) { delete(d.Annotations, dependency.StopOrder) })
	}
	w.settle()
	for _, name := range []string{"api", "web"} {
		if f := w.deployment(name).Finalizers; len(f) > 0 {
			t.Errorf("%s has %v", name, f)
		}
	}
	w.rests()
}

// kubectl delete pods -l: pods that nothing controls stop in order as well. Nobody
// runs them any further than that.
func TestStopOrderOfPods(t *testing.T) {
	w, _ := shopping(t, t)
	pods := map[string]*corev1.Pod{}
	before := ""
	for _, name := range []string{"db", "web"} {
		p := aPod(name, template(map[string]string{"app": name}, "x"))
		if before != "" {
			annotated(p, dependency.DependsOn, "pod/"+before, dependency.StopOrder, dependency.Reverse)
		}
		pods[name], before = create(w, p), name
		w.live()
	}
	w.rests()
	for _, name := range []string{"db", "web"} {
		remove(w, pods[name], metav1.DeleteOptions{})
		w.settle()
	}
	for _, name := range []string{"web", "db"} {
		w.pass(4 * time.Second)
		if p := w.pod(name); p == nil || slices.Contains(p.Finalizers, dependency.Finalizer) {
			t.Fatalf("it is not the turn of %s: %+v", name, p)
		}
		if p := w.pod("db"); name != "db" && !slices.Contains(p.Finalizers, dependency.Finalizer) {
			t.Error("the database stops first")
		}
		w.gone(pods[name])
	}
	w.rests()
}

// Pods that are to be orphaned stay.
func TestStopOrderOfOrphans(t *testing.T) {
	w, _ := shopping(t, t)
	chained(w, "default")
	for _, name := range []string{"db", "api", "web"} {
		remove(w, w.deployment(name), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationOrphan)})
	}
	w.settle()
	w.pass(4 * time.Second)
	w.live()
	if n := len(w.running()); n != 3 || len(all[*appsv1.Deployment](w, "")) != 0 {
		t.Errorf("%d pods", n)
	}
	w.rests()
}

// Whatever is deleted when, by whom, and whatever dies meanwhile: all of it goes, and
// what goes together goes in order.
func TestStopOrderProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w, loop := shopping(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		ns := create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		n := rapid.IntRange(2, 4).Draw(r, "deployments")
		uses := map[string][]string{}
		for i := range n {
			d := aDeployment(fmt.Sprint("d", i), 1)
			d.Namespace = "shop"
			var on []string
			for k := range i {
				if rapid.Bool().Draw(r, fmt.Sprint(d.Name, " on ", k)) {
					on = append(on, fmt.Sprint("deployment/d", k))
					uses[d.Name] = append(uses[d.Name], fmt.Sprint("d", k))
				}
			}
			create(w, annotated(d, dependency.DependsOn, strings.Join(on, ","), dependency.StopOrder, dependency.Reverse))
		}
		w.live()
		deleted := map[string]bool{}
		if whole := rapid.Bool().Draw(r, "the namespace"); whole {
			remove(w, ns, metav1.DeleteOptions{})
		}
		for _, i := range rapid.Permutation(upTo(n)).Draw(r, "order") {
			name := fmt.Sprint("d", i)
			d := get[*appsv1.Deployment](w, "shop", name)
			if d == nil || rapid.Bool().Draw(r, "stays") {
				continue
			}
			policy := rapid.SampledFrom([]metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground}).Draw(r, "policy")
			remove(w, d, metav1.DeleteOptions{PropagationPolicy: &policy})
			if deleted[name] = true; rapid.Bool().Draw(r, "dies") {
				loop.client.dieAt(rapid.IntRange(0, 3).Draw(r, "at write"), rapid.Bool().Draw(r, "after it"))
			}
		}
		running := func(name string) bool {
			return slices.ContainsFunc(all[*corev1.Pod](w, "shop"), func(p *corev1.Pod) bool { return p.Labels["app"] == name })
		}
		going := func(name string) bool {
			d := get[*appsv1.Deployment](w, "shop", name)
			return d == nil || d.DeletionTimestamp != nil || w.namespace("shop").DeletionTimestamp != nil
		}
		for range 100 {
			w.settle()
			for name, on := range uses {
				for _, d := range on {
					if !running(name) || !going(name) {
						continue
					}
					for _, p := range all[*corev1.Pod](w, "shop") {
						if p.Labels["app"] == d && p.DeletionTimestamp != nil {
							r.Fatalf("%s stops while %s still runs", d, name)
						}
					}
				}
			}
			if !w.agent() {
				break
			}
		}
		w.pass(10 * time.Second)
		w.live()
		if w.namespace("shop") != nil && w.namespace("shop").DeletionTimestamp == nil {
			for name := range deleted {
				if d := get[*appsv1.Deployment](w, "shop", name); d != nil {
					r.Fatalf("%s is still there: %v", api.RefTo(w.row(d), d), d.Finalizers)
				}
			}
		} else if ns := w.namespace("shop"); ns != nil {
			r.Fatalf("the namespace is still there: %+v", ns.Status)
		}
		w.rests()
	})
}
