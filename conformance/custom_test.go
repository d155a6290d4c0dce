package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// group is an API group of a test's own.
func group(t *testing.T) string { return namespaceName(t) + ".example.com" }

// define makes a definition of gadgets in the test's group, and waits until it is
// established. spec is what there is beside group, names and scope.
func define(t *testing.T, spec string) schema.GroupVersionResource {
	t.Helper()
	g := group(t)
	body := fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, shortNames: [gd], categories: [all, toys]}
%[2]s`, g, spec)
	admin.want(t, http.StatusCreated, call{method: "POST", path: definitions, body: body}, nil)
	t.Cleanup(func() { undefine(t, g) })
	eventually(t, "the definition is established", func() bool { return conditionOf(t, g, "Established") == "True" })
	return schema.GroupVersionResource{Group: g, Version: "v1", Resource: "gadgets"}
}

// undefine deletes the definition, and waits until it is gone.
func undefine(t *testing.T, g string) {
	t.Helper()
	undefined(t, "gadgets."+g)
}

// undefined deletes a definition by its name, and waits until it is gone.
func undefined(t *testing.T, name string) {
	t.Helper()
	path := definitions + "/" + name
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	send := func(method string) int {
		r, err := admin.open(ctx, call{method: method, path: path})
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	send("DELETE")
	if !poll(ctx, func() bool { return send("GET") == http.StatusNotFound }) {
		t.Errorf("the definition of %s does not go", name)
	}
}

func conditionOf(t *testing.T, g, kind string) string {
	t.Helper()
	d := admin.want(t, http.StatusOK, call{path: definitions + "/gadgets." + g}, nil).object(t)
	conditions, _, _ := unstructured.NestedSlice(d.Object, "status", "conditions")
	for _, c := range conditions {
		if c := c.(map[string]any); c["type"] == kind {
			return c["status"].(string)
		}
	}
	return ""
}

// gadget is what most tests define.
const gadget = `
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    selectableFields: [{jsonPath: .spec.color}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              size: {type: integer, default: 3, maximum: 9}
              color: {type: string}
              replicas: {type: integer}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, count: {type: integer}}}
            x-kubernetes-validations:
            - {rule: "!has(self.color) || self.color != 'mauve'", message: "mauve is no color", fieldPath: .color}
          status:
            type: object
            properties: {replicas: {type: integer}, phase: {type: string}}
