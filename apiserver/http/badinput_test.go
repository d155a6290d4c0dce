package http_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apihttp "hansa.dev/hansa/apiserver/http"
)

// badInput are requests that are refused, with what Kubernetes v1.37 says.
var badInput = []struct {
	name    string
	in      call
	code    int32
	reason  metav1.StatusReason
	message string   // contained
	causes  []string // "TYPE FIELD"
}{
	{
		"malformed JSON", call{method: "POST", path: configMaps, body: `{"metadata":`},
		400, metav1.StatusReasonBadRequest, `the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"metadata":)`, nil,
	},
	{
		"malformed YAML", call{method: "POST", path: configMaps, body: "a: [", contentType: "application/yaml"},
		400, metav1.StatusReasonBadRequest, "the object provided is unrecognized (must be of type ConfigMap): yaml: line 1: did not find expected node content", nil,
	},
	{
		"wrong type of a field", call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"k":1}}`},
		400, metav1.StatusReasonBadRequest, `ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`, nil,
	},
	{
		"another kind", call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`},
		400, metav1.StatusReasonBadRequest, `Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion`, nil,
	},
	{
		"unknown kind", call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"Nonsense"}`},
		400, metav1.StatusReasonBadRequest, `Nonsense in version "v1" cannot be handled as a ConfigMap: no kind "Nonsense" is registered for version "v1"`, nil,
	},
	{
		"another version", call{method: "POST", path: "/api/v1/namespaces/default/events", body: `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"x"}}`},
		400, metav1.StatusReasonBadRequest, "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)", nil,
	},
	{
		"repeated and unknown keys, strictly", call{
			method: "POST", path: configMaps + "?fieldValidation=Strict",
			body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","name":"y"},"nonsense":1}`,
		},
		400, metav1.StatusReasonBadRequest, `strict decoding error: duplicate field "metadata.name", unknown field "nonsense"`, nil,
	},
	{
		"repeated keys in YAML, strictly", call{
			method: "POST", path: configMaps + "?fieldValidation=Strict", contentType: "application/yaml",
			body: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: \"1\"\n  a: \"2\"\n",
		},
		400, metav1.StatusReasonBadRequest, "strict decoding error: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map", nil,
	},
	{
		"oversized body", call{method: "POST", path: configMaps, body: strings.Repeat(" ", apihttp.MaxBody+1)},
		413, metav1.StatusReasonRequestEntityTooLarge, "Request entity too large: limit is 3145728", nil,
	},
	{
		"content type", call{method: "POST", path: configMaps, body: "x", contentType: "text/plain"},
		415, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor", nil,
	},
	{
		"content type of a patch", call{method: "PATCH", path: configMaps + "/have", body: "{}", contentType: "application/json"},
		415, metav1.StatusReasonUnsupportedMediaType, "415: Unsupported Media Type", nil,
	},
	{
		"accept", call{path: configMaps, accept: "text/html"},
		406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq", nil,
	},
	{
		"accept of one", call{path: configMaps + "/have", accept: "application/*, text/html; q=0.5"},
		406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor", nil,
	},
	{
		"accept as another kind", call{path: configMaps, accept: "application/json;as=Nonsense;v=v1;g=meta.k8s.io"},
		406, metav1.StatusReasonNotAcceptable, "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor", nil,
	},
	{
		"stale version", call{method: "PUT", path: configMaps + "/have", body: `{"metadata":{"name":"have","resourceVersion":"1"}}`},
		409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on configmaps "have": the object has been modified; please apply your changes to the latest version and try again`, nil,
	},
	{
		"what exists", call{method: "POST", path: configMaps, body: `{"metadata":{"name":"have"}}`},
		409, metav1.StatusReasonAlreadyExists, `configmaps "have" already exists`, nil,
	},
	{
		"what is not there", call{path: configMaps + "/none"},
		404, metav1.StatusReasonNotFound, `configmaps "none" not found`, nil,
	},
	{
		"what is not there, of a kind of two groups", call{path: "/apis/events.k8s.io/v1/namespaces/default/events/none"},
		404, metav1.StatusReasonNotFound, `events.events.k8s.io "none" not found`, nil,
	},
	{
		"what is not there, of a kind of two groups, in the other", call{path: "/api/v1/namespaces/default/events/none"},
		404, metav1.StatusReasonNotFound, `events "none" not found`, nil,
	},
	{
		// Its contents are those of the kind that is stored.
		"invalid fields of a kind of two groups", call{method: "POST", path: "/apis/events.k8s.io/v1/namespaces/default/events", body: `{"metadata":{"name":"x"},"regarding":{"namespace":"default"},"type":"Normal","eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"c","reportingInstance":"i","action":"a"}`},
		422, metav1.StatusReasonInvalid, `Event "x" is invalid: reason: Required value`, []string{"FieldValueRequired reason"},
	},
	{
		"another name", call{method: "PUT", path: configMaps + "/have", body: `{"metadata":{"name":"other"}}`},
		400, metav1.StatusReasonBadRequest, "the name of the object (other) does not match the name on the URL (have)", nil,
	},
	{
		"another namespace", call{method: "POST", path: configMaps, body: `{"metadata":{"name":"x","namespace":"other"}}`},
		400, metav1.StatusReasonBadRequest, "the namespace of the provided object does not match the namespace sent on the request", nil,
	},
	{
		"invalid fields", call{method: "POST", path: configMaps, body: `{"metadata":{"name":"A","labels":{"-":"x"}},"data":{"a/b":""}}`},
		422, metav1.StatusReasonInvalid, `ConfigMap "A" is invalid: [metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain`,
		[]string{"FieldValueInvalid metadata.name", "FieldValueInvalid metadata.labels", "FieldValueInvalid data[a/b]"},
	},
	{
		"no name", call{method: "POST", path: configMaps, body: `{}`},
		422, metav1.StatusReasonInvalid, `ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`,
		[]string{"FieldValueRequired metadata.name"},
	},
	{
		"dry run of another sort", call{method: "POST", path: configMaps + "?dryRun=Some", body: `{"metadata":{"name":"x"}}`},
		422, metav1.StatusReasonInvalid, `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"`,
		[]string{"FieldValueNotSupported dryRun"},
	},
	{
		"apply without a manager", call{method: "PATCH", path: configMaps + "/have", body: "{}", contentType: "application/apply-patch+yaml"},
		422, metav1.StatusReasonInvalid, `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`,
		[]string{"FieldValueRequired fieldManager"},
	},
	{
		"malformed patch", call{method: "PATCH", path: configMaps + "/have", body: "{", contentType: "application/merge-patch+json"},
		400, metav1.StatusReasonBadRequest, "invalid JSON patch", nil,
	},
	{
		// https://github.com/kubernetes/kubernetes/pull/74000: each copy doubles what there is.
		"JSON patch that copies without end", call{
			method: "PATCH", path: configMaps + "/have", contentType: "application/json-patch+json",
			body: doubling(12),
		},
		422, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request", nil,
	},
	{
		// RFC 6902 section 4.6: the value is due.
		"JSON patch that tests for nothing", call{method: "PATCH", path: configMaps + "/have", contentType: "application/json-patch+json", body: `[{"op":"test","path":""}]`},
		422, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request", nil,
	},
	{
		"merge patch within itself", call{
			method: "PATCH", path: configMaps + "/have", contentType: "application/merge-patch+json",
			body: strings.Repeat(`{"[{\"":`, 129) + "1" + strings.Repeat("}", 129),
		},
		400, metav1.StatusReasonBadRequest, "the patch is nested too deep: at most 128 levels are allowed", nil,
	},
	{
		"JSON patch far down", call{
			method: "PATCH", path: configMaps + "/have", contentType: "application/json-patch+json",
			body: `[{"op":"test","path":"/data` + strings.Repeat("/k", 128) + `","value":1}]`,
		},
		400, metav1.StatusReasonBadRequest, "the patch is nested too deep: at most 128 levels are allowed", nil,
	},
	{
		"patch to a wrong type", call{method: "PATCH", path: configMaps + "/have", body: `{"data":1}`, contentType: "application/merge-patch+json"},
		422, metav1.StatusReasonInvalid, `json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string`,
		[]string{"FieldValueInvalid patch"},
	},
	{
		"label selector", call{path: configMaps + "?labelSelector=a+b+c"},
		400, metav1.StatusReasonBadRequest, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt", nil,
	},
	{
		"field selector", call{path: configMaps + "?fieldSelector=data%3Dx"},
		400, metav1.StatusReasonBadRequest, `"data" is not a known field selector: only "metadata.name", "metadata.namespace"`, nil,
	},
	{
		"field selector of namespaces", call{path: "/api/v1/namespaces?fieldSelector=spec%3Dx"},
		400, metav1.StatusReasonBadRequest, "field label not supported: spec", nil,
	},
	{
		"limit", call{path: configMaps + "?limit=x"},
		400, metav1.StatusReasonBadRequest, `strconv.ParseInt: parsing "x": invalid syntax`, nil,
	},
	{
		"match without version", call{path: configMaps + "?resourceVersionMatch=Exact"},
		422, metav1.StatusReasonInvalid, "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
		[]string{"FieldValueForbidden resourceVersionMatch"},
	},
	{
		"method", call{method: "POST", path: configMaps + "/have", body: "{}"},
		405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource", nil,
	},
	{
		"no credential", call{path: configMaps, token: "-"},
		401, metav1.StatusReasonUnauthorized, "Unauthorized", nil,
	},
	{
		"wrong credential", call{path: "/version", token: "nonsense"},
		401, metav1.StatusReasonUnauthorized, "Unauthorized", nil,
	},
	{
		"forbidden get", call{path: configMaps + "/x", token: "u"},
		403, metav1.StatusReasonForbidden, `configmaps "x" is forbidden: User "u" cannot get resource "configmaps" in API group "" in the namespace "default"`, nil,
	},
	{
		"forbidden list of all namespaces", call{path: "/apis/apps/v1/deployments", token: "u"},
		403, metav1.StatusReasonForbidden, `deployments.apps is forbidden: User "u" cannot list resource "deployments" in API group "apps" at the cluster scope`, nil,
	},
	{
		"forbidden subresource", call{method: "PUT", path: "/api/v1/namespaces/default/pods/p/status", body: "{}", token: "u"},
		403, metav1.StatusReasonForbidden, `pods "p" is forbidden: User "u" cannot update resource "pods/status" in API group "" in the namespace "default"`, nil,
	},
	{
		"forbidden path", call{path: "/metrics", token: "u"},
		403, metav1.StatusReasonForbidden, `forbidden: User "u" cannot get path "/metrics"`, nil,
	},
	{
		"forbidden nonsense", call{path: "/apis/x/v1/<b>", token: "u"},
		403, metav1.StatusReasonForbidden, `<b>.x is forbidden: User "u" cannot list resource "&lt;b&gt;" in API group "x" at the cluster scope`, nil,
	},
	{
		"time", call{path: configMaps + "?timeout=x"},
		400, metav1.StatusReasonBadRequest, `invalid timeout specified in the request URL - time: invalid duration "x"`, nil,
	},
}

