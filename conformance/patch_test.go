package conformance

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func patchCall(resource, ns, name, kind, body string) call {
	return call{method: "PATCH", path: at(resource, ns, name), contentType: kind, body: body}
}

// RFC 6902 through the API (API concepts, "JSON Patch").
func TestJSONPatch(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: a, labels: {x: v}}\ndata: {one: '1', two: '2'}")
	body := `[
		{"op":"test","path":"/data/one","value":"1"},
		{"op":"add","path":"/data/three","value":"3"},
		{"op":"replace","path":"/data/two","value":"zwei"},
		{"op":"remove","path":"/data/one"},
		{"op":"copy","from":"/data/two","path":"/data/four"},
		{"op":"move","from":"/data/three","path":"/data/five"}]`
	got := admin.want(t, 200, patchCall("configmaps", ns, "a", jsonPatch, body), nil).object(t)
	if data := field(got, "data"); data != `{"five":"3","four":"zwei","two":"zwei"}` {
		t.Errorf("data is %s", data)
	}
	for _, c := range []struct {
		body    string
		code    int
		reason  metav1.StatusReason
		message string
	}{
		{`[{"op":"test","path":"/data/two","value":"2"}]`, 422, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request"},
		{`[{"op":"remove","path":"/data/none"}]`, 422, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request"},
		{`[{"op":"remove"`, 400, metav1.StatusReasonBadRequest, ""},
		{`{"op":"remove","path":"/data/two"}`, 400, metav1.StatusReasonBadRequest, ""},
		{`[{"op":"replace","path":"/metadata/name","value":"b"}]`, 400, metav1.StatusReasonBadRequest, "the name of the object (b) does not match the name on the URL (a)"},
		{`[{"op":"replace","path":"/metadata/namespace","value":"default"}]`, 400, metav1.StatusReasonBadRequest, "the namespace of the provided object does not match the namespace sent on the request"},
		{`[{"op":"replace","path":"/kind","value":"Nonsense"}]`, 422, metav1.StatusReasonInvalid, `no kind "Nonsense" is registered for version "v1"`},
		{"[" + strings.Repeat(`{"op":"test","path":"/kind","value":"ConfigMap"},`, 10000) + `{"op":"test","path":"/kind","value":"ConfigMap"}]`, 413, metav1.StatusReasonRequestEntityTooLarge, "The allowed maximum operations in a JSON patch is 10000, got 10001"},
	} {
		admin.do(t, patchCall("configmaps", ns, "a", jsonPatch, c.body)).refused(t, c.code, c.reason, c.message)
	}
	admin.do(t, patchCall("configmaps", ns, "none", jsonPatch, "[]")).refused(t, 404, metav1.StatusReasonNotFound, `configmaps "none" not found`)
}

// RFC 7386 through the API (API concepts, "JSON Merge Patch"): null removes,
// lists are replaced.
func TestMergePatch(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: a, finalizers: [test.dev/a, test.dev/b]}\ndata: {one: '1', two: '2'}")
	got := admin.want(t, 200, patchCall("configmaps", ns, "a", mergePatch, `{"data":{"one":null,"three":"3"},"metadata":{"finalizers":["test.dev/b"]}}`), nil).object(t)
	if data := field(got, "data"); data != `{"three":"3","two":"2"}` || field(got, "metadata", "finalizers") != `["test.dev/b"]` {
		t.Errorf("patched object is %v", got)
	}
	same := admin.want(t, 200, patchCall("configmaps", ns, "a", mergePatch, `{"data":{"three":"3"}}`), nil).object(t)
	if same.GetResourceVersion() != got.GetResourceVersion() {
		t.Error("a patch that changes nothing made a new version")
	}
	admin.do(t, patchCall("configmaps", ns, "a", mergePatch, `{"data":{"two":2}}`)).refused(t, 422, metav1.StatusReasonInvalid, "cannot unmarshal number into Go struct field ConfigMap.data of type string")
	patch(t, "configmaps", ns, "a", `{"metadata":{"finalizers":null}}`)
}

