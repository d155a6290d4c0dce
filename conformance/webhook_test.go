package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What webhooks must do is said by Kubernetes' documentation, "Dynamic Admission
// Control". Each test has its namespace, which is all that its webhooks are asked
// about.

func post(t *testing.T, ns, name, more string) answer {
	t.Helper()
	return admin.do(t, call{method: "POST", path: at("configmaps", ns), body: mapNamed(name, more)})
}

// A configuration counts when its write is answered, and no longer when its
// deletion is; each change in between as well, by PATCH and PUT.
func TestWebhookCountsAtOnce(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("because"), "/m": patches(`[{"op":"add","path":"/data","value":{"k":"mutated"}}]`)})
	// now has the first rule of a configuration be for some operations.
	now := func(method, resource, name, operations string) {
		t.Helper()
		c := call{method: method, path: at(resource, "", name), contentType: jsonPatch, body: `[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":[` + quoted(operations) + `]}]`}
		if method == "PUT" {
			u := get(t, resource, "", name)
			hooks := u.Object["webhooks"].([]any)
			hooks[0].(map[string]any)["rules"].([]any)[0].(map[string]any)["operations"] = strings.Split(operations, ",")
			c.contentType, c.body = "application/json", encode(t, u.Object)
		}
		admin.want(t, http.StatusOK, c, nil)
	}
	const because = `admission webhook "no.example.com" denied the request: because`
	for i := range 10 {
		name := configure(t, validatingHooks, "", h.webhook("/no", "/v1 configmaps,pods CREATE"))
		post(t, ns, "a", "").refused(t, http.StatusBadRequest, "", because)
		admin.do(t, call{method: "POST", path: at("pods", ns), body: podOf("p")}).refused(t, http.StatusBadRequest, "", because)
		now("PATCH", validatingHooks, name, "DELETE")
		post(t, ns, fmt.Sprint("b", i), "").status2xx(t)
		admin.do(t, call{method: "DELETE", path: at("configmaps", ns, fmt.Sprint("b", i))}).refused(t, http.StatusBadRequest, "", "because")
		now("PUT", validatingHooks, name, "CREATE")
		post(t, ns, "a", "").refused(t, http.StatusBadRequest, "", because)
		unconfigure(t, validatingHooks, name)
		admin.want(t, http.StatusOK, call{method: "DELETE", path: at("configmaps", ns, fmt.Sprint("b", i))}, nil)
	}
	name := configure(t, mutatingHooks, "", h.webhook("/m", "/v1 configmaps CREATE"))
	made := func(what, want string) {
		t.Helper()
		a := admin.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", ns), body: "{metadata: {generateName: m-}}"}, nil)
		if got := field(a.object(t), "data", "k"); got != want {
			t.Errorf("%s: the webhook made %q, want %q", what, got, want)
		}
	}
	made("for creates", "mutated")
	for range 5 {
		now("PUT", mutatingHooks, name, "UPDATE")
		made("put to updates", "")
		now("PATCH", mutatingHooks, name, "CREATE,UPDATE")
		made("patched to both", "mutated")
	}
	unconfigure(t, mutatingHooks, name)
	made("deleted", "")
	metrics := string(admin.do(t, call{path: "/metrics"}).body)
	const rejected = `apiserver_admission_webhook_rejection_count{error_type="no_error",name="no.example.com",operation="CREATE",rejection_code="400",type="validating"}`
	if !strings.Contains(metrics, rejected) {
		t.Errorf("no metric %s", rejected)
	}
}

// Configurations are listed and deleted by their labels, of either kind.
func TestWebhookConfigurationsAreACollection(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("no")})
	for _, resource := range []string{mutatingHooks, validatingHooks} {
		for _, suffix := range []string{"-a", "-b"} {
			name := configure(t, resource, suffix, h.webhook("/no", "/v1 configmaps CREATE"))
			patch(t, resource, "", name, `{"metadata":{"labels":{"probe":"`+ns+`"}}}`)
		}
		selected := at(resource, "") + "?labelSelector=probe=" + ns
		items, _, _ := nested[[]any](admin.want(t, http.StatusOK, call{path: selected}, nil).object(t).Object, "items")
		if len(items) != 2 {
			t.Errorf("%d %s are listed", len(items), resource)
		}
		post(t, ns, resource, "").refused(t, http.StatusBadRequest, "", "denied the request: no")
		admin.want(t, http.StatusOK, call{method: "DELETE", path: selected}, nil)
		post(t, ns, resource, "").status2xx(t)
	}
}

