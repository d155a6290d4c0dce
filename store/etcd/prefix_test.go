package etcd_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/storetest"
)

func TestPrefixed(t *testing.T) {
	t.Parallel()
	endpoint, stop := startServer(t, t.TempDir())
	t.Cleanup(stop)
	storetest.Run(t, func(t *testing.T) store.Engine {
		e := etcd.Prefixed(connect(t, endpoint), "/tests/a")
		wipe(t, e)
		return e
	})
}

// Two stores with prefixes of their own in one etcd do not see each other's
// objects, but wait for each other's revisions.
func TestPrefixesAreApart(t *testing.T) {
	t.Parallel()
	endpoint, stop := startServer(t, t.TempDir())
	t.Cleanup(stop)
	raw := connect(t, endpoint)
	defer raw.Close()
	reg := storetest.Registry()
	configmaps := reg.Must("", "configmaps")
	open := func(prefix string) *store.Store {
		s, err := store.Open(t.Context(), etcd.Prefixed(connect(t, endpoint), prefix), reg, store.Options{DetectMutations: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	// One prefix lies within another.
	stores := map[string]*store.Store{etcd.DefaultPrefix: open(etcd.DefaultPrefix), "/registry/inner": open("/registry/inner"), "/other": open("/other")}
	for prefix, s := range stores {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cm"}, Data: map[string]string{"prefix": prefix}}
		if _, err := s.Create(t.Context(), configmaps, cm, store.WriteOptions{}); err != nil {
			t.Fatalf("%s: %v", prefix, err)
		}
		resp, err := raw.Range(t.Context(), store.RangeRequest{Start: prefix + "/configmaps/default/cm"})
		if err != nil || len(resp.KVs) != 1 {
			t.Errorf("%s: %d values in etcd, %v", prefix, len(resp.KVs), err)
		}
	}
	for prefix, s := range stores {
		list, err := s.List(t.Context(), store.Query{Resource: configmaps}, store.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, o := range list.Items {
			found = append(found, o.(*corev1.ConfigMap).Data["prefix"])
		}
		if len(found) != 1 || found[0] != prefix {
			t.Errorf("%s lists the objects of %v", prefix, found)
		}
	}
}
