package request_test

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/store"
)

// curious wants to hear how every write of a config map ends; meddle is called
// once, before the first.
type curious struct {
	ends   []string
	meddle func()
}

func (c *curious) Validate(_ context.Context, a *admission.Attributes) error {
	if _, ok := a.Object.(*corev1.ConfigMap); !ok {
		return nil
	}
	a.OnEnd(func(err error) {
		text := "written"
		if err != nil {
			text = err.Error()
		}
		c.ends = append(c.ends, text)
	})
	if c.meddle != nil {
		c.meddle()
		c.meddle = nil
	}
	return nil
}

// A plugin hears of every attempt at a write that it has admitted how it ended.
func TestPluginsHearTheEnd(t *testing.T) {
	c := &curious{}
	h := requesttest.Handler(t, func(conf *request.Config) { conf.Admission = admission.Chain{{Plugin: c}} })
	heard := func(want ...string) {
		t.Helper()
		if !slices.Equal(c.ends, want) {
			t.Errorf("heard %q, want %q", c.ends, want)
		}
		c.ends = nil
	}
	create := func(name string) {
		h.Create(t.Context(), requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: requesttest.ConfigMap(name)}, &metav1.CreateOptions{}) //nolint:errcheck // the plugin hears it
	}
	create("a")
	heard("written")
	create("a")
	heard(`configmaps "a" already exists`)

	ref := requesttest.Ref("", "configmaps", "default", "a")
	c.meddle = func() {
		_, err := h.Store.Update(t.Context(), ref, store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
			next := cur.DeepCopyObject().(*corev1.ConfigMap)
			next.Data = map[string]string{"by": "somebody else"}
			return store.Outcome{Object: next}, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, _, err := h.Update(t.Context(), requesttest.Info("update", "v1", "configmaps", "default", "a"), request.Body{Object: requesttest.ConfigMap("a", "k", "v")}, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	heard("another attempt follows", "written")

	b := h.NewBatch(t.Context())
	for _, name := range []string{"b", "b"} {
		b.Create(requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: requesttest.ConfigMap(name)}, &metav1.CreateOptions{}, func(_ runtime.Object, _ error) {})
	}
	if len(c.ends) != 0 {
		t.Errorf("before the batch is committed %q is heard", c.ends)
	}
	b.Commit()
	slices.Sort(c.ends)
	heard(`configmaps "b" already exists`, "written")
}