`

func gadgetNamed(gvr schema.GroupVersionResource, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetGroupVersionKind(gvr.GroupVersion().WithKind("Gadget"))
	u.SetName(name)
	return u
}

func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(admin.config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A defined kind is served as soon as its definition is established: by every
// verb, with defaults, pruning, validation, subresources and watches.
func TestCustomResource(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	c := dynamicClient(t).Resource(gvr).Namespace(ns)
	w, err := c.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	o, err := c.Create(t.Context(), gadgetNamed(gvr, "a", map[string]any{"color": "red", "other": "x"}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := field(o, "spec"); got != `{"color":"red","size":3}` {
		t.Errorf("created with %s", got)
	}
	if e := <-w.ResultChan(); e.Type != apiwatch.Added || field(e.Object.(*unstructured.Unstructured), "spec", "size") != "3" {
		t.Errorf("told of %v", e)
	}
	if _, err := c.Create(t.Context(), gadgetNamed(gvr, "b", map[string]any{"color": "mauve"}), metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), `spec.color: Invalid value: `) || !strings.Contains(err.Error(), "mauve is no color") {
		t.Errorf("refused with %v", err)
	}
	o, err = c.Apply(t.Context(), "a", gadgetNamed(gvr, "a", map[string]any{"parts": []any{map[string]any{"name": "p", "count": int64(1)}}}), metav1.ApplyOptions{FieldManager: "m"})
	if err != nil {
		t.Fatal(err)
	}
	if got := field(o, "spec"); got != `{"color":"red","parts":[{"count":1,"name":"p"}],"size":3}` || o.GetGeneration() != 2 {
		t.Errorf("applied to %s, generation %d", got, o.GetGeneration())
	}
	unstructured.SetNestedField(o.Object, "Ready", "status", "phase")
	if o, err = c.UpdateStatus(t.Context(), o, metav1.UpdateOptions{}); err != nil || field(o, "status", "phase") != "Ready" || o.GetGeneration() != 2 {
		t.Errorf("status %v: %v", o, err)
	}
	list, err := c.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.color=red"})
	if err != nil || len(list.Items) != 1 || list.GetKind() != "GadgetList" {
		t.Errorf("list %v: %v", list, err)
	}
	if err := c.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	for e := range w.ResultChan() {
		if e.Type == apiwatch.Deleted {
			break
		}
	}
}

// definitionStatus reads and writes the status of a definition, by PATCH and PUT:
// conditions of others stay, and nothing else is written.
func definitionStatus(t *testing.T, g string) {
	t.Helper()
	path := definitions + "/gadgets." + g + "/status"
	read := admin.want(t, http.StatusOK, call{path: path}, nil).object(t)
	if field(read, "status", "acceptedNames", "plural") != "gadgets" || field(read, "spec", "group") != g {
		t.Errorf("the status reads as %v", read)
	}
	const condition = `{"type":"%s","status":"True","reason":"Test","message":"of a test","lastTransitionTime":"2026-01-01T00:00:00Z"}`
	patched := admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: jsonPatch, body: `[
		{"op":"add","path":"/status/conditions/-","value":` + fmt.Sprintf(condition, "Patched") + `}, {"op":"replace","path":"/spec/scope","value":"Cluster"}]`}, nil).object(t)
	if conditionOf(t, g, "Patched") != "True" || field(patched, "spec", "scope") != "Namespaced" || patched.GetGeneration() != read.GetGeneration() {
		t.Errorf("patched to %v", patched)
	}
	conditions := patched.Object["status"].(map[string]any)["conditions"].([]any)
	for _, c := range conditions {
		if c := c.(map[string]any); c["type"] == "Patched" {
			c["status"] = "False"
		}
	}
	admin.want(t, http.StatusOK, call{method: "PUT", path: path, body: encode(t, patched.Object)}, nil)
	if conditionOf(t, g, "Patched") != "False" || conditionOf(t, g, "Established") != "True" {
		t.Error("the status that was put is not there")
	}
}

// The kind is in discovery at once, and gone from it with its definition; watches
// of others go on meanwhile.
func TestDefinitionComesAndGoes(t *testing.T) {
	ns := namespace(t)
	others, err := kube.CoreV1().ConfigMaps(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer others.Stop()
	gvr := define(t, gadget)
	path := "/apis/" + gvr.GroupVersion().String()
	var names []string
	var l metav1.APIResourceList
	admin.want(t, http.StatusOK, call{path: path}, &l)
	for _, r := range l.APIResources {
		names = append(names, r.Name)
	}
	if want := []string{"gadgets", "gadgets/scale", "gadgets/status"}; !slices.Equal(names, want) {
		t.Errorf("discovered %v, want %v", names, want)
	}
	aggregated := func() bool {
		a := admin.do(t, call{path: "/apis", accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
		return strings.Contains(string(a.body), gvr.Group)
	}
	if !aggregated() {
		t.Error("not in aggregated discovery")
	}
	definitionStatus(t, gvr.Group)
	undefine(t, gvr.Group)
	if code := admin.do(t, call{path: path}).code; code != http.StatusNotFound || aggregated() {
		t.Errorf("still discovered: %d", code)
	}
	create(t, "configmaps", ns, "metadata: {name: a}")
	for e := range others.ResultChan() {
		if e.Type == apiwatch.Added && e.Object.(metav1.Object).GetName() == "a" {
			return
		}
	}
	t.Error("the watch of config maps was dropped")
}

// An informer follows objects of a definition, also when that is changed.
func TestInformerOfCustomResources(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	client := dynamicClient(t)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, ns, nil)
	informer := factory.ForResource(gvr)
	informer.Informer()
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), informer.Informer().HasSynced) {
		t.Fatal("not synced")
	}
	patched := call{method: "PATCH", path: definitions + "/gadgets." + gvr.Group, contentType: jsonPatch,
		body: `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape","value":{"type":"string","default":"round"}}]`}
	admin.want(t, http.StatusOK, patched, nil)
	eventually(t, "the new schema is served", func() bool {
		o, err := client.Resource(gvr).Namespace(ns).Create(t.Context(), gadgetNamed(gvr, "probe", map[string]any{}), metav1.CreateOptions{DryRun: []string{"All"}})
		return err == nil && field(o, "spec", "shape") == "round"
	})
	if _, err := client.Resource(gvr).Namespace(ns).Create(t.Context(), gadgetNamed(gvr, "a", map[string]any{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the informer has the object", func() bool {
		o, err := informer.Lister().ByNamespace(ns).Get("a")
		return err == nil && field(o.(*unstructured.Unstructured), "spec", "shape") == "round"
	})
}