// "Update API objects in place using kubectl patch": strategic merge knows the
// keys of lists, and has directives.
func TestStrategicMergePatch(t *testing.T) {
	ns := namespace(t)
	create(t, "deployments", ns, `
metadata: {name: d}
spec:
  replicas: 0
  selector: {matchLabels: {app: d}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers: [{name: a, image: a, ports: [{containerPort: 80}, {containerPort: 90}]}, {name: b, image: b}]
      tolerations: [{key: x, operator: Exists}]`)
	for _, step := range []struct{ what, body, path, want string }{
		{"merges by key", `{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b2"}]}}}}`, "image", "a:a b:b2"},
		{"adds", `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"c"}]}}}}`, "image", "c:c a:a b:b2"},
		{"removes by directive", `{"spec":{"template":{"spec":{"containers":[{"name":"a","$patch":"delete"}]}}}}`, "image", "c:c b:b2"},
		{"orders", `{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"c"}],"containers":[{"name":"c","image":"c2"}]}}}}`, "image", "b:b2 c:c2"},
		{"replaces by directive", `{"spec":{"template":{"spec":{"containers":[{"$patch":"replace"},{"name":"z","image":"z"}]}}}}`, "image", "z:z"},
	} {
		got := admin.want(t, 200, patchCall("deployments", ns, "d", strategicPatch, step.body), nil).object(t)
		containers, _, _ := nested[[]any](got.Object, "spec", "template", "spec", "containers")
		var images []string
		for _, c := range containers {
			c := c.(map[string]any)
			images = append(images, fmt.Sprintf("%s:%s", c["name"], c["image"]))
		}
		if strings.Join(images, " ") != step.want {
			t.Errorf("%s: containers are %v, want %s", step.what, images, step.want)
		}
	}
	got := admin.want(t, 200, patchCall("deployments", ns, "d", strategicPatch, `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"},"template":{"spec":{"tolerations":[{"key":"y","operator":"Exists"}]}}}}`), nil).object(t)
	if field(got, "spec", "strategy") != `{"type":"Recreate"}` {
		t.Errorf("with retainKeys the strategy is %s", field(got, "spec", "strategy"))
	}
	if field(got, "spec", "template", "spec", "tolerations") != `[{"key":"y","operator":"Exists"}]` {
		t.Errorf("a list without key is not replaced: %s", field(got, "spec", "template", "spec", "tolerations"))
	}
	create(t, "configmaps", ns, "metadata: {name: c, finalizers: [test.dev/a, test.dev/b]}")
	got = admin.want(t, 200, patchCall("configmaps", ns, "c", strategicPatch, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["test.dev/a"]}}`), nil).object(t)
	if field(got, "metadata", "finalizers") != `["test.dev/b"]` {
		t.Errorf("finalizers are %s", field(got, "metadata", "finalizers"))
	}
	patch(t, "configmaps", ns, "c", `{"metadata":{"finalizers":null}}`)
	admin.do(t, patchCall("deployments", ns, "d", strategicPatch, `{"spec":{"replicas":"many"}}`)).refused(t, 422, metav1.StatusReasonInvalid, "")
	admin.do(t, patchCall("deployments", ns, "d", strategicPatch, `[]`)).refused(t, 400, metav1.StatusReasonBadRequest, "")
}

// A patch that names no version is applied to whatever is there, so that
// patches from many sides all take effect.
func TestConcurrentPatchesAllTakeEffect(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: a}")
	const writers = 20
	failed := make(chan error, writers)
	for i := range writers {
		go func() {
			resp, err := admin.open(t.Context(), patchCall("configmaps", ns, "a", mergePatch, fmt.Sprintf(`{"data":{"k%02d":"v"}}`, i)))
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != 200 {
					err = fmt.Errorf("patch %d: %s", i, resp.Status)
				}
			}
			failed <- err
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if data, _, _ := nested[map[string]any](get(t, "configmaps", ns, "a").Object, "data"); len(data) != writers {
		t.Errorf("%d of %d patches took effect", len(data), writers)
	}
}
