// Package clienttest is the suite that every client.Interface passes.
package clienttest

import (
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// Clients are the clients that a suite is run with, all of one empty cluster
// that has the namespace "default" and the node "n".
type Clients struct {
	// Admin may do everything.
	Admin client.Interface
	// Nobody may do nothing.
	Nobody client.Interface
}

// Run runs the suite. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Clients) {
	for name, test := range map[string]func(*testing.T, Clients){
		"write and read":             testWriteAndRead,
		"a write shows in the view":  testReadYourWrites,
		"conflicts":                  testConflicts,
		"patches":                    testPatches,
		"forbidden":                  testForbidden,
		"batch":                      testBatch,
		"bindings":                   testBindings,
		"subscribe":                  testSubscribe,
		"list, index and namespaces": testView,
		"ask":                        testAsk,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Data: data}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func create(t *testing.T, c client.Interface, obj api.Object) api.Object {
	t.Helper()
	out, err := c.Create(t.Context(), c.Registry().Of(obj), obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func ref(c client.Interface, plural, name string) api.Ref {
	return api.Ref{Resource: c.Registry().Must("", plural), Namespace: "default", Name: name}
}

func testWriteAndRead(t *testing.T, cs Clients) {
	c := cs.Admin
	made := create(t, c, configMap("a", map[string]string{"k": "v"}))
	got, err := c.Get(t.Context(), ref(c, "configmaps", "a"))
	if err != nil || got.GetUID() != made.GetUID() || got.(*corev1.ConfigMap).Data["k"] != "v" {
		t.Fatalf("get gave %v, %v", got, err)
	}
	if err := c.Delete(t.Context(), ref(c, "configmaps", "a"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), ref(c, "configmaps", "a")); !apierrors.IsNotFound(err) {
		t.Errorf("get after delete gave %v, want NotFound", err)
	}
	if err := c.Delete(t.Context(), ref(c, "configmaps", "a"), metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("second delete gave %v, want NotFound", err)
	}
}

func testReadYourWrites(t *testing.T, cs Clients) {
	c, row := cs.Admin, cs.Admin.Registry().Must("", "configmaps")
	if err := c.View().WaitSynced(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	key := api.Key{Namespace: "default", Name: "a"}
	for range 50 {
		made := create(t, c, configMap("a", nil))
		seen := c.View().Get(row, key)
		if seen == nil || seen.GetUID() != made.GetUID() {
			t.Fatalf("after create the view shows %v", seen)
		}
		changed := seen.DeepCopyObject().(*corev1.ConfigMap)
		changed.Data = map[string]string{"k": "v"}
		updated, err := c.Update(t.Context(), row, changed, "")
		if err != nil {
			t.Fatal(err)
		}
		if seen := c.View().Get(row, key); seen == nil || seen.GetResourceVersion() != updated.GetResourceVersion() {
			t.Fatalf("after update the view shows %v, want version %s", seen, updated.GetResourceVersion())
		}
		if err := c.Delete(t.Context(), ref(c, "configmaps", "a"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if seen := c.View().Get(row, key); seen != nil {
			t.Fatalf("after delete the view shows %v", seen)
		}
	}
}

func testConflicts(t *testing.T, cs Clients) {
	c := cs.Admin
	row := c.Registry().Must("", "configmaps")
	made := create(t, c, configMap("a", nil))
	edit := func(value string) api.Object {
		cm := made.DeepCopyObject().(*corev1.ConfigMap)
		cm.Data = map[string]string{"k": value}
		return cm
	}
	if _, err := c.Update(t.Context(), row, edit("1"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Update(t.Context(), row, edit("2"), ""); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version gave %v, want Conflict", err)
	}
	if _, err := c.Create(t.Context(), row, configMap("a", nil), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create gave %v, want AlreadyExists", err)
	}
	bad := configMap("b", map[string]string{"no/slash": ""})
	if _, err := c.Create(t.Context(), row, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("invalid create gave %v, want Invalid", err)
	}
}

func testPatches(t *testing.T, cs Clients) {
	c := cs.Admin
	create(t, c, configMap("a", map[string]string{"k": "v"}))
	for _, p := range []struct {
		kind types.PatchType
		text string
		want string
	}{
		{types.MergePatchType, `{"data":{"k":"merge"}}`, "merge"},
		{types.StrategicMergePatchType, `{"data":{"k":"strategic"}}`, "strategic"},
		{types.JSONPatchType, `[{"op":"replace","path":"/data/k","value":"json"}]`, "json"},
		{types.ApplyYAMLPatchType, `{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"apply"}}`, "apply"},
	} {
		opts := metav1.PatchOptions{}
		if p.kind == types.ApplyYAMLPatchType {
			force := true
			opts.Force = &force
		}
		out, err := c.Patch(t.Context(), ref(c, "configmaps", "a"), p.kind, []byte(p.text), opts, "")
		if err != nil {
			t.Errorf("%s: %v", p.kind, err)
			continue
		}
		if got := out.(*corev1.ConfigMap).Data["k"]; got != p.want {
			t.Errorf("%s gave %q, want %q", p.kind, got, p.want)
		}
	}
}

func testForbidden(t *testing.T, cs Clients) {
	create(t, cs.Admin, configMap("a", nil))
	c := cs.Nobody
	row := c.Registry().Must("", "configmaps")
	_, getErr := c.Get(t.Context(), ref(c, "configmaps", "a"))
	_, createErr := c.Create(t.Context(), row, configMap("b", nil), metav1.CreateOptions{})
	_, updateErr := c.Update(t.Context(), row, configMap("a", nil), "")
	batch := c.Batch(t.Context(), []client.Write{{Resource: row, Create: configMap("c", nil)}})
	for what, err := range map[string]error{
		"get": getErr, "create": createErr, "update": updateErr, "batch": batch[0].Err,
		"delete": c.Delete(t.Context(), ref(c, "configmaps", "a"), metav1.DeleteOptions{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s gave %v, want Forbidden", what, err)
		}
	}
}

func testBatch(t *testing.T, cs Clients) {
	c := cs.Admin
	row := c.Registry().Must("", "configmaps")
	made := create(t, c, configMap("a", nil))
	changed := made.DeepCopyObject().(*corev1.ConfigMap)
	changed.Data = map[string]string{"k": "v"}
	stale := changed.DeepCopy()
	stale.ResourceVersion = "1"
	generated := configMap("", nil)
	generated.GenerateName = "x-"
	results := c.Batch(t.Context(), []client.Write{
		{Resource: row, Create: configMap("b", nil)},
		{Resource: row, Create: configMap("a", nil)},
		{Resource: row, Update: changed},
		{Resource: row, Update: stale},
		{Resource: row, Create: configMap("BAD", nil)},
		{Resource: row, Create: generated},
		{},
	})
	for i, check := range []func(error) bool{ok, apierrors.IsAlreadyExists, ok, apierrors.IsConflict, apierrors.IsInvalid, ok, apierrors.IsBadRequest} {
		if !check(results[i].Err) {
			t.Errorf("write %d gave %v", i, results[i].Err)
		}
	}
	if obj := results[2].Object; obj == nil || obj.(*corev1.ConfigMap).Data["k"] != "v" {
		t.Errorf("batched update gave %v", obj)
	}
	if obj := results[5].Object; obj == nil || len(obj.GetName()) != len("x-")+5 {
		t.Errorf("batched create of a generated name gave %v", obj)
	}
}

func ok(err error) bool { return err == nil }

func testBindings(t *testing.T, cs Clients) {
	c := cs.Admin
	bind := func(name string) *corev1.Binding {
		return &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "n"},
		}
	}
	for _, name := range []string{"one", "two"} {
		create(t, c, pod(name))
	}
	if _, err := c.Post(t.Context(), ref(c, "pods", "one"), "binding", bind("one")); err != nil {
		t.Fatal(err)
	}
	results := c.Batch(t.Context(), []client.Write{
		{Ref: ref(c, "pods", "two"), Bind: bind("two")},
		{Ref: ref(c, "pods", "one"), Bind: bind("one")},
		{Ref: ref(c, "pods", "gone"), Bind: bind("gone")},
	})
	if results[0].Err != nil || !apierrors.IsConflict(results[1].Err) || !apierrors.IsNotFound(results[2].Err) {
		t.Errorf("batch gave %v, %v, %v", results[0].Err, results[1].Err, results[2].Err)
	}
	for _, name := range []string{"one", "two"} {
		obj, err := c.Get(t.Context(), ref(c, "pods", name))
		if err != nil || obj.(*corev1.Pod).Spec.NodeName != "n" {
			t.Errorf("pod %s is %v, %v", name, obj, err)
		}
	}
}

func testSubscribe(t *testing.T, cs Clients) {
	c := cs.Admin
	row := c.Registry().Must("", "configmaps")
	create(t, c, configMap("before", nil))
	seen := make(chan string, 16)
	cancel := c.View().Subscribe(row, func(old, now api.Object) {
		switch {
		case old == nil:
			seen <- "+" + now.GetName()
		case now == nil:
			seen <- "-" + old.GetName()
		default:
			seen <- "~" + now.GetName()
		}
	})
	defer cancel()
	made := create(t, c, configMap("after", nil))
	changed := made.DeepCopyObject().(*corev1.ConfigMap)
	changed.Data = map[string]string{"k": "v"}
	if _, err := c.Update(t.Context(), row, changed, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), ref(c, "configmaps", "after"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+before", "+after", "~after", "-after"} {
		select {
		case got := <-seen:
			if got != want {
				t.Fatalf("saw %s, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("waited in vain for %s", want)
		}
	}
}

func testView(t *testing.T, cs Clients) {
	c := cs.Admin
	row := c.Registry().Must("", "configmaps")
	owned := configMap("c", nil)
	owner := create(t, c, configMap("b", nil))
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "b", UID: owner.GetUID()}}
	create(t, c, owned)
	create(t, c, configMap("a", nil))
	if err := c.View().WaitSynced(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	names := ""
	for obj := range c.View().List(row, "default") {
		names += obj.GetName()
	}
	if names != "abc" {
		t.Errorf("list gave %q, want abc in order", names)
	}
	for range c.View().List(row, "elsewhere") {
		t.Error("another namespace is not empty")
	}
	names = ""
	for obj := range c.View().ByIndex(row, api.IndexOwner, string(owner.GetUID())) {
		names += obj.GetName()
	}
	if names != "c" {
		t.Errorf("by owner there is %q, want c", names)
	}
}

func testAsk(t *testing.T, cs Clients) {
	c := cs.Admin
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods"},
	}}
	out, err := c.Ask(t.Context(), c.Registry().Must("authorization.k8s.io", "selfsubjectaccessreviews"), review)
	if err != nil || !out.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed {
		t.Errorf("review gave %v, %v, want it allowed", out, err)
	}
}
