package informers_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	eventsinformers "k8s.io/client-go/informers/events"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/informers"
)

// log notes what a handler is told.
type log []string

func (l *log) OnAdd(obj any, initial bool) { l.note("+", obj, fmt.Sprint(initial)) }
func (l *log) OnUpdate(old, obj any)       { l.note("~", obj, data(old)+">"+data(obj)) }
func (l *log) OnDelete(obj any)            { l.note("-", obj, data(obj)) }
func (l *log) note(what string, obj any, more string) {
	*l = append(*l, what+obj.(api.Object).GetName()+" "+more)
}

func (l *log) take() []string {
	all := []string(*l)
	*l = nil
	return all
}

func configMaps(f *informers.Factory) coreinformers.ConfigMapInformer {
	return core.New(f, "", nil).V1().ConfigMaps()
}

func data(obj any) string { return obj.(*corev1.ConfigMap).Data["k"] }

func open(t *testing.T) client.Interface {
	return direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test")
}

func create(t *testing.T, c client.Interface, obj api.Object) {
	t.Helper()
	if _, err := c.Create(t.Context(), c.Registry().Of(obj), obj, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("the handler was told %q, want %q", got, want)
	}
}

// The contract of cache.SharedInformer: all that is there, then every change in
// order; nothing before the informer runs and nothing after it has stopped.
func TestHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		create(t, c, requesttest.ConfigMap("a", "k", "1"))
		f := informers.New(c.Registry(), c.View())
		i := configMaps(f).Informer()
		var first, late log
		handle, err := i.AddEventHandler(&first)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, first.take())
		if i.HasSynced() || handle.HasSynced() {
			t.Error("an informer that does not run has synced")
		}
		stop := make(chan struct{})
		f.Start(stop)
		synctest.Wait()
		expect(t, first.take(), "+a true")
		if !i.HasSynced() || !handle.HasSynced() || !f.WaitForCacheSync(stop)[reflect.TypeFor[*corev1.ConfigMap]()] {
			t.Error("an informer that runs has not synced")
		}
		create(t, c, requesttest.ConfigMap("b", "k", "1"))
		b := requesttest.Ref("", "configmaps", "default", "b")
		if _, err := c.Patch(t.Context(), b, "application/merge-patch+json", []byte(`{"data":{"k":"2"}}`), metav1.PatchOptions{}, ""); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(t.Context(), b, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, first.take(), "+b false", "~b 1>2", "-b 2")

		lateHandle, err := i.AddEventHandlerWithResyncPeriod(&late, 1)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, late.take(), "+a true")
		if err := i.RemoveEventHandler(lateHandle); err != nil {
			t.Fatal(err)
		}
		if err := i.RemoveEventHandler(lateHandle); err != nil {
			t.Errorf("the second removal gave %v", err)
		}
		create(t, c, requesttest.ConfigMap("c"))
		synctest.Wait()
		expect(t, late.take())
		expect(t, first.take(), "+c false")

		close(stop)
		f.Shutdown()
		create(t, c, requesttest.ConfigMap("d"))
		synctest.Wait()
		expect(t, first.take())
		if _, err := i.AddEventHandler(&late); err == nil || !i.IsStopped() {
			t.Error("an informer that has stopped takes another handler")
		}
	})
}

// A handler that is slow holds up neither the writers nor the other handlers.
func TestSlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t)
		f := informers.New(c.Registry(), c.View())
		i := configMaps(f).Informer()
		var quick log
		held := make(chan struct{})
		slow := 0
		handlers := []cache.ResourceEventHandler{&quick, cache.ResourceEventHandlerFuncs{AddFunc: func(any) { <-held; slow++ }}}
		for _, h := range handlers {
			if _, err := i.AddEventHandler(h); err != nil {
				t.Fatal(err)
			}
		}
		stop := make(chan struct{})
		f.Start(stop)
		synctest.Wait()
		for n := range 3 {
			create(t, c, requesttest.ConfigMap(fmt.Sprint("a", n)))
		}
		synctest.Wait()
		expect(t, quick.take(), "+a0 false", "+a1 false", "+a2 false")
		close(held)
		synctest.Wait()
		if slow != 3 {
			t.Errorf("the slow handler was told of %d objects, want 3", slow)
		}
		close(stop)
		f.Shutdown()
	})
}

