package resourcequota_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/resourcequota"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/internal/charges"
	"hansa.dev/hansa/store"
)

// world is the API with quotas and without the loop.
type world struct {
	*testing.T
	broken error // what the store says to writes of quotas
	h      *request.Handler
	book   *charges.Book
	// recount are the namespaces that the loop would count anew.
	mu      sync.Mutex
	recount []string
}

func newWorld(t *testing.T, limited []resourcequota.Limited) *world {
	w := &world{T: t, book: charges.NewBook()}
	w.h = requesttest.Handler(t, func(c *request.Config) {
		p := resourcequota.New(c.Registry, c.Store.View(), w, w.book, clock.RealClock{}, limited)
		c.Admission = admission.Chain{{Name: "ResourceQuota", Plugin: p}}
	})
	t.Cleanup(w.book.Listen(func(namespace string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.recount = append(w.recount, namespace)
	}))
	return w
}

// Update is the store's, unless it is broken.
func (w *world) Update(ctx context.Context, ref api.Ref, o store.WriteOptions, change func(cur api.Object) (store.Outcome, error)) (api.Object, error) {
	if w.broken != nil {
		return nil, w.broken
	}
	return w.h.Store.Update(ctx, ref, o, change)
}

// put stores a quota with its status, as the loop would.
func (w *world) put(name string, change func(*corev1.ResourceQuota), hard, used corev1.ResourceList) {
	w.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "q"}}
	q.Spec.Hard, q.Status.Hard, q.Status.Used = hard, hard, used
	if change != nil {
		change(q)
	}
	if _, err := w.h.Store.Create(w.Context(), w.h.Registry.Must("", "resourcequotas"), q, store.WriteOptions{}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) used(name string, resource corev1.ResourceName) int64 {
	w.Helper()
	q := w.h.Store.View().Get(w.h.Registry.Must("", "resourcequotas"), api.Key{Namespace: "default", Name: name}).(*corev1.ResourceQuota)
	amount := q.Status.Used[resource]
	return amount.Value()
}

func (w *world) create(plural string, obj api.Object, dryRun ...string) error {
	_, err := w.h.Create(w.Context(), requesttest.Info("create", "v1", plural, "default", ""), request.Body{Object: obj}, &metav1.CreateOptions{DryRun: dryRun})
	return err
}

// pending is how many charges are under way.
func (w *world) pending() int {
	s := w.book.Open("default")
	defer s.Close()
	s.Lock()
	defer s.Unlock()
	return len(s.All())
}

func amounts(name corev1.ResourceName, n int64) corev1.ResourceList {
	return corev1.ResourceList{name: *resource.NewQuantity(n, resource.DecimalSI)}
}

// A hundred at once against a quota of ten: ten are admitted, by few writes.
func TestConcurrency(t *testing.T) {
	w := newWorld(t, nil)
	w.put("q", nil, amounts("configmaps", 10), amounts("configmaps", 0))
	var group sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		group.Go(func() { errs[i] = w.create("configmaps", requesttest.ConfigMap(fmt.Sprintf("c%d", i))) })
	}
	group.Wait()
	admitted := 0
	for _, err := range errs {
		switch {
		case err == nil:
			admitted++
		case !apierrors.IsForbidden(err):
			t.Error(err)
		}
	}
	if admitted != 10 || w.used("q", "configmaps") != 10 || w.pending() != 0 {
		t.Errorf("%d are admitted, %d used, %d charges are left", admitted, w.used("q", "configmaps"), w.pending())
	}
}

