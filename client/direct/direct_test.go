package direct_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/clienttest"
	"hansa.dev/hansa/client/direct"
)

func TestSuite(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) clienttest.Clients {
		h := requesttest.Handler(t, func(c *request.Config) {
			c.Hooks = map[string]request.Hook{"selfsubjectaccessreviews.authorization.k8s.io": allowAdmin}
		})
		admin := direct.New(h, requesttest.Admin, "test")
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		if _, err := admin.Create(t.Context(), h.Registry.Must("", "nodes"), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return clienttest.Clients{Admin: admin, Nobody: admin.As(requesttest.Nobody, "test")}
	})
}

// Every kind can be written, also those that are stored in a version that is no
// longer served.
func TestEveryKindHasADoor(t *testing.T) {
	h := requesttest.Handler(t, nil)
	c := direct.New(h, requesttest.Admin, "test")
	for _, r := range h.Registry.Resources() {
		if r.Prefix == "" {
			continue
		}
		if _, err := c.Get(t.Context(), api.Ref{Resource: r, Namespace: "default", Name: "none"}); !apierrors.IsNotFound(err) {
			t.Errorf("get %s: %v", r.GroupResource(), err)
		}
	}
}

// What the process asks of itself is noted like what comes over the wire.
func TestAudit(t *testing.T) {
	p, _, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse, omitStages: [RequestReceived]}]"))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	h := requesttest.Handler(t, func(c *request.Config) { c.Audit = audit.New(audit.Options{Policy: p, Out: &log}) })
	c := direct.New(h, requesttest.Admin, "kube-controller-manager")
	maps, pods := h.Registry.Must("", "configmaps"), h.Registry.Must("", "pods")
	cm := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	ref := api.Ref{Resource: maps, Namespace: "default", Name: "a"}
	ctx := t.Context()
	made, err := c.Create(ctx, maps, cm("a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	changed := made.DeepCopyObject().(*corev1.ConfigMap)
	changed.Data = map[string]string{"k": "v"}
	_, err = c.Update(ctx, maps, changed, "")
	_, err1 := c.Get(ctx, ref)
	_, err2 := c.Patch(ctx, ref, types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{}, "")
	err3 := c.Delete(ctx, ref, metav1.DeleteOptions{})
	if err := errors.Join(err, err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if _, err := c.As(requesttest.Nobody, "x").Get(ctx, ref); !apierrors.IsForbidden(err) {
		t.Fatal(err)
	}
	results := c.Batch(ctx, []client.Write{{Resource: pods, Create: pod}, {Resource: maps, Update: cm("none")}})
	bound := c.Batch(ctx, []client.Write{{Ref: api.Ref{Resource: pods, Namespace: "default", Name: "p"}, Bind: &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"},
	}}})
	if results[0].Err != nil || !apierrors.IsNotFound(results[1].Err) || bound[0].Err != nil {
		t.Fatalf("batch: %v %v %v", results[0].Err, results[1].Err, bound[0].Err)
	}
	const path = "/api/v1/namespaces/default/configmaps"
	want := []string{
		"admin create " + path + " 201 ConfigMap ConfigMap",
		"admin update " + path + "/a 200 ConfigMap ConfigMap",
		"admin get " + path + "/a 200  ConfigMap",
		"admin patch " + path + "/a 200  ConfigMap",
		"admin delete " + path + "/a 200 DeleteOptions Status",
		"u get " + path + "/a 403  Status",
		"admin create /api/v1/namespaces/default/pods 201 Pod Pod",
		"admin update " + path + "/none 404 ConfigMap Status",
		"admin create /api/v1/namespaces/default/pods/p/binding 201 Binding Status",
	}
	kind := func(o *runtime.Unknown) string {
		var k metav1.TypeMeta
		if o != nil {
			if err := json.Unmarshal(o.Raw, &k); err != nil {
				t.Error(err)
			}
		}
		return k.Kind
	}
	var got []string
	for d := json.NewDecoder(&log); d.More(); {
		var e auditv1.Event
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Stage != auditv1.StageResponseComplete || e.SourceIPs[0] != "127.0.0.1" || e.Annotations["authorization.k8s.io/decision"] == "" {
			t.Errorf("event is %+v", e)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %s %s", e.User.Username, e.Verb, e.RequestURI, e.ResponseStatus.Code, kind(e.RequestObject), kind(e.ResponseObject)))
	}
	// The writes of a batch end together, in no order that matters.
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// allowAdmin answers access reviews as AdminOnly authorizes.
func allowAdmin(_ context.Context, info *request.Info, _ api.Object, body runtime.Object, _ bool) (runtime.Object, error) {
	review := body.(*authorizationv1.SelfSubjectAccessReview)
	review.Status.Allowed = info.User.GetName() == requesttest.Admin.Name
	return review, nil
}
