package request_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/store"
)

// contested claims a key that another server writes in between, as often as it
// is told to.
type contested struct {
	store *store.Store
	times int
	made  int
	t     *testing.T
}

func (a *contested) Allocate(ctx context.Context, _, _ api.Object, _ bool) ([]store.Side, error) {
	const key = "ranges/contested"
	_, revision, err := a.store.Raw(ctx, key)
	if err != nil {
		return nil, err
	}
	if a.times > 0 {
		a.times, a.made = a.times-1, a.made+1
		row := kinds.Registry().Must("", "secrets")
		other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("other", a.made), Namespace: "default"}}
		if _, err := a.store.Create(ctx, row, other, store.WriteOptions{With: []store.Side{{Key: key, Revision: revision, Value: []byte("x")}}}); err != nil {
			a.t.Error(err)
		}
	}
	return []store.Side{{Key: key, Revision: revision, Value: []byte("mine")}}, nil
}

// What is claimed by another server meanwhile is no error: the write starts over.
func TestLostClaimsStartOver(t *testing.T) {
	claims := &contested{t: t}
	f := newFixture(t, func(c *request.Config) {
		claims.store = c.Store
		c.Allocators = map[schema.GroupResource]request.Allocator{{Resource: "configmaps"}: claims}
	})
	claims.times = 2
	f.mustCreate(requesttest.ConfigMap("a", "k", "v"))
	claims.times = 2
	if _, err := f.patch("a", types.MergePatchType, `{"data":{"k":"w"}}`, metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	claims.times = 2
	if _, err := f.DeleteCollection(t.Context(), requesttest.Info("deletecollection", "v1", "configmaps", "default", ""), &metav1.DeleteOptions{}, &metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	claims.times = 2
	batch := f.NewBatch(t.Context())
	for _, name := range []string{"b", "c"} {
		batch.Create(requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: requesttest.ConfigMap(name)}, &metav1.CreateOptions{}, func(_ runtime.Object, err error) {
			if err != nil {
				t.Errorf("create %s in a batch: %v", name, err)
			}
		})
	}
	batch.Commit()
}
