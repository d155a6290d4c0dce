package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// badInput are requests that are refused, with what Kubernetes 1.37 says. NS
// stands for the test's namespace.
var badInput = []struct {
	name    string
	in      call
	code    int
	reason  metav1.StatusReason
	message string
	causes  []string
}{
	{
		"malformed JSON", call{method: "POST", path: "NS/configmaps", contentType: "application/json", body: `{"metadata":`},
		400, metav1.StatusReasonBadRequest, "unexpected end of JSON input", nil,
	},
	{
		"JSON that is no object", call{method: "POST", path: "NS/configmaps", contentType: "application/json", body: `[1]`},
		400, metav1.StatusReasonBadRequest, "couldn't get version/kind; json parse error", nil,
	},
	{
		"JSON with more behind it", call{method: "POST", path: "NS/configmaps", contentType: "application/json", body: `{"metadata":{"name":"x"}} more`},
		400, metav1.StatusReasonBadRequest, "invalid character 'm' after top-level value", nil,
	},
	{
		"JSON that is too deep", call{method: "POST", path: "NS/configmaps", contentType: "application/json", body: strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000)},
		400, metav1.StatusReasonBadRequest, "exceeded max depth", nil,
	},
	{
		"YAML that multiplies", call{method: "POST", path: "NS/configmaps", body: multiplying()},
		400, metav1.StatusReasonBadRequest, "document contains excessive aliasing", nil,
	},
	{
		"a number that is too large", call{method: "POST", path: "NS/services", body: `{"metadata":{"name":"x"},"spec":{"ports":[{"port":99999999999}]}}`},
		400, metav1.StatusReasonBadRequest, "json: cannot unmarshal number 99999999999 into Go struct field", nil,
	},
	{
		"keys in another case, strictly", call{method: "POST", path: "NS/configmaps?fieldValidation=Strict", contentType: "application/json", body: `{"Metadata":{"name":"x"}}`},
		400, metav1.StatusReasonBadRequest, `unknown field "Metadata"`, nil,
	},
	{
		"no time at all", call{path: "NS/configmaps?timeout=1ns"},
		504, metav1.StatusReasonTimeout, "request did not complete within requested timeout", nil,
	},
	{
		"no body", call{method: "POST", path: "NS/configmaps", contentType: "application/json"},
		400, metav1.StatusReasonBadRequest, "", nil,
	},
	{
		"malformed YAML", call{method: "POST", path: "NS/configmaps", body: "a: ["},
		400, metav1.StatusReasonBadRequest, "yaml: line 1: did not find expected node content", nil,
	},
	{
		"malformed protobuf", call{method: "POST", path: "NS/configmaps", contentType: "application/vnd.kubernetes.protobuf", body: "k8s\x00\x0a\xff"},
		400, metav1.StatusReasonBadRequest, "", nil,
	},
	{
		"protobuf without its prefix", call{method: "POST", path: "NS/configmaps", contentType: "application/vnd.kubernetes.protobuf", body: "xxxx"},
		400, metav1.StatusReasonBadRequest, "provided data does not appear to be a protobuf message, expected prefix", nil,
	},
	{
		"wrong type of a field", call{method: "POST", path: "NS/services", body: `{"metadata":{"name":"x"},"spec":{"ports":"80"}}`},
		400, metav1.StatusReasonBadRequest, `Service in version "v1" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort`, nil,
	},
	{
		"a number where a quantity should be", call{method: "POST", path: "NS/pods", body: `{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"much"}}}]}}`},
		400, metav1.StatusReasonBadRequest, "quantities must match the regular expression", nil,
	},
	{
		"another kind", call{method: "POST", path: "NS/configmaps", body: `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`},
		400, metav1.StatusReasonBadRequest, "", nil,
	},
	{
		"an unknown kind", call{method: "POST", path: "NS/configmaps", body: `{"apiVersion":"v1","kind":"Nonsense"}`},
		400, metav1.StatusReasonBadRequest, `no kind "Nonsense" is registered for version "v1"`, nil,
	},
	{
		"another version", call{method: "POST", path: "NS/events", body: `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"x"}}`},
		400, metav1.StatusReasonBadRequest, "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)", nil,
	},
	{
		"keys twice, strictly", call{method: "POST", path: "NS/configmaps?fieldValidation=Strict", contentType: "application/json", body: `{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}`},
		400, metav1.StatusReasonBadRequest, `strict decoding error: duplicate field "data.a"`, nil,
	},
	{
		"oversized body", call{method: "POST", path: "NS/configmaps", body: strings.Repeat(" ", 3<<20+1)},
		413, metav1.StatusReasonRequestEntityTooLarge, "limit is 3145728", nil,
	},
	{
		"oversized patch", call{method: "PATCH", path: "NS/configmaps/have", contentType: mergePatch, body: strings.Repeat(" ", 3<<20+1)},
		413, metav1.StatusReasonRequestEntityTooLarge, "limit is 3145728", nil,
	},
	{
		"object that is too large", call{method: "POST", path: "NS/configmaps", body: `{"metadata":{"name":"x"},"data":{"k":"` + strings.Repeat("x", 1<<20+1) + `"}}`},
		422, metav1.StatusReasonInvalid, "Too long: may not be more than 1048576 bytes", []string{"FieldValueTooLong []"},
	},
	{
		"content type", call{method: "POST", path: "NS/configmaps", contentType: "text/plain", body: "x"},
		415, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml", nil,
	},
	{
		"content type of a patch", call{method: "PATCH", path: "NS/configmaps/have", contentType: "application/json", body: "{}"},
		415, metav1.StatusReasonUnsupportedMediaType, "415: Unsupported Media Type", nil,
	},
	{
		"accept", call{path: "NS/configmaps", accept: "text/html"},
		406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor", nil,
	},
	{
		"stale version", call{method: "PUT", path: "NS/configmaps/have", body: `{"metadata":{"name":"have","resourceVersion":"1"}}`},
		409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on configmaps "have": the object has been modified`, nil,
	},
	{
		"what exists", call{method: "POST", path: "NS/configmaps", body: `{"metadata":{"name":"have"}}`},
		409, metav1.StatusReasonAlreadyExists, `configmaps "have" already exists`, nil,
	},
	{
		"what is not there", call{path: "NS/configmaps/none"},
		404, metav1.StatusReasonNotFound, `configmaps "none" not found`, nil,
	},
	{
		"a number of lines", call{path: "NS/pods/none/log?tailLines=x"},
		400, metav1.StatusReasonBadRequest, `strconv.ParseInt: parsing "x": invalid syntax`, nil,
	},
	{
		"a negative number of lines", call{path: "NS/pods/none/log?tailLines=-1"},
		422, metav1.StatusReasonInvalid, `PodLogOptions "none" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`, []string{"FieldValueInvalid tailLines"},
	},
	{
		"no bytes, since two times", call{path: "NS/pods/none/log?limitBytes=0&sinceTime=&sinceSeconds=0"},
		422, metav1.StatusReasonInvalid, "PodLogOptions \"none\" is invalid: [limitBytes: Invalid value: 0: must be greater than 0, []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified]", nil,
	},
	{
		"a version", call{path: "NS/configmaps?resourceVersion=x"},
		400, metav1.StatusReasonBadRequest, `invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`, nil,
	},
	{
		"a version of one", call{path: "NS/configmaps/have?resourceVersion=x"},
		500, metav1.StatusReasonUnknown, `resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`, nil,
	},
	{
		"a version to watch from", call{path: "NS/configmaps?watch=1&resourceVersion=x"},
		500, metav1.StatusReasonUnknown, `resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`, nil,
	},
	{
		"a place to continue at", call{path: "NS/configmaps?continue=x"},
		400, metav1.StatusReasonBadRequest, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0", nil,
	},
	{
		"accept of the version", call{path: "/version", accept: "application/yaml"},
		406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json", nil,
	},
	{
		"accept of what a version has", call{path: "/apis/apps/v1", accept: "application/*"},
		406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor", nil,
	},
	{
		"a JSON patch that is none", call{method: "PATCH", path: "NS/configmaps/have", contentType: "application/json-patch+json", body: "{}"},
		400, metav1.StatusReasonBadRequest, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp", nil,
	},
	{
		"export", call{path: "NS/configmaps/have?export=true"},
		400, metav1.StatusReasonBadRequest, "the export parameter, deprecated since v1.14, is no longer supported", nil,
	},
	{
		"another name", call{method: "PUT", path: "NS/configmaps/have", body: `{"metadata":{"name":"other"}}`},
		400, metav1.StatusReasonBadRequest, "the name of the object (other) does not match the name on the URL (have)", nil,
	},
	{
		"no name in an update", call{method: "PUT", path: "NS/configmaps/have", body: `{"metadata":{}}`},
		400, metav1.StatusReasonBadRequest, "the name of the object (have based on URL) was undeterminable: name must be provided", nil,
	},
	{
		"another namespace", call{method: "POST", path: "NS/configmaps", body: `{"metadata":{"name":"x","namespace":"other"}}`},
		400, metav1.StatusReasonBadRequest, "the namespace of the provided object does not match the namespace sent on the request", nil,
	},
	{
		"no name", call{method: "POST", path: "NS/configmaps", body: `{"metadata":{"labels":{"-":"x"}}}`},
		422, metav1.StatusReasonInvalid, `ConfigMap "" is invalid: [metadata.name: Required value: name or generateName is required`,
		[]string{"FieldValueRequired metadata.name", "FieldValueInvalid metadata.labels"},
	},
	{
		"a label selector", call{path: "NS/configmaps?labelSelector=a+b+c"},
		400, metav1.StatusReasonBadRequest, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt", nil,
	},
	{
		"a limit", call{path: "NS/configmaps?limit=x"},
		400, metav1.StatusReasonBadRequest, `strconv.ParseInt: parsing "x": invalid syntax`, nil,
	},
	{
		"a dry run of another sort", call{method: "POST", path: "NS/configmaps?dryRun=Some", body: `{"metadata":{"name":"x"}}`},
		422, metav1.StatusReasonInvalid, `dryRun: Unsupported value: ["Some"]: supported values: "All"`, []string{"FieldValueNotSupported dryRun"},
	},
	{
		"a manager that is too long", call{method: "POST", path: "NS/configmaps?fieldManager=" + strings.Repeat("m", 129), body: `{"metadata":{"name":"x"}}`},
		422, metav1.StatusReasonInvalid, "fieldManager: Too long: may not be more than 128", []string{"FieldValueTooLong fieldManager"},
	},
	{
		"malformed patch", call{method: "PATCH", path: "NS/configmaps/have", contentType: mergePatch, body: "{"},
		400, metav1.StatusReasonBadRequest, "invalid JSON patch", nil,
	},
	{
		"patch to a wrong type", call{method: "PATCH", path: "NS/configmaps/have", contentType: mergePatch, body: `{"data":1}`},
		422, metav1.StatusReasonInvalid, "json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string", []string{"FieldValueInvalid patch"},
	},
	{
		"a time", call{path: "NS/configmaps?timeout=x"},
		400, metav1.StatusReasonBadRequest, "invalid timeout specified in the request URL", nil,
	},
	{
		"options of a delete", call{method: "DELETE", path: "NS/configmaps/have", contentType: "application/json", body: `{"gracePeriodSeconds":"soon"}`},
		400, metav1.StatusReasonBadRequest, "", nil,
	},
	{
		"a dry run of some stages", call{method: "DELETE", path: "NS/configmaps/have?dryRun=Some"},
		422, metav1.StatusReasonInvalid, `dryRun: Unsupported value: ["Some"]`, []string{"FieldValueNotSupported dryRun"},
	},
	{
		"a namespace that is not there", call{method: "POST", path: "/api/v1/namespaces/nowhere/configmaps", body: `{"metadata":{"name":"x"}}`},
		404, metav1.StatusReasonNotFound, `namespaces "nowhere" not found`, nil,
	},
}

// multiplying is a small document of nine to the eighth texts.
func multiplying() string {
	text := `a: &a ["x","x","x","x","x","x","x","x","x"]` + "\n"
	for c := 'b'; c <= 'h'; c++ {
		text += fmt.Sprintf("%[1]c: &%[1]c [%[2]s]\n", c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 8)+fmt.Sprintf("*%c", c-1))
	}
	return text
}

// Bad input gets the status, reason and causes that Kubernetes gives.
func TestBadInput(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: have}")
	for _, b := range badInput {
		t.Run(b.name, func(t *testing.T) {
			b.in.path = strings.Replace(b.in.path, "NS/", "/api/v1/namespaces/"+ns+"/", 1)
			s := admin.do(t, b.in).refused(t, b.code, b.reason, b.message)
			if got := causesOf(s); b.causes != nil && !slices.Equal(got, b.causes) {
				t.Errorf("causes are %q, want %q", got, b.causes)
			}
		})
	}
}

// Numbers in annotations that have been fields are read while a body is converted:
// Kubernetes' pkg/apis/apps/v1/conversion.go. How that fails depends on the way.
func TestUnreadableAnnotations(t *testing.T) {
	ns := namespace(t)
	for _, c := range []struct{ resource, kind, annotation, message string }{
		{"daemonsets", "DaemonSet", "deprecated.daemonset.template.generation", `strconv.ParseInt: parsing "x": invalid syntax`},
		{"deployments", "Deployment", "deprecated.deployment.rollback.to", `failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing "x": invalid syntax`},
	} {
		object := func(value string) string {
			return fmt.Sprintf("apiVersion: apps/v1\nkind: %s\nmetadata: {name: a, annotations: {%s: %q}}\n", c.kind, c.annotation, value) +
				"spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {nodeSelector: {no: where}, containers: [{name: c, image: i}]}}}"
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"x"}}}`, c.annotation)
		body := fmt.Sprintf(`%s in version "v1" cannot be handled as a %[1]s: %s`, c.kind, c.message)
		one := at(c.resource, ns, "a")
		admin.do(t, call{method: "POST", path: at(c.resource, ns), body: object("x")}).refused(t, 400, metav1.StatusReasonBadRequest, body)
		create(t, c.resource, ns, strings.Replace(object("007"), "spec: {", "spec: {minReadySeconds: 1, ", 1))
		admin.do(t, call{method: "PUT", path: one, body: object("x")}).refused(t, 400, metav1.StatusReasonBadRequest, body)
		admin.do(t, call{method: "PATCH", path: one, contentType: mergePatch, body: patch}).refused(t, 422, metav1.StatusReasonInvalid, c.message)
		admin.do(t, call{method: "PATCH", path: one, contentType: strategicPatch, body: patch}).refused(t, 500, metav1.StatusReasonUnknown, c.message)
		admin.do(t, applyCall(c.resource, ns, "a", "m", "&force=true", object("x"))).
			refused(t, 500, metav1.StatusReasonUnknown, fmt.Sprintf("failed to convert to unversioned (/a; apps/v1, Kind=%s): %s", c.kind, c.message))
	}
	if got := field(get(t, "daemonsets", ns, "a"), "metadata", "annotations", "deprecated.daemonset.template.generation"); got != "7" {
		t.Errorf("007 is stored as %v", got)
	}
}