func TestListers(t *testing.T) {
	c := open(t)
	create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	create(t, c, requesttest.ConfigMap("a", "k", "1"))
	other := requesttest.ConfigMap("b", "k", "2")
	other.Namespace, other.Labels = "other", map[string]string{"l": "v"}
	create(t, c, other)
	f := informers.New(c.Registry(), c.View())
	maps := configMaps(f)

	names := func(list []*corev1.ConfigMap, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, cm := range list {
			s = append(s, cm.Namespace+"/"+cm.Name)
		}
		return fmt.Sprint(s)
	}
	for _, tt := range []struct{ what, got, want string }{
		{"all", names(maps.Lister().List(labels.Everything())), "[default/a other/b]"},
		{"by label", names(maps.Lister().List(labels.SelectorFromSet(labels.Set{"l": "v"}))), "[other/b]"},
		{"by namespace", names(maps.Lister().ConfigMaps("default").List(labels.Everything())), "[default/a]"},
		{"by another namespace", names(maps.Lister().ConfigMaps("none").List(labels.Everything())), "[]"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: listed %s, want %s", tt.what, tt.got, tt.want)
		}
	}
	got, err := maps.Lister().ConfigMaps("other").Get("b")
	if err != nil || got != c.View().Get(c.Registry().Must("", "configmaps"), api.Key{Namespace: "other", Name: "b"}) {
		t.Errorf("got %v, %v, not the view's own object", got, err)
	}
	if _, err := maps.Lister().ConfigMaps("default").Get("b"); !apierrors.IsNotFound(err) {
		t.Errorf("an object that is not there gave %v", err)
	}
	generic, err := f.ForResource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	if err != nil || generic.Informer() != f.InformerFor(&corev1.ConfigMap{}, nil) {
		t.Errorf("the generic informer is another: %v", err)
	}
	if obj, err := generic.Lister().ByNamespace("default").Get("a"); err != nil || obj.(api.Object).GetName() != "a" {
		t.Errorf("the generic lister gave %v, %v", obj, err)
	}
	if _, err := f.Flowcontrol().V1().FlowSchemas().Lister().Get("none"); !apierrors.IsNotFound(err) {
		t.Errorf("a flow schema that is not there gave %v", err)
	}
}

func TestIndexer(t *testing.T) {
	c := open(t)
	for name, k := range map[string]string{"a": "1", "b": "2", "c": "1"} {
		create(t, c, requesttest.ConfigMap(name, "k", k))
	}
	i := configMaps(informers.New(c.Registry(), c.View())).Informer()
	byData := cache.Indexers{"data": func(obj any) ([]string, error) { return []string{data(obj)}, nil }}
	if err := i.AddIndexers(byData); err != nil {
		t.Fatal(err)
	}
	if err := i.AddIndexers(byData); err == nil {
		t.Error("an index was replaced")
	}
	x := i.GetIndexer()
	if keys, err := x.IndexKeys("data", "1"); err != nil || !slices.Equal(keys, []string{"default/a", "default/c"}) {
		t.Errorf("by data: %q, %v", keys, err)
	}
	if list, err := x.Index("data", requesttest.ConfigMap("x", "k", "2")); err != nil || len(list) != 1 {
		t.Errorf("like another: %v, %v", list, err)
	}
	if values := x.ListIndexFuncValues("data"); !slices.Equal(values, []string{"1", "2"}) {
		t.Errorf("values: %q", values)
	}
	if _, err := x.ByIndex("none", ""); err == nil {
		t.Error("an index that is not there answered")
	}
	if keys := x.ListKeys(); !slices.Equal(keys, []string{"default/a", "default/b", "default/c"}) {
		t.Errorf("keys: %q", keys)
	}
	for what, err := range map[string]error{
		"add": x.Add(requesttest.ConfigMap("d")), "update": x.Update(requesttest.ConfigMap("a")),
		"delete": x.Delete(requesttest.ConfigMap("a")), "replace": x.Replace(nil, ""), "transform": i.SetTransform(nil),
	} {
		if err == nil {
			t.Errorf("the view let itself be written to: %s", what)
		}
	}
}

// What is held in one version is not to be had as the Go type of another.
func TestOtherVersions(t *testing.T) {
	c := open(t)
	f := informers.New(c.Registry(), c.View())
	if _, err := f.ForResource(flowcontrolv1.SchemeGroupVersion.WithResource("nothing")); err == nil {
		t.Error("an informer of nothing")
	}
	events := schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
	if c.Registry().ByGVR(events) == nil {
		t.Fatal("events are not served in two groups: choose another kind")
	}
	if _, err := f.ForResource(events); err == nil {
		t.Error("an informer of a version that nothing is held in")
	}
	defer func() {
		if recover() == nil {
			t.Error("an informer of a Go type that nothing is held in")
		}
	}()
	eventsinformers.New(f, "", nil).V1().Events().Informer()
}