// What a webhook is told: versions, names, old and new object, options, user.
func TestAdmissionReview(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, nil)
	configure(t, validatingHooks, "", h.webhook("/v", "/v1 configmaps *"))
	path := at("configmaps", ns)
	check := func(what string, want map[string]string, asked ...string) {
		t.Helper()
		for _, q := range h.expect(t, what, asked...) {
			got := map[string]string{
				"kind": q.Kind.String(), "requestKind": q.RequestKind.String(), "namespace": q.Namespace, "user": q.UserInfo.Username,
				"dryRun": fmt.Sprint(*q.DryRun), "options": string(q.Options.Raw), "object": dataOf(t, q.Object.Raw), "old": dataOf(t, q.OldObject.Raw),
			}
			for name, text := range want {
				if got[name] != text {
					t.Errorf("%s: %s is %s, want %s", what, name, got[name], text)
				}
			}
		}
	}
	kind := "/v1, Kind=ConfigMap"
	admin.want(t, http.StatusCreated, call{method: "POST", path: path + "?fieldManager=m", body: mapNamed("a", "data: {k: '1'}")}, nil)
	check("create", map[string]string{
		"kind": kind, "requestKind": kind, "namespace": ns, "user": "hansa-admin", "dryRun": "false",
		"options": `{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"m"}`, "object": "v1 ConfigMap a 1", "old": "",
	}, "/v CREATE configmaps a")
	admin.want(t, http.StatusOK, call{method: "PATCH", path: path + "/a?dryRun=All", body: `{"data":{"k":"2"}}`, contentType: mergePatch}, nil)
	check("patch", map[string]string{
		"dryRun": "true", "options": `{"kind":"UpdateOptions","apiVersion":"meta.k8s.io/v1","dryRun":["All"]}`,
		"object": "v1 ConfigMap a 2", "old": "v1 ConfigMap a 1",
	}, "/v UPDATE configmaps a")
	admin.want(t, http.StatusCreated, call{method: "PATCH", path: path + "/b?fieldManager=m", contentType: applyPatch, body: mapNamed("b", "data: {k: '3'}")}, nil)
	check("apply that creates", map[string]string{
		"options": `{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"m"}`, "object": "v1 ConfigMap b 3", "old": "",
	}, "/v CREATE configmaps b")
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path + "/b", body: "{gracePeriodSeconds: 5}"}, nil)
	check("delete", map[string]string{
		"options": `{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/v1","gracePeriodSeconds":5}`, "object": "", "old": "v1 ConfigMap b 3",
	}, "/v DELETE configmaps b")
	post(t, ns, "c", "").status2xx(t)
	h.take()
	// The request names none of them.
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path + "?fieldSelector=metadata.name!=kube-root-ca.crt"}, nil)
	check("delete collection", map[string]string{"object": ""}, "/v DELETE configmaps", "/v DELETE configmaps")
	generated := admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: g-}}"}, nil).object(t)
	check("generated name", nil, "/v CREATE configmaps "+generated.GetName())
}