// Custom resources own and are owned, and go with their namespace.
func TestCustomResourcesAreCollected(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	c := dynamicClient(t).Resource(gvr).Namespace(ns)
	owner, err := c.Create(t.Context(), gadgetNamed(gvr, "owner", map[string]any{}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ref := fmt.Sprintf(`{apiVersion: %s, kind: Gadget, name: owner, uid: %s}`, gvr.GroupVersion(), owner.GetUID())
	create(t, "configmaps", ns, "metadata: {name: owned, ownerReferences: ["+ref+"]}")
	dependent := gadgetNamed(gvr, "dependent", map[string]any{})
	dependent.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: gvr.GroupVersion().String(), Kind: "Gadget", Name: "owner", UID: owner.GetUID()}})
	if _, err := c.Create(t.Context(), dependent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), "owner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what it owned is gone", func() bool {
		_, err := c.Get(t.Context(), "dependent", metav1.GetOptions{})
		return err != nil && gone(t, "configmaps", ns, "owned")
	})
	last, err := c.Create(t.Context(), gadgetNamed(gvr, "last", map[string]any{}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := kube.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone, and "+last.GetName()+" with it", func() bool { return gone(t, "namespaces", "", ns) })
}

// Who may read custom resources is said by roles as for any other kind.
func TestCustomResourcesAreAuthorized(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	path := under(gvr.GroupVersion().String(), "gadgets", ns)
	user := impersonating(t, "gadgeteer")
	user.want(t, http.StatusForbidden, call{path: path}, nil)
	grant(t, ns, "gadgets", "gadgeteer", fmt.Sprintf(`[{apiGroups: [%s], resources: [gadgets], verbs: [list]}]`, gvr.Group))
	eventually(t, "the role counts", func() bool { return user.do(t, call{path: path}).code == http.StatusOK })
	user.want(t, http.StatusForbidden, call{method: "POST", path: path, body: encode(t, gadgetNamed(gvr, "a", nil))}, nil)
}

// What is defined and what was made of it outlive the server: objects that were
// stored before a default was have it when they are read.
func TestCustomResourcesOutliveTheServer(t *testing.T) {
	c, p := started(t, "custom")
	body := `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: gadgets, kind: Gadget}` + gadget
	p.want(t, http.StatusCreated, call{method: "POST", path: definitions, body: body}, nil)
	const path = "/apis/example.com/v1/gadgets"
	eventually(t, "gadgets are served", func() bool { return p.do(t, call{path: path}).code == http.StatusOK })
	p.want(t, http.StatusCreated, call{method: "POST", path: path, body: "{apiVersion: example.com/v1, kind: Gadget, metadata: {name: a}, spec: {color: red}}"}, nil)
	patched := call{method: "PATCH", path: definitions + "/gadgets.example.com", contentType: jsonPatch,
		body: `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape","value":{"type":"string","default":"round"}}]`}
	p.want(t, http.StatusOK, patched, nil)
	if err := c.signal(syscall.SIGKILL); err == nil {
		t.Fatal("the daemon ended by itself")
	}
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	o := c.peer(t).want(t, http.StatusOK, call{path: path + "/a"}, nil).object(t)
	if got := field(o, "spec"); got != `{"color":"red","shape":"round","size":3}` {
		t.Errorf("read back %s", got)
	}
}

// OpenAPI describes what is defined as soon as it is served, in both versions, and
// no longer when it is gone.
func TestDefinitionIsDescribed(t *testing.T) {
	gvr := define(t, gadget)
	path := "/openapi/v3/apis/" + gvr.GroupVersion().String()
	a := admin.want(t, http.StatusOK, call{path: path}, nil)
	for _, text := range []string{".v1.Gadget\"", ".v1.GadgetList\"", `"x-kubernetes-list-map-keys"`, `"fieldValidation"`} {
		if !strings.Contains(string(a.body), text) {
			t.Errorf("no %s in the document", text)
		}
	}
	v2 := func() bool {
		return strings.Contains(string(admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: "application/json"}, nil).body), "/apis/"+gvr.Group+"/v1/gadgets")
	}
	if !v2() {
		t.Error("v2 lacks the paths")
	}
	undefine(t, gvr.Group)
	if code := admin.do(t, call{path: path}).code; code != http.StatusNotFound || v2() {
		t.Errorf("still described: %d", code)
	}
}

