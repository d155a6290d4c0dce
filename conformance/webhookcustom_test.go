package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a webhook adds to a custom resource is pruned by its schema, and gets the
// schema's defaults ("Defaulting and Pruning").
func TestWebhookMutatesCustomResource(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	path := under(gvr.GroupVersion().String(), "gadgets", ns)
	h := hooks(t, ns, map[string]opinion{
		"/m": patches(`[{"op":"add","path":"/spec","value":{"color":"red","nonsense":1,"parts":[{"name":"a","junk":2}]}},{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`),
		"/no": func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			if strings.Contains(string(q.Object.Raw), `"mauve"`) || q.Operation == admissionv1.Delete && !strings.Contains(string(q.OldObject.Raw), `"free"`) {
				return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: "no"}}
			}
			return nil
		},
	})
	of := gvr.Group + "/v1 gadgets"
	mutating := configure(t, mutatingHooks, "", h.webhook("/m", of+" CREATE"), h.webhook("/second", of+" CREATE"))
	configure(t, validatingHooks, "", h.webhook("/no", of+",gadgets/status CREATE,UPDATE,DELETE"))
	body := fmt.Sprintf("{apiVersion: %s, kind: Gadget, metadata: {name: a}}", gvr.GroupVersion())
	o := admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: body}, nil).object(t)
	if got := field(o, "spec"); got != `{"color":"red","parts":[{"name":"a"}],"size":3}` || o.GetLabels()["a"] != "b" {
		t.Errorf("the webhook made %s of it, labels %v", got, o.GetLabels())
	}
	seen := h.expect(t, "create", "/m CREATE gadgets a", "/second CREATE gadgets a", "/no CREATE gadgets a")
	for _, q := range seen[1:] {
		if s := string(q.Object.Raw); strings.Contains(s, "nonsense") || !strings.Contains(s, `"size":3`) || !strings.Contains(s, `"kind":"Gadget"`) {
			t.Errorf("the next webhook sees %s", s)
		}
	}
	change := func(path, patch string) answer {
		return admin.do(t, call{method: "PATCH", path: path, contentType: mergePatch, body: patch})
	}
	change(path+"/a", `{"spec":{"size":4}}`).status2xx(t)
	if q := h.expect(t, "update", "/no UPDATE gadgets a")[0]; !strings.Contains(string(q.OldObject.Raw), `"size":3`) || !strings.Contains(string(q.Object.Raw), `"size":4`) {
		t.Errorf("an update is shown as %s and %s", q.OldObject.Raw, q.Object.Raw)
	}
	change(path+"/a/status", `{"status":{"phase":"mauve"}}`).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, `admission webhook "no.example.com" denied the request: no`)
	admin.do(t, call{method: "DELETE", path: path + "/a"}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, "no")
	change(path+"/a", `{"metadata":{"labels":{"a":"free"}}}`).status2xx(t)
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path + "/a"}, nil)
	unconfigure(t, mutatingHooks, mutating)
	wrong := hooks(t, ns, map[string]opinion{"/w": patches(`[{"op":"replace","path":"/kind","value":"Gizmo"}]`), "/x": patches(`[{"op":"add","path":"/spec","value":{"size":"large"}}]`)})
	for name, told := range map[string]string{"/w": "was made of a", "/x": "spec.size: Invalid value"} {
		config := configure(t, mutatingHooks, "", wrong.webhook(name, of+" CREATE"))
		if a := admin.do(t, call{method: "POST", path: path, body: body}); a.code < 400 || !strings.Contains(string(a.body), told) {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
		unconfigure(t, mutatingHooks, config)
	}
}

