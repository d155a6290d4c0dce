// Package requesttest makes request handlers for tests: real rows and merge
// schemas over a store in memory that watches for writes to shared objects.
package requesttest

import (
	"context"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// Admin may do everything.
var Admin = &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// Nobody may do nothing.
var Nobody = &user.DefaultInfo{Name: "u", Groups: []string{user.AllAuthenticated}}

// AdminOnly allows everything to system:masters, and nothing to anybody else.
var AdminOnly = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	for _, g := range a.GetUser().GetGroups() {
		if g == user.SystemPrivilegedGroup {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
})

// Converter has the merge schemas of all kinds, built once for the process.
var Converter = sync.OnceValue(func() managedfields.TypeConverter {
	c, err := openapi.TypeConverter(kinds.Registry().Scheme())
	if err != nil {
		panic(err)
	}
	return c
})

// Store is an empty store in memory, closed with the test.
func Store(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), memory.New(memory.Options{}), kinds.Registry(), store.Options{DetectMutations: true})
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

// Handler serves an empty cluster, or one of another store, with the namespace
// "default". change may alter the configuration first; nil changes nothing.
func Handler(t testing.TB, change func(*request.Config)) *request.Handler {
	t.Helper()
	c := request.Config{Store: Store(t), Registry: kinds.Registry(), Authorizer: AdminOnly, Converter: Converter}
	if change != nil {
		change(&c)
	}
	h, err := request.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := h.Create(t.Context(), Info("create", "v1", "namespaces", "", ""), request.Body{Object: ns}, &metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return h
}

// Info is a request of Admin. version is a group-version such as "apps/v1".
func Info(verb, version, plural, namespace, name string) *request.Info {
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		panic(err)
	}
	return &request.Info{
		User: Admin, Verb: verb, Served: kinds.Registry().ByGVR(gv.WithResource(plural)),
		Namespace: namespace, Name: name, UserAgent: "test/1",
	}
}

// ConfigMap is an object to be written.
func ConfigMap(name string, data ...string) *corev1.ConfigMap {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		cm.Data[data[i]] = data[i+1]
	}
	return cm
}

// Ref names an object of the process-wide rows.
func Ref(group, plural, namespace, name string) api.Ref {
	return api.Ref{Resource: kinds.Registry().Must(group, plural), Namespace: namespace, Name: name}
}

// Capacity is an amount of storage.
func Capacity(amount string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(amount)}
}