// What a method cannot do is 405, what there is not in a group is 404, each in one
// sentence; what is of no group is a text, and whoever may not ask is told that.
func TestMethodsAndPaths(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: have}")
	for _, c := range []struct {
		method, path string
	}{
		{"POST", at("configmaps", ns, "have")},
		{"PUT", at("configmaps", ns)},
		{"PATCH", at("configmaps", ns)},
		{"POST", at("configmaps", "")},
		{"DELETE", at("configmaps", "")},
		{"GET", at("tokenreviews", "")},
		{"DELETE", at("namespaces", "")},
		{"DELETE", at("deployments", ns, "d", "status")},
		{"POST", at("deployments", ns, "d", "scale")},
		{"GET", at("pods", ns, "p", "binding")},
		{"PUT", at("pods", ns, "p", "eviction")},
	} {
		s := admin.do(t, call{method: c.method, path: c.path, body: "{}"}).refused(t, 405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource")
		if t.Failed() {
			t.Fatalf("%s %s: %s", c.method, c.path, s.Message)
		}
	}
	for _, path := range []string{
		"/api/v2", "/apis/apps/v2/deployments", "/api/v1/nonsense", at("configmaps", ns, "have", "nonsense"), at("configmaps", ns, "have", "status"),
		"/api/v1/namespaces/" + ns + "/nodes", "/api/v1/namespaces/" + ns + "/namespaces/default", at("pods", ns, "p", "log", "x"),
	} {
		admin.do(t, call{path: path}).refused(t, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	}
	for _, path := range []string{"/nonsense", "/apis/none", "/apis/none/v1", "/openapi/v4", "/healthz/nonsense", "/swagger.json"} {
		a := admin.do(t, call{path: path})
		if a.code != http.StatusNotFound || string(a.body) != "404 page not found\n" {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	nobody := impersonating(t, "nobody-at-all")
	nobody.do(t, call{path: "/api/v1/nonsense"}).refused(t, 403, metav1.StatusReasonForbidden, `nonsense is forbidden: User "nobody-at-all" cannot list resource "nonsense" in API group "" at the cluster scope`)
	nobody.do(t, call{path: "/nonsense"}).refused(t, 403, metav1.StatusReasonForbidden, `forbidden: User "nobody-at-all" cannot get path "/nonsense"`)
	nobody.do(t, call{method: "PATCH", path: at("pods", ns, "<p>", "status"), contentType: mergePatch, body: "{}"}).
		refused(t, 403, metav1.StatusReasonForbidden, `pods "<p>" is forbidden: User "nobody-at-all" cannot patch resource "pods/status" in API group "" in the namespace "`+ns+`"`)
	for path, code := range map[string]int{at("configmaps", ns, "have"): 405, at("pods", ""): 405, "/version": 405, "/apis": 200, "/readyz": 200, "/statusz": 200} {
		if head := admin.do(t, call{method: "HEAD", path: path}); head.code != code || len(head.body) != 0 {
			t.Errorf("HEAD of %s: %d, %d bytes", path, head.code, len(head.body))
		}
	}
}

// The form of an answer is the client's choice: pretty or not, compressed or
// not, and errors in the form that was asked for.
func TestAnswers(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: small}")
	create(t, "configmaps", ns, fmt.Sprintf("metadata: {name: big}\ndata: {k: %q}", strings.Repeat("x", 200<<10)))
	if a := admin.do(t, call{path: at("configmaps", ns, "small") + "?pretty=true"}); !strings.Contains(string(a.body), "\n  \"metadata\": {\n") {
		t.Errorf("pretty answer is %.80s", a.body)
	}
	if a := admin.do(t, call{path: at("configmaps", ns, "small"), header: map[string]string{"User-Agent": "curl/8"}}); !strings.Contains(string(a.body), "\n  \"kind\"") {
		t.Errorf("answer to curl is %.80s", a.body)
	}
	if a := admin.do(t, call{path: at("configmaps", ns, "small")}); strings.Count(string(a.body), "\n") != 1 {
		t.Errorf("plain answer is %s", a.body)
	}
	for name, encoding := range map[string]string{"small": "", "big": "gzip"} {
		a := admin.do(t, call{path: at("configmaps", ns, name), header: map[string]string{"Accept-Encoding": "gzip"}})
		if got := a.header.Get("Content-Encoding"); got != encoding {
			t.Errorf("%s object has encoding %q", name, got)
		}
	}
	a := admin.do(t, call{path: at("configmaps", ns, "none"), accept: "application/yaml"})
	if a.code != 404 || a.header.Get("Content-Type") != "application/yaml" || !strings.Contains(string(a.body), "reason: NotFound\n") {
		t.Errorf("an error in YAML is %s", a.body)
	}
	if id := a.header.Get("Audit-Id"); len(id) != 36 || a.header.Get("Cache-Control") != "no-cache, private" {
		t.Errorf("Audit-Id %q, Cache-Control %q", id, a.header.Get("Cache-Control"))
	}
}