// dataOf is a ConfigMap in short.
func dataOf(t *testing.T, raw []byte) string {
	t.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var o struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Data              map[string]string `json:"data"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(strings.Join([]string{o.APIVersion, o.Kind, o.Name, o.Data["k"]}, " "))
}

// Configurations are asked in the order of their names, webhooks in theirs; each
// sees what the one before it made.
func TestMutationIsOrdered(t *testing.T) {
	ns := namespace(t)
	add := func(letter string) opinion {
		return func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			var o struct{ Data map[string]string }
			if err := json.Unmarshal(q.Object.Raw, &o); err != nil {
				t.Error(err)
			}
			return patching(fmt.Sprintf(`[{"op":"add","path":"/data/k","value":%q}]`, o.Data["k"]+letter))
		}
	}
	h := hooks(t, ns, map[string]opinion{"/a": add("a"), "/b": add("b"), "/c": add("c")})
	of := "/v1 configmaps CREATE"
	configure(t, mutatingHooks, "-2", h.webhook("/c", of))
	configure(t, mutatingHooks, "-1", h.webhook("/b", of), h.webhook("/a", of))
	post(t, ns, "x", "data: {k: ''}").status2xx(t)
	if got := field(get(t, "configmaps", ns, "x"), "data", "k"); got != "bac" {
		t.Errorf("the webhooks made %q, want bac", got)
	}
}

// A webhook whose reinvocationPolicy is IfNeeded is asked again if a later one
// changed the object, once, and the server's own plugins with it.
func TestReinvocation(t *testing.T) {
	ns := namespace(t)
	once := func(path string) opinion {
		return func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			if strings.Contains(string(q.Object.Raw), `"`+path+`":`) {
				return nil
			}
			return patching(fmt.Sprintf(`[{"op":"add","path":"/metadata/annotations/%s","value":"x"}]`, path))
		}
	}
	h := hooks(t, ns, map[string]opinion{
		"/first": once("first"), "/never": once("never"), "/second": patches(`[{"op":"add","path":"/spec/containers/-","value":{"name":"side","image":"i"}}]`),
		"/last": nil,
	})
	of := "/v1 pods CREATE"
	again := "reinvocationPolicy: IfNeeded"
	configure(t, mutatingHooks, "", h.webhook("/first", of, again), h.webhook("/never", of), h.webhook("/second", of), h.webhook("/last", of, again))
	create(t, "limitranges", ns, "{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Container, default: {cpu: 100m}}]}}")
	p := create(t, "pods", ns, "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {a: b}}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: i}]}}")
	h.expect(t, "pod", "/first CREATE pods p", "/never CREATE pods p", "/second CREATE pods p", "/last CREATE pods p",
		// The last as well: LimitRanger has changed the pod since.
		"/first CREATE pods p", "/last CREATE pods p")
	containers, _, _ := nested[[]any](p.Object, "spec", "containers")
	if len(containers) != 2 || !strings.Contains(encode(t, containers[1]), `"limits":{"cpu":"100m"}`) || !strings.Contains(encode(t, containers[1]), `"imagePullPolicy":"Always"`) {
		t.Errorf("the added container has no limits or defaults: %s", encode(t, containers))
	}
}

// Match conditions decide in the end; one that fails refuses, or lets through if
// the policy is Ignore. They may ask the authorizer.
func TestMatchConditions(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("no"), "/m": patches(`[{"op":"add","path":"/data","value":{"k":"mutated"}}]`)})
	name := configure(t, validatingHooks, "", h.webhook("/no", "/v1 configmaps CREATE",
		`matchConditions: [{name: a, expression: "object.metadata.name != 'skip-me'"}, {name: b, expression: "!has(object.data) || object.data['k'] == 'x'"}, `+
			`{name: c, expression: "authorizer.group('').resource('secrets').namespace(request.namespace).check('get').allowed()"}]`))
	post(t, ns, "skip-me", "").status2xx(t)
	post(t, ns, "a", "data: {k: other}").status2xx(t)
	post(t, ns, "b", "").refused(t, http.StatusBadRequest, "", "denied the request: no")
	post(t, ns, "c", "data: {z: x}").refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, "no such key: k")
	h.expect(t, "conditions", "/no CREATE configmaps b")
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at(validatingHooks, "", name), contentType: jsonPatch, body: `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`}, nil)
	post(t, ns, "c", "data: {z: x}").status2xx(t)
	unconfigure(t, validatingHooks, name)
	h.take()
	configure(t, mutatingHooks, "", h.webhook("/m", "/v1 configmaps CREATE", `matchConditions: [{name: a, expression: "object.metadata.name != 'skip-me-2'"}]`))
	for name, want := range map[string]string{"skip-me-2": "", "d": "mutated"} {
		post(t, ns, name, "").status2xx(t)
		if got := field(get(t, "configmaps", ns, name), "data", "k"); got != want {
			t.Errorf("the mutating webhook made %q of %s, want %q", got, name, want)
		}
	}
	h.expect(t, "conditions of the mutating one", "/m CREATE configmaps d")
	for kind, resource := range map[string]string{"ValidatingWebhookConfiguration": validatingHooks, "MutatingWebhookConfiguration": mutatingHooks} {
		bad := fmt.Sprintf("{apiVersion: admissionregistration.k8s.io/v1, kind: %s, metadata: {name: %s-bad}, webhooks: [%s]}", kind, ns,
			h.webhook("/no", "/v1 configmaps CREATE", `matchConditions: [{name: a, expression: "... [] bad expression"}]`))
		admin.do(t, call{method: "POST", path: at(resource, ""), body: bad}).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "compilation failed")
	}
}

// Selectors go by the labels of the namespace and of the object, old or new.
func TestSelectors(t *testing.T) {
	ns, other := namespace(t), namespaceName(t)+"-other"
	create(t, "namespaces", "", fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s}}", other))
	h := hooks(t, ns, map[string]opinion{"/no": deny("no")})
	configure(t, validatingHooks, "", h.webhook("/no", "/v1 configmaps CREATE,UPDATE", "objectSelector: {matchExpressions: [{key: watched, operator: Exists}]}"))
	post(t, ns, "free", "").status2xx(t)
	labelled := "{apiVersion: v1, kind: ConfigMap, metadata: {name: l, labels: {watched: ''}}}"
	admin.do(t, call{method: "POST", path: at("configmaps", ns), body: labelled}).refused(t, http.StatusBadRequest, "", "no")
	admin.do(t, call{method: "POST", path: at("configmaps", other), body: labelled}).status2xx(t)
	admin.do(t, call{method: "PATCH", path: at("configmaps", ns, "free"), contentType: mergePatch, body: `{"metadata":{"labels":{"watched":"x"}}}`}).refused(t, http.StatusBadRequest, "", "no")
	h.expect(t, "selectors", "/no CREATE configmaps l", "/no UPDATE configmaps free")
	// A namespace is selected by the labels it is about to have; cluster-scoped
	// objects are always.
	configure(t, validatingHooks, "-namespaces", h.webhook("/no", "/v1 namespaces CREATE", "namespaceSelector: {matchLabels: {probe: "+ns+"}}"))
	admin.do(t, call{method: "POST", path: at("namespaces", ""), body: fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s-new, labels: {probe: %s}}}", ns, ns)}).refused(t, http.StatusBadRequest, "", "no")
}

// With the policy Equivalent, the default, a rule for one version stands for all:
// the object is shown in the version of the rule, whichever was sent.
func TestMatchPolicy(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/m": patches(`[{"op":"add","path":"/spec/targetCPUUtilizationPercentage","value":42}]`)})
	configure(t, mutatingHooks, "", h.webhook("/m", "autoscaling/v1 horizontalpodautoscalers CREATE"))
	exact := configure(t, validatingHooks, "", h.webhook("/exact", "autoscaling/v1 horizontalpodautoscalers CREATE", "matchPolicy: Exact"))
	const v2 = "/apis/autoscaling/v2/namespaces/"
	body := func(name string) string {
		return fmt.Sprintf("{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: %s}, spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: d, apiVersion: apps/v1}}}", name)
	}
	o := admin.want(t, http.StatusCreated, call{method: "POST", path: v2 + ns + "/horizontalpodautoscalers", body: body("h")}, nil).object(t)
	seen := h.expect(t, "equivalent", "/m CREATE horizontalpodautoscalers h")
	if q := seen[0]; q.Kind.Version != "v1" || q.Resource.Version != "v1" || q.RequestKind.Version != "v2" || q.RequestResource.Version != "v2" || !strings.Contains(string(q.Object.Raw), `"apiVersion":"autoscaling/v1"`) {
		t.Errorf("shown as %v, asked for as %v: %s", q.Kind, q.RequestKind, q.Object.Raw)
	}
	if !strings.Contains(encode(t, o.Object), `"averageUtilization":42`) {
		t.Errorf("stored %s", encode(t, o.Object["spec"]))
	}
	unconfigure(t, validatingHooks, exact)
}

// A dry run asks webhooks, which have no side effects then (v1 knows no others), and
// tells them so.
func TestSideEffects(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, nil)
	configure(t, mutatingHooks, "", h.webhook("/m", "/v1 configmaps CREATE", "sideEffects: NoneOnDryRun"))
	dry := call{method: "POST", path: at("configmaps", ns) + "?dryRun=All", body: mapNamed("a", "")}
	admin.do(t, dry).status2xx(t)
	if seen := h.expect(t, "dry run", "/m CREATE configmaps a"); !*seen[0].DryRun {
		t.Error("the webhook is not told that it is a dry run")
	}
	if !gone(t, "configmaps", ns, "a") {
		t.Error("a dry run stored")
	}
}

// CONNECT: exec, attach, port-forward and proxies are asked about with their
// options; a log is read, and nobody is asked.
func TestConnectWebhook(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("no connection")})
	create(t, "pods", ns, "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: i}]}}")
	configure(t, validatingHooks, "", h.webhook("/no", "/v1 pods/* CONNECT"))
	for sub, kind := range map[string]string{"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions", "proxy": "PodProxyOptions"} {
		admin.do(t, call{method: "POST", path: at("pods", ns, "p", sub) + "?container=c&command=x"}).refused(t, http.StatusBadRequest, "", "no connection")
		q := h.expect(t, sub, "/no CONNECT pods/"+sub+" p")[0]
		if q.Kind.Kind != kind || !strings.Contains(string(q.Object.Raw), `"kind":"`+kind+`"`) || string(q.OldObject.Raw) != "" && string(q.OldObject.Raw) != "null" {
			t.Errorf("%s is shown as %s %s", sub, q.Kind, q.Object.Raw)
		}
	}
	admin.do(t, call{path: at("pods", ns, "p", "log")})
	h.expect(t, "log")
}

// Subresources are asked about as such, in their own kinds; the deletion of an
// evicted pod is not asked about beside its eviction.
func TestSubresourceWebhook(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/m": func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if q.SubResource == "scale" {
			return patching(`[{"op":"replace","path":"/spec/replicas","value":0}]`)
		}
		return nil
	}})
	create(t, "pods", ns, "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: i}]}}")
	create(t, "pods", ns, "{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {schedulerName: none, containers: [{name: c, image: i}]}}")
	create(t, "deployments", ns, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}")
	configure(t, mutatingHooks, "",
		h.webhook("/m", "/v1 pods,pods/*,serviceaccounts/token CREATE,UPDATE,DELETE"),
		h.webhook("/m", "apps/v1 deployments/scale UPDATE", "name: scale.example.com"))
	kinds := func(what string, want ...string) {
		t.Helper()
		asked, seen := h.take()
		var got []string
		for i, q := range seen {
			if q.UserInfo.Username == "hansa-admin" {
				got = append(got, asked[i]+" "+q.Kind.Kind)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: asked %q, want %q", what, got, want)
		}
	}
	admin.do(t, call{method: "PATCH", path: at("pods", ns, "p", "status"), contentType: mergePatch, body: `{"status":{"reason":"x"}}`}).status2xx(t)
	kinds("status", "/m UPDATE pods/status p Pod")
	scaled := admin.want(t, http.StatusOK, call{method: "PATCH", path: at("deployments", ns, "d", "scale"), contentType: mergePatch, body: `{"spec":{"replicas":7}}`}, nil).object(t)
	kinds("scale", "/m UPDATE deployments/scale d Scale")
	if was, is := field(scaled, "spec", "replicas"), field(get(t, "deployments", ns, "d"), "spec", "replicas"); was != "" || is != "0" {
		t.Errorf("the webhook's replicas, 0, became %q and %q", was, is)
	}
	admin.do(t, call{method: "POST", path: at("serviceaccounts", ns, "default", "token"), body: "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: {}}"}).status2xx(t)
	kinds("token", "/m CREATE serviceaccounts/token default TokenRequest")
	admin.do(t, call{method: "POST", path: at("pods", ns, "q", "binding"), body: "{apiVersion: v1, kind: Binding, target: {kind: Node, name: nowhere}}"}).status2xx(t)
	kinds("binding", "/m CREATE pods/binding q Binding")
	admin.do(t, call{method: "POST", path: at("pods", ns, "p", "eviction"), body: "{apiVersion: policy/v1, kind: Eviction, metadata: {name: p}}"}).status2xx(t)
	kinds("eviction", "/m CREATE pods/eviction p Eviction")
}

// No webhook is asked about webhook configurations, nor about reviews of who may
// do what.
func TestWebhooksAreNotAskedAboutThemselves(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/no": deny("no")})
	all := "namespaceSelector: {}"
	name := configure(t, validatingHooks, "", h.webhook("/no", "*/* "+validatingHooks+","+mutatingHooks+",subjectaccessreviews,tokenreviews,selfsubjectreviews *", all))
	configure(t, mutatingHooks, "", h.webhook("/no", "admissionregistration.k8s.io/* * *", all))
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at(validatingHooks, "", name), contentType: mergePatch, body: `{"metadata":{"labels":{"a":"b"}}}`}, nil)
	admin.do(t, call{method: "POST", path: at("selfsubjectreviews", ""), body: encode(t, &authenticationv1.SelfSubjectReview{TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "SelfSubjectReview"}})}).status2xx(t)
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at(validatingHooks, "", name)}, nil)
	h.expect(t, "configurations")
}