// What is charged and then not stored is told to the loop, and what is refused by
// one quota is not charged to another.
func TestFailures(t *testing.T) {
	w := newWorld(t, nil)
	w.put("a", nil, amounts("configmaps", 10), amounts("configmaps", 0))
	if err := w.create("configmaps", requesttest.ConfigMap("same")); err != nil || len(w.recount) != 0 {
		t.Fatal(err, w.recount)
	}
	if err := w.create("configmaps", requesttest.ConfigMap("same")); !apierrors.IsAlreadyExists(err) {
		t.Error(err)
	}
	if !slices.Equal(w.recount, []string{"default"}) || w.pending() != 0 {
		t.Errorf("to be counted anew are %v, %d charges are left", w.recount, w.pending())
	}
	if err := w.create("configmaps", requesttest.ConfigMap("dry"), metav1.DryRunAll); err != nil || w.used("a", "configmaps") != 2 {
		t.Errorf("a dry run gives %v, used are %d", err, w.used("a", "configmaps"))
	}
	w.broken = errors.New("no disk")
	err := w.create("configmaps", requesttest.ConfigMap("unlucky"))
	if want := `configmaps "unlucky" is forbidden: cannot charge quota a: no disk; try again`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	w.broken = nil
	w.put("b", func(q *corev1.ResourceQuota) { q.UID = "b" }, amounts("count/configmaps", 0), amounts("count/configmaps", 0))
	err = w.create("configmaps", requesttest.ConfigMap("more"))
	if want := `configmaps "more" is forbidden: exceeded quota: b, requested: count/configmaps=1, used: count/configmaps=0, limited: count/configmaps=0`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	if w.used("a", "configmaps") != 2 {
		t.Errorf("used are %d", w.used("a", "configmaps"))
	}
	w.put("c", func(q *corev1.ResourceQuota) { q.UID = "c" }, amounts("secrets", 1), nil)
	err = w.create("secrets", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
	if want := `secrets "s" is forbidden: status unknown for quota: c, resources: secrets`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// Batches of a limited namespace are charged together, and each write is
// answered.
func TestBatch(t *testing.T) {
	w := newWorld(t, nil)
	w.put("q", nil, amounts("configmaps", 10), amounts("configmaps", 0))
	b := w.h.NewBatch(t.Context())
	var mu sync.Mutex
	made, refused := 0, 0
	for i := range 50 {
		b.Create(requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: requesttest.ConfigMap(fmt.Sprintf("c%d", i))}, &metav1.CreateOptions{},
			func(_ runtime.Object, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					made++
				} else if apierrors.IsForbidden(err) {
					refused++
				}
			})
	}
	b.Commit()
	if made != 10 || refused != 40 || w.used("q", "configmaps") != 10 {
		t.Errorf("%d made, %d refused, %d used", made, refused, w.used("q", "configmaps"))
	}
}

// "Limit Priority Class consumption by default", and resources by default.
func TestLimitedByDefault(t *testing.T) {
	limited, err := resourcequota.Parse([]byte(`
apiVersion: apiserver.config.k8s.io/v1
kind: ResourceQuotaConfiguration
limitedResources:
- resource: pods
  matchScopes:
  - {scopeName: PriorityClass, operator: In, values: [cluster-services]}
- resource: services
  matchContains: [loadbalancers]
`))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, limited)
	pod := func(name, class string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		p.Spec.PriorityClassName = class
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		return p
	}
	balancer := func(name string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 1}}}}
	}
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if err := w.create("pods", pod("a", "")); err != nil {
		t.Error(err)
	}
	refused(w.create("pods", pod("b", "cluster-services")), `insufficient quota to match these scopes: [{PriorityClass In [cluster-services]}]`)
	refused(w.create("services", balancer("s")), `services "s" is forbidden: insufficient quota to consume: services.loadbalancers`)
	w.put("covers", func(q *corev1.ResourceQuota) {
		q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "PriorityClass", Operator: "In", Values: []string{"cluster-services"}}}}
	}, amounts("pods", 1), amounts("pods", 0))
	w.put("balances", func(q *corev1.ResourceQuota) { q.UID = "balances" }, amounts("services.loadbalancers", 1), amounts("services.loadbalancers", 0))
	if err := w.create("pods", pod("b", "cluster-services")); err != nil {
		t.Error(err)
	}
	if err := w.create("services", balancer("s")); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: X": `configuration of ResourceQuota: it is a "X" of "v1", want a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1`,
		"apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration\nlimitedResources: [{}]": "configuration of ResourceQuota: limitedResources[0].resource is missing",
	} {
		_, err := resourcequota.Parse([]byte(text))
		refused(err, want)
	}
}