// doubling is a JSON patch that copies 1 KiB as many times over as 2 to the
// power of copies.
func doubling(copies int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `[{"op":"add","path":"/data/k","value":"%s"}`, strings.Repeat("x", 1024))
	for i := range copies {
		fmt.Fprintf(&b, `,{"op":"copy","from":"/data","path":"/data/k%d"}`, i)
	}
	return b.String() + "]"
}

func TestBadInput(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("have")
	for _, b := range badInput {
		t.Run(b.name, func(t *testing.T) {
			c.t = t
			a := c.do(b.in)
			s := a.status(t)
			if int32(a.code) != b.code || s.Code != b.code || s.Reason != b.reason || !strings.Contains(s.Message, b.message) {
				t.Errorf("answer is %d (%d %s)\n  %s\nwant %d %s\n  %s", a.code, s.Code, s.Reason, s.Message, b.code, b.reason, b.message)
			}
			var causes []string
			if s.Details != nil {
				for _, cause := range s.Details.Causes {
					causes = append(causes, string(cause.Type)+" "+cause.Field)
				}
			}
			if strings.Join(causes, ";") != strings.Join(b.causes, ";") {
				t.Errorf("causes are %q, want %q", causes, b.causes)
			}
		})
	}
}

func TestProblemsOfABodyAreWarnings(t *testing.T) {
	c := newCluster(t, nil)
	a := c.do(call{method: "POST", path: configMaps, body: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"nonsense":1,"data":{"a":"1","a":"2"}}`})
	want := []string{`299 - "unknown field \"nonsense\""`, `299 - "duplicate field \"data.a\""`}
	if got := a.header.Values("Warning"); a.code != http.StatusCreated || strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("answer is %d with %q, want %q", a.code, got, want)
	}
}
