package conformance

import (
	"bytes"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Objects of a definition are got, updated, patched in the two ways that there are
// for them, scaled, tried by dry runs and deleted as those of any kind are.
func TestCustomResourceVerbs(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	c := dynamicClient(t).Resource(gvr).Namespace(ns)
	ctx := t.Context()
	s := sample{gadgetNamed(gvr, "a", map[string]any{"color": "red", "replicas": int64(2)}), gvr.Resource, ns}
	events := watch(t, s.path())
	made, err := c.Create(ctx, s.Unstructured, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events.expect(t, "ADDED a")
	got, err := c.Get(ctx, "a", metav1.GetOptions{})
	if err != nil || got.GetUID() != made.GetUID() || field(got, "spec") != `{"color":"red","replicas":2,"size":3}` || got.GetGeneration() != 1 {
		t.Errorf("get: %v, %v", got, err)
	}
	for accept, begin := range map[string]string{"application/json": "{", "application/yaml": "apiVersion: ", "application/cbor": "\xd9\xd9\xf7"} {
		a := admin.want(t, http.StatusOK, call{path: s.path("a"), accept: accept}, nil)
		if a.header.Get("Content-Type") != accept || !bytes.HasPrefix(a.body, []byte(begin)) {
			t.Errorf("as %s it comes as %s: %.60q", accept, a.header.Get("Content-Type"), a.body)
		}
	}
	admin.want(t, http.StatusNotAcceptable, call{path: s.path("a"), accept: "application/vnd.kubernetes.protobuf"}, nil)

	check := func(how string, u *unstructured.Unstructured, err error, spec string, generation int64) {
		t.Helper()
		if err != nil || field(u, "spec") != spec || u.GetGeneration() != generation {
			t.Fatalf("%s: %v, %v; want spec %s and generation %d", how, u, err, spec, generation)
		}
		if generation > 1 {
			events.expect(t, "MODIFIED a")
		}
	}
	stale := got.DeepCopy()
	got.Object["spec"] = map[string]any{"color": "blue", "size": int64(4)}
	u, err := c.Update(ctx, got, metav1.UpdateOptions{})
	check("update", u, err, `{"color":"blue","size":4}`, 2)
	if _, err := c.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of what was: %v", err)
	}
	u, err = c.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/size","value":4},{"op":"replace","path":"/spec/size","value":5},{"op":"add","path":"/spec/parts","value":[{"name":"p"}]}]`), metav1.PatchOptions{})
	check("JSON patch", u, err, `{"color":"blue","parts":[{"name":"p"}],"size":5}`, 3)
	if _, err = c.Patch(ctx, "a", types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/size","value":4}]`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a JSON patch whose test fails: %v", err)
	}
	// What is taken away has its default again.
	u, err = c.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"color":null,"size":null,"parts":[{"name":"q","count":2}]}}`), metav1.PatchOptions{})
	check("merge patch", u, err, `{"parts":[{"count":2,"name":"q"}],"size":3}`, 4)
	if _, err = c.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"size":10}}`), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a merge patch to what is too large: %v", err)
	}
	if _, err = c.Patch(ctx, "a", types.StrategicMergePatchType, []byte(`{"spec":{"size":6}}`), metav1.PatchOptions{}); !apierrors.IsUnsupportedMediaType(err) {
		t.Errorf("a strategic merge patch: %v", err)
	}

	s.dryRuns(t)
	s.scales(t)
	if err := c.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	for e := events.next(t); e.Type != "DELETED"; e = events.next(t) {
		if e.Type != "MODIFIED" {
			t.Errorf("before the deletion comes %s", e.Type)
		}
	}
	if _, err := c.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
	s.deleteAlone(t)
}

// Of objects of definitions, methods are refused by name, paths of another scope or
// version by the text, and subresources as if the object were missing
// (k8s.io/apiextensions-apiserver/pkg/apiserver/customresource_handler.go). They
// can be asked for by HEAD.
func TestCustomResourceRefusals(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	s := sample{gadgetNamed(gvr, "a", map[string]any{"color": "red"}), gvr.Resource, ns}
	admin.want(t, http.StatusCreated, call{method: "POST", path: s.path(), body: encode(t, s.Object)}, nil)
	group, resource := "/apis/"+gvr.Group, gvr.GroupResource().String()
	for _, c := range []struct {
		method, path string
		code         int
		reason       metav1.StatusReason
		message      string
	}{
		{"GET", s.path("a", "nonsense"), 404, metav1.StatusReasonNotFound, resource + ` "a" not found`},
		{"POST", s.path("a", "scale"), 405, metav1.StatusReasonMethodNotAllowed, `create is not supported on resources of kind "` + resource + `"`},
		{"DELETE", s.path("a", "scale"), 405, metav1.StatusReasonMethodNotAllowed, `delete is not supported on resources of kind "` + resource + `"`},
		{"PUT", s.path(), 400, metav1.StatusReasonBadRequest, "name must be provided"},
		{"PATCH", s.path(), 400, metav1.StatusReasonBadRequest, "name must be provided"},
	} {
		admin.do(t, call{method: c.method, path: c.path, contentType: mergePatch, body: "{}"}).refused(t, c.code, c.reason, c.message)
	}
	for path, method := range map[string]string{
		group + "/v9": "GET", group + "/v9/gadgets": "GET", group + "/v1/nonsense": "GET", group + "/v1/gadgets/a": "GET", group + "/v1/gadgets": "POST",
	} {
		if a := admin.do(t, call{method: method, path: path, body: "{}"}); a.code != http.StatusNotFound || string(a.body) != "404 page not found\n" {
			t.Errorf("%s %s: %d %s", method, path, a.code, a.body)
		}
	}
	if a := admin.do(t, call{method: "HEAD", path: s.path("a")}); a.code != http.StatusOK || a.header.Get("Content-Type") != "application/json" || len(a.body) != 0 {
		t.Errorf("HEAD: %d, %d bytes of %s", a.code, len(a.body), a.header.Get("Content-Type"))
	}
}

// scales reads the scale of a custom resource where its definition says that it is,
// and changes it by every way.
func (s sample) scales(t *testing.T) {
	t.Helper()
	s.merge(t, map[string]any{"spec": map[string]any{"replicas": 2}})
	s.merge(t, map[string]any{"status": map[string]any{"replicas": 1, "phase": "Ready"}}, "status")
	scale := admin.want(t, http.StatusOK, call{path: s.path("a", "scale")}, nil).object(t)
	if scale.GetKind() != "Scale" || field(scale, "spec") != `{"replicas":2}` || field(scale, "status") != `{"replicas":1}` {
		t.Errorf("the scale is %v", scale)
	}
	s.scaleDoor(t)
	if u := s.read(t); field(u, "spec", "replicas") != "0" || field(u, "status") != `{"phase":"Ready","replicas":1}` {
		t.Errorf("scaled it is %v", u)
	}
	admin.do(t, call{method: "PATCH", path: s.path("a", "scale"), contentType: mergePatch, body: `{"spec":{"replicas":-1}}`}).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "spec.replicas")
}
