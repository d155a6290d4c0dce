// Package storetest is the suite that every store engine passes, through the
// store that runs on it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// IndexColor is an index of the suite's ConfigMaps: the value of their label
// "color".
const IndexColor = "color"

// Registry has a few rows, as small as they can be: what the store needs of a
// row and nothing else.
func Registry() *api.Registry {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), coordinationv1.AddToScheme(scheme)); err != nil {
		panic(err)
	}
	reg, err := api.NewRegistry(scheme, []*api.Resource{
		row("configmaps", "ConfigMap", "configmaps", true,
			func() api.Object { return &corev1.ConfigMap{} },
			api.Index{Name: IndexColor, Values: func(o api.Object) []string {
				if color := o.GetLabels()["color"]; color != "" {
					return []string{color}
				}
				return nil
			}}),
		pod(),
		row("namespaces", "Namespace", "namespaces", false, func() api.Object { return &corev1.Namespace{} }),
		row("services", "Service", "services/specs", true, func() api.Object { return &corev1.Service{} }),
		lease(),
	})
	if err != nil {
		panic(err)
	}
	return reg
}

func pod() *api.Resource {
	r := row("pods", "Pod", "pods", true, func() api.Object { return &corev1.Pod{} },
		api.Index{Name: api.IndexNode, Values: func(o api.Object) []string {
			return []string{o.(*corev1.Pod).Spec.NodeName}
		}})
	r.Common = &api.Part{
		Number: 2,
		Of:     func(obj api.Object) interface{ Unmarshal([]byte) error } { return &obj.(*corev1.Pod).Spec },
	}
	return r
}

func lease() *api.Resource {
	r := row("leases", "Lease", "leases", true, func() api.Object { return &coordinationv1.Lease{} })
	r.Group, r.Storage = coordinationv1.GroupName, coordinationv1.SchemeGroupVersion
	r.Versions[0].GroupVersion = r.Storage
	return r
}

func row(plural, kind, prefix string, namespaced bool, make func() api.Object, indexes ...api.Index) *api.Resource {
	v1 := schema.GroupVersion{Version: "v1"}
	return &api.Resource{
		Plural: plural, Kind: kind, Prefix: prefix, Namespaced: namespaced,
		Storage: v1, New: make, Indexes: indexes,
		Versions: []api.Version{{GroupVersion: v1, New: make}},
	}
}

// suite is one store over a fresh engine, with what tests want at hand.
type suite struct {
	*testing.T
	*store.Store
	engine     store.Engine
	reg        *api.Registry
	configmaps *api.Resource
	pods       *api.Resource
	ctx        context.Context
}

// kept is an engine that outlives the stores over it.
type kept struct{ store.Engine }

func (kept) Close() error { return nil }

// limit ends a test that hangs.
const limit = 2 * time.Minute

func newSuite(t *testing.T, e store.Engine, opts store.Options) *suite {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	s := &suite{T: t, engine: e, reg: Registry(), ctx: ctx}
	s.configmaps, s.pods = s.reg.Must("", "configmaps"), s.reg.Must("", "pods")
	s.Store = s.open(opts)
	return s
}

// open opens one more store over the same engine, as another server would.
func (s *suite) open(opts store.Options) *store.Store {
	s.Helper()
	opts.DetectMutations = true
	st, err := store.Open(s.ctx, kept{s.engine}, s.reg, opts)
	if err != nil {
		s.Fatalf("open the store: %v", err)
	}
	s.Cleanup(func() {
		if err := st.Close(); err != nil {
			s.Errorf("close the store: %v", err)
		}
	})
	return st
}

func configMap(namespace, name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string]string{"value": value},
	}
}

func colored(namespace, name, color string) *corev1.ConfigMap {
	cm := configMap(namespace, name, "")
	cm.Labels = map[string]string{"color": color}
	return cm
}

func (s *suite) ref(namespace, name string) api.Ref {
	return api.Ref{Resource: s.configmaps, Namespace: namespace, Name: name}
}

func (s *suite) create(obj api.Object) api.Object {
	s.Helper()
	out, err := s.Create(s.ctx, s.reg.Of(obj), obj, store.WriteOptions{})
	if err != nil {
		s.Fatalf("create %s/%s: %v", obj.GetNamespace(), obj.GetName(), err)
	}
	return out
}

// set writes the value of a ConfigMap, making it if need be.
func set(value string) func(api.Object) (store.Outcome, error) {
	return func(cur api.Object) (store.Outcome, error) {
		if cur == nil {
			return store.Outcome{}, fmt.Errorf("nothing there to set to %q", value)
		}
		cm := cur.DeepCopyObject().(*corev1.ConfigMap)
		cm.Data = map[string]string{"value": value}
		return store.Outcome{Object: cm}, nil
	}
}

func (s *suite) update(namespace, name, value string) api.Object {
	s.Helper()
	out, err := s.Update(s.ctx, s.ref(namespace, name), store.WriteOptions{}, set(value))
	if err != nil {
		s.Fatalf("update %s/%s: %v", namespace, name, err)
	}
	return out
}

func (s *suite) remove(namespace, name string) api.Object {
	s.Helper()
	out, err := s.Delete(s.ctx, s.ref(namespace, name), store.WriteOptions{}, nil)
	if err != nil {
		s.Fatalf("delete %s/%s: %v", namespace, name, err)
	}
	return out
}

func valueOf(obj api.Object) string { return obj.(*corev1.ConfigMap).Data["value"] }

// watch starts a watch that ends with the test.
func (s *suite) watch(st *store.Store, q store.Query, o store.WatchOptions) *store.Watcher {
	s.Helper()
	w, err := st.Watch(s.ctx, q, o)
	if err != nil {
		s.Fatalf("watch from %q: %v", o.ResourceVersion, err)
	}
	s.Cleanup(w.Stop)
	return w
}

// next reads events until there are n.
func (s *suite) next(w *store.Watcher, n int) []string {
	s.Helper()
	var got []string
	for len(got) < n {
		events, err := w.Next(s.ctx)
		if err != nil {
			s.Fatalf("after %q: %v", got, err)
		}
		for _, ev := range events {
			got = append(got, show(ev))
		}
	}
	return got
}

// show is an event as text.
func show(ev store.Event) string {
	if ev.Object == nil {
		return string(ev.Type)
	}
	name := ev.Object.GetName()
	if ns := ev.Object.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	value := ""
	if cm, ok := ev.Object.(*corev1.ConfigMap); ok && cm.Data["value"] != "" {
		value = "=" + cm.Data["value"]
	}
	return fmt.Sprintf("%s %s%s @%s", ev.Type, name, value, ev.Object.GetResourceVersion())
}
