package store_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/internal/fixtures"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// Kubernetes' own object of every stored kind, all fields set to something, is
// read by another process as it was written.
func TestUpstreamObjectsAreKept(t *testing.T) {
	reg, scheme := kinds.Registry(), kinds.Scheme()
	reader := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Strict: true})
	e := memory.New(memory.Options{})
	reopen := func() *store.Store {
		s, err := store.Open(t.Context(), kept{e}, reg, store.Options{DetectMutations: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen()
	written := map[api.Ref]api.Object{}
	for _, row := range reg.Resources() {
		if row.Prefix == "" {
			continue
		}
		gvk := hubVersion(row).WithKind(row.Kind)
		path, err := fixtures.Path("HEAD", gvk.Group, gvk.Version, gvk.Kind, "json")
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read, _, err := reader.Decode(data, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		obj := read.(api.Object)
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		obj.SetResourceVersion("")
		if !row.Namespaced {
			obj.SetNamespace("")
		}
		made, err := s.Create(t.Context(), row, obj, store.WriteOptions{})
		if err != nil {
			t.Errorf("create of %s: %v", row.Plural, err)
			continue
		}
		written[api.Ref{Resource: row, Namespace: obj.GetNamespace(), Name: obj.GetName()}] = made.DeepCopyObject().(api.Object)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	closing(t, s)
	for ref, want := range written {
		got, err := s.Get(t.Context(), ref, "")
		if err != nil {
			t.Errorf("get of %s: %v", ref.Resource.Plural, err)
			continue
		}
		if !apiequality.Semantic.DeepEqual(want, got) {
			t.Errorf("%s changed in the store (-written +read):\n%s", ref.Resource.Plural, cmp.Diff(want, got))
		}
	}
	if len(written) < 60 {
		t.Errorf("%d kinds are stored", len(written))
	}
}

// hubVersion is the version whose Go type the store's objects have.
func hubVersion(row *api.Resource) schema.GroupVersion {
	for _, v := range row.Versions {
		if v.ToHub == nil {
			return v.GroupVersion
		}
	}
	return row.Storage
}