// A webhook for one version sees custom resources of another converted, whichever
// is stored, and what it makes of them comes back in the version that was sent.
func TestWebhookSeesConvertedCustomResource(t *testing.T) {
	ns := namespace(t)
	convert := conversionHook(t)
	gvr := define(t, fmt.Sprintf(`
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {hostPort: {type: string}}}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, properties: {host: {type: string}, port: {type: string}}}}}
`, convert.URL, bundleOf(convert)))
	h := hooks(t, ns, map[string]opinion{"/m": patches(`[{"op":"replace","path":"/port","value":"9"}]`)})
	configure(t, mutatingHooks, "", h.webhook("/m", gvr.Group+"/v2 gadgets CREATE"))
	configure(t, validatingHooks, "", h.webhook("/v1", gvr.Group+"/v1 gadgets *"), h.webhook("/v2", gvr.Group+"/v2 gadgets *", "matchPolicy: Exact"))
	v1 := under(gvr.Group+"/v1", "gadgets", ns)
	v2 := under(gvr.Group+"/v2", "gadgets", ns)
	o := admin.want(t, http.StatusCreated, call{method: "POST", path: v1, body: fmt.Sprintf("{apiVersion: %s/v1, kind: Gadget, metadata: {name: a}, hostPort: 'h:1'}", gvr.Group)}, nil).object(t)
	if got := field(o, "hostPort"); got != "h:9" {
		t.Errorf("v1 has %s", got)
	}
	seen := h.expect(t, "create", "/m CREATE gadgets a", "/v1 CREATE gadgets a")
	if s := string(seen[0].Object.Raw); !strings.Contains(s, `"host":"h"`) || !strings.Contains(s, "/v2") || seen[0].RequestKind.Version != "v1" {
		t.Errorf("v2 is shown as %s", s)
	}
	admin.want(t, http.StatusCreated, call{method: "POST", path: v2, body: fmt.Sprintf("{apiVersion: %s/v2, kind: Gadget, metadata: {name: b}, host: x, port: '2'}", gvr.Group)}, nil)
	h.take()
	admin.want(t, http.StatusOK, call{method: "DELETE", path: v2 + "/b"}, nil)
	asked, seen := h.take()
	if len(seen) != 2 {
		t.Fatalf("asked %q", asked)
	}
	for _, q := range seen {
		want := map[string]string{"v1": `"hostPort":"x:9"`, "v2": `"port":"9"`}[q.Kind.Version]
		if !strings.Contains(string(q.OldObject.Raw), want) {
			t.Errorf("%s is shown as %s", q.Kind.Version, q.OldObject.Raw)
		}
	}
}

// Definitions are objects as others are: a webhook may refuse them.
func TestWebhookDeniesDefinition(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("no definitions")})
	configure(t, validatingHooks, "", h.webhook("/no", "apiextensions.k8s.io/* customresourcedefinitions CREATE", "objectSelector: {matchLabels: {probe: "+ns+"}}"))
	body := fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.%[1]s, labels: {probe: %[2]s}}
spec:
  group: %[1]s
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget}%[3]s`, group(t), ns, gadget)
	admin.do(t, call{method: "POST", path: definitions, body: body}).refused(t, http.StatusBadRequest, "", "no definitions")
}

// A service's webhook is at one of its ready endpoints, by the service's name.
func TestWebhookOfService(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("served")}, "hook."+ns+".svc")
	port := h.Listener.Addr().String()[strings.LastIndex(h.Listener.Addr().String(), ":")+1:]
	address := ourAddress(t).String()
	create(t, "services", ns, "{apiVersion: v1, kind: Service, metadata: {name: hook}, spec: {ports: [{name: web, port: 443}]}}")
	create(t, "endpointslices", ns, fmt.Sprintf("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: hook, labels: {kubernetes.io/service-name: hook}}, addressType: IPv4, "+
		"ports: [{name: web, port: %s}], endpoints: [{addresses: [%s]}]}", port, address))
	configure(t, validatingHooks, "", h.webhook("/no", "/v1 configmaps CREATE",
		fmt.Sprintf("clientConfig: {service: {namespace: %q, name: hook, path: /no}, caBundle: %q}", ns, bundleOf(h.Server))))
	post(t, ns, "a", "").refused(t, http.StatusBadRequest, "", `admission webhook "no.example.com" denied the request: served`)
}

// Warnings of webhooks come with the answer, annotations into the audit log.
func TestWebhookWarns(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/w": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, Warnings: []string{"mind the gap"}}
	}})
	configure(t, mutatingHooks, "", h.webhook("/w", "/v1 configmaps CREATE,UPDATE"))
	configure(t, validatingHooks, "", h.webhook("/w", "/v1 configmaps CREATE"))
	if got := post(t, ns, "a", "").header.Values("Warning"); len(got) != 1 || got[0] != `299 - "mind the gap"` {
		t.Errorf("a create warns %q", got)
	}
	a := admin.do(t, call{method: "PATCH", path: at("configmaps", ns, "a"), contentType: mergePatch, body: `{"data":{"a":"b"}}`})
	if got := a.header.Values("Warning"); len(got) != 1 {
		t.Errorf("an update warns %q", got)
	}
}
