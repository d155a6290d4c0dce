package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/namespace"
	"hansa.dev/hansa/controller/rootca"
	"hansa.dev/hansa/controller/serviceaccount"
)

func namespaces(c client.Interface, _ events.Recorder) controller.Loop { return namespace.New(c, nil) }
func accounts(c client.Interface, _ events.Recorder) controller.Loop   { return serviceaccount.New(c) }
func rootCAs(c client.Interface, _ events.Recorder) controller.Loop {
	return rootca.New(c, []byte("PEM"))
}

func (w *world) namespace(name string) *corev1.Namespace {
	return get[*corev1.Namespace](w, "", name)
}

// town is a cluster with everything that fills and empties namespaces.
func town(t *testing.T) *world {
	w := workloads(t)
	w.run(jobs)
	w.run(namespaces)
	w.run(accounts)
	w.run(rootCAs)
	return w
}

// Documentation: "Namespaces"; "Kubernetes API", "Namespace conditions".
func TestNamespaceLifecycle(t *testing.T) {
	w := town(t)
	ns := create(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	w.settle()
	if get[*corev1.ServiceAccount](w, "shop", "default") == nil || get[*corev1.ConfigMap](w, "shop", "kube-root-ca.crt").Data["ca.crt"] != "PEM" {
		t.Fatal("the namespace was not filled")
	}
	d := aDeployment("web", 2)
	d.Namespace = "shop"
	create(w, d)
	j := aJob("work", 1, 2)
	j.Namespace = "shop"
	create(w, j)
	for i := range 40 {
		create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("m", i)}})
	}
	w.live()
	held := create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "held", Finalizers: []string{"example.com/f"}}})
	w.rests()

	remove(w, ns, metav1.DeleteOptions{})
	w.settle()
	want := func(kind corev1.NamespaceConditionType, status corev1.ConditionStatus, message string) {
		t.Helper()
		if !slices.ContainsFunc(w.namespace("shop").Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == kind && c.Status == status && strings.Contains(c.Message, message)
		}) {
			t.Errorf("no condition %s=%s %q: %+v", kind, status, message, w.namespace("shop").Status.Conditions)
		}
	}
	// What pods use stays until they have ended.
	want(corev1.NamespaceContentRemaining, corev1.ConditionTrue, "Some resources are remaining: pods. has 3 resource instances")
	if n := len(all[*corev1.ConfigMap](w, "shop")); n != 42 {
		t.Errorf("%d config maps while there are pods", n)
	}
	w.live()
	want(corev1.NamespaceFinalizersRemaining, corev1.ConditionTrue, "example.com/f in 1 resource instances")
	want(corev1.NamespaceContentRemaining, corev1.ConditionTrue, "Some resources are remaining: configmaps. has 1 resource instances")
	w.rests()
	update(w, held, "", func(cm *corev1.ConfigMap) { cm.Finalizers = nil })
	w.settle()
	if w.namespace("shop") != nil {
		t.Errorf("the namespace is still there: %+v", w.namespace("shop"))
	}
	w.rests()
}

func TestPublishedObjectsAreMended(t *testing.T) {
	w := town(t)
	w.settle()
	remove(w, get[*corev1.ServiceAccount](w, "default", "default"), metav1.DeleteOptions{})
	update(w, get[*corev1.ConfigMap](w, "default", rootca.Name), "", func(cm *corev1.ConfigMap) { cm.Data["ca.crt"], cm.Annotations = "other", nil })
	remove(w, get[*corev1.ConfigMap](w, "kube-system", rootca.Name), metav1.DeleteOptions{})
	w.settle()
	for _, ns := range []string{"default", "kube-system"} {
		cm := get[*corev1.ConfigMap](w, ns, rootca.Name)
		if get[*corev1.ServiceAccount](w, ns, "default") == nil || cm.Data["ca.crt"] != "PEM" || cm.Annotations["kubernetes.io/description"] == "" {
			t.Errorf("namespace %s was not mended", ns)
		}
	}
	w.rests()
}