// A definition may be in a version that Kubernetes serves itself: the document has
// both, and goes back to what it was.
func TestDefinitionInABuiltInVersion(t *testing.T) {
	_, p := started(t, "built-in-version")
	const path, own, others = "/openapi/v3/apis/node.k8s.io/v1", "/apis/node.k8s.io/v1/gadgets", "/apis/node.k8s.io/v1/runtimeclasses/{name}"
	described := func() (d document, tag string) {
		a := p.want(t, http.StatusOK, call{path: path, accept: "application/json"}, &d)
		return d, a.header.Get("Etag")
	}
	before, tag := described()
	p.want(t, http.StatusCreated, call{method: "POST", path: definitions, body: `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.node.k8s.io, annotations: {api-approved.kubernetes.io: "unapproved, experimental"}}
spec:
  group: node.k8s.io
  scope: Cluster
  names: {plural: gadgets, kind: Gadget}` + gadget}, nil)
	eventually(t, "gadgets are served", func() bool { return p.do(t, call{path: own}).code == http.StatusOK })
	both, tagOfBoth := described()
	if both.Paths[own] == nil || both.Paths[others] == nil || tagOfBoth == tag || len(both.Paths) <= len(before.Paths) {
		t.Errorf("%d paths by tag %s, %d by %s before", len(both.Paths), tagOfBoth, len(before.Paths), tag)
	}
	for _, model := range []string{"io.k8s.node.v1.Gadget", "io.k8s.node.v1.GadgetList", "io.k8s.api.node.v1.RuntimeClass"} {
		if _, ok := both.Components.Schemas[model]; !ok {
			t.Errorf("no schema %s", model)
		}
	}
	p.want(t, http.StatusOK, call{method: "DELETE", path: definitions + "/gadgets.node.k8s.io"}, nil)
	eventually(t, "gadgets are gone", func() bool { return p.do(t, call{path: own}).code == http.StatusNotFound })
	if after, again := described(); again != tag || after.Paths[own] != nil {
		t.Errorf("described by tag %s afterwards, by %s before", again, tag)
	}
}

// Objects of two versions are shown in either, converted by the webhook of the
// definition (documentation: "Versions in CustomResourceDefinitions").
func TestConversionByWebhook(t *testing.T) {
	ns := namespace(t)
	hook := conversionHook(t)
	spec := fmt.Sprintf(`
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {hostPort: {type: string}}}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, properties: {host: {type: string}, port: {type: string}}}}}
`, hook.URL, bundleOf(hook))
	gvr := define(t, spec)
	v1 := under(gvr.Group+"/v1", "gadgets", ns)
	v2 := under(gvr.Group+"/v2", "gadgets", ns)
	post := func(path, version, name, more string) {
		admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: fmt.Sprintf("{apiVersion: %s/%s, kind: Gadget, metadata: {name: %s}, %s}", gvr.Group, version, name, more)}, nil)
	}
	post(v1, "v1", "a", "hostPort: 'h:1'")
	swap := `[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`
	admin.want(t, http.StatusOK, call{method: "PATCH", path: definitions + "/gadgets." + gvr.Group, contentType: jsonPatch, body: swap}, nil)
	post(v2, "v2", "b", "host: x, port: '2'")
	for path, want := range map[string][]string{v1: {"h:1", "x:2"}, v2: {"h 1", "x 2"}} {
		items, _, _ := unstructured.NestedSlice(admin.want(t, http.StatusOK, call{path: path}, nil).object(t).Object, "items")
		for i, item := range items {
			u := &unstructured.Unstructured{Object: item.(map[string]any)}
			if got := strings.TrimSpace(field(u, "hostPort") + field(u, "host") + " " + field(u, "port")); got != want[i] {
				t.Errorf("%s: %s, want %s", path, got, want[i])
			}
		}
		if len(items) != len(want) {
			t.Errorf("%s has %d objects", path, len(items))
		}
	}
}

// conversionHook is a webhook that converts gadgets.
func conversionHook(t *testing.T) *httptest.Server {
	return served(t, func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
			return
		}
		out := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range review.Request.Objects {
			out.ConvertedObjects = append(out.ConvertedObjects, runtime.RawExtension{Raw: convertGadget(t, raw.Raw, review.Request.DesiredAPIVersion)})
		}
		review.Request, review.Response = nil, out
		_ = json.NewEncoder(w).Encode(&review)
	})
}

func convertGadget(t *testing.T, raw []byte, to string) []byte {
	var o map[string]any
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Error(err)
	}
	if o["apiVersion"] = to; strings.HasSuffix(to, "v1") {
		o["hostPort"] = fmt.Sprint(o["host"], ":", o["port"])
		delete(o, "host")
		delete(o, "port")
	} else {
		o["host"], o["port"], _ = strings.Cut(o["hostPort"].(string), ":")
		delete(o, "hostPort")
	}
	return []byte(encode(t, o))
}
