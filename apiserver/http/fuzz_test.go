package http_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/internal/fixtures"
)

// fuzzed is a server without a network, so that a panic is one of the test.
type fuzzed struct {
	t       testing.TB
	server  *apihttp.Server
	handler *request.Handler
}

func newFuzzed(t testing.TB) *fuzzed {
	t.Helper()
	h := requesttest.Handler(t, nil)
	s, err := apihttp.New(apihttp.Config{Requests: h, Authenticator: byToken, Version: version.Info{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &fuzzed{t, s, h}
}

// with is the same server, complaining to another test.
func (f *fuzzed) with(t testing.TB) *fuzzed {
	other := *f
	other.t = t
	return &other
}

// do checks of every answer that it is no error of the server's, and that a
// refusal says its code and reason.
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#response-status-kind
func (f *fuzzed) do(in call) answer {
	f.t.Helper()
	if in.method == "" {
		in.method = http.MethodGet
	}
	r := httptest.NewRequest(in.method, "/", strings.NewReader(in.body))
	path, query, _ := strings.Cut(in.path, "?")
	r.URL = &url.URL{Path: path, RawQuery: query}
	r.Header.Set("Authorization", "Bearer admin")
	if in.contentType != "" {
		r.Header.Set("Content-Type", in.contentType)
	}
	if in.accept != "" {
		r.Header.Set("Accept", in.accept)
	}
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	a := answer{w.Code, w.Header(), w.Body.Bytes()}
	if a.code < http.StatusBadRequest {
		return a
	}
	var s metav1.Status
	if err := json.Unmarshal(a.body, &s); err != nil || s.Kind != "Status" || int(s.Code) != a.code {
		f.t.Fatalf("%s %s: %d is no status: %s", in.method, in.path, a.code, a.body)
	}
	if slices.ContainsFunc(upstreamErrors, func(prefix string) bool { return strings.HasPrefix(s.Message, prefix) }) {
		return a
	}
	if a.code >= http.StatusInternalServerError || s.Reason == "" || s.Message == "" {
		f.t.Fatalf("%s %s: %d %s", in.method, in.path, a.code, a.body)
	}
	return a
}

// upstreamErrors begin refusals to which Kubernetes v1.37 gives the code 500 and
// no reason: of versions of an object that is to be created, or that are no
// numbers, and what its library says of configurations that do not fit the schema.
var upstreamErrors = []string{
	"resourceVersion should not be set on objects to be created",
	"strconv.ParseUint: parsing ",
	"failed to create typed patch object (",
	"failed to convert new object (",
	// And of strategic merge patches.
	"The order in patch list:",
	"unknown patch type: ",
	"map: map[",
	"list element types are not identical: ",
	"value for key ",
	"expected a []interface {}, but received",
}

// creatable are the versions of kinds that objects are made of, in a fixed order.
func creatable() []*api.Served {
	var all []*api.Served
	r := kinds.Registry()
	for _, row := range r.Resources() {
		if row.Prefix == "" || !row.Offers("create") {
			continue
		}
		for _, v := range row.Versions {
			all = append(all, r.ByGVR(v.WithResource(row.Plural)))
		}
	}
	return all
}

func pathOf(s *api.Served) string {
	path := "/apis/" + s.Version.GroupVersion.String()
	if s.Version.Group == "" {
		path = "/api/" + s.Version.Version
	}
	if s.Namespaced {
		path += "/namespaces/default"
	}
	return path + "/" + s.Plural
}

// asCBOR is JSON in CBOR.
func asCBOR(t testing.TB, text []byte) []byte {
	t.Helper()
	var v any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &v); err != nil {
		t.Fatal(err)
	}
	data, err := direct.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// upstreamObject is that object with metadata of ours, in every media type.
func upstreamObject(t testing.TB, f *fuzzed, s *api.Served) []string {
	t.Helper()
	path, err := fixtures.Path("HEAD", s.Version.Group, s.Version.Version, s.Kind, "json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var obj map[string]any
	if err := json.Unmarshal(data, &obj); err != nil {
		t.Fatal(err)
	}
	obj["metadata"] = map[string]any{"name": "a", "labels": map[string]any{"l": "v"}}
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, media := range codec.MediaTypes {
		all = append(all, encodeAs(t, f, s, string(text), media))
	}
	return all
}

// FuzzBody creates objects of all kinds from bodies in all encodings. What is
// accepted, written again in any encoding, is accepted as the same.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
func FuzzBody(f *testing.F) {
	srv := newFuzzed(f)
	all := creatable()
	for i, s := range all {
		for media, body := range upstreamObject(f, srv, s) {
			f.Add(uint8(i), uint8(media), []byte(body))
		}
	}
	for i, s := range all {
		if s.Kind == "ConfigMap" {
			f.Add(uint8(i), uint8(0), []byte(`{"metadata":{"name":"a"},"data":{"k":"v"},"binaryData":{"b":"AAH/"}}`))
			f.Add(uint8(i), uint8(1), []byte("metadata: {name: a}\ndata: {k: v}\n---\n"))
			f.Add(uint8(i), uint8(1), []byte("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"))
		}
	}
	f.Fuzz(func(t *testing.T, kind, media uint8, body []byte) {
		srv := srv.with(t)
		s := all[int(kind)%len(all)]
		first := codec.MediaTypes[int(media)%len(codec.MediaTypes)]
		path := pathOf(s) + "?dryRun=All"
		a := srv.do(call{method: "POST", path: path, body: string(body), contentType: string(first)})
		if a.code >= http.StatusBadRequest || s.Kind == "Job" { // whose labels have its identity
			return
		}
		want := withoutIdentity(t, a.body)
		for _, media := range codec.MediaTypes {
			again := srv.do(call{method: "POST", path: path, body: encodeAs(t, srv, s, want, media), contentType: string(media)})
			if again.code != a.code {
				t.Fatalf("%s as %s: %d %s\nwas %s", s.Kind, media, again.code, again.body, a.body)
			}
			if got := withoutIdentity(t, again.body); got != want {
				t.Fatalf("%s as %s is\n%s\nwas\n%s", s.Kind, media, got, want)
			}
		}
	})
}

// withoutIdentity is an object in JSON without what is made anew each time.
func withoutIdentity(t *testing.T, body []byte) string {
	t.Helper()
	var obj map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&obj); err != nil {
		t.Fatal(err)
	}
	metadata := obj["metadata"].(map[string]any)
	for _, name := range []string{"uid", "creationTimestamp", "managedFields"} {
		delete(metadata, name)
	}
	if metadata["generateName"] != nil {
		metadata["name"] = "generated"
	}
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// encodeAs writes an object in JSON in another media type.
func encodeAs(t testing.TB, f *fuzzed, s *api.Served, text string, media codec.MediaType) string {
	t.Helper()
	switch media {
	case codec.JSON:
		return text
	case codec.CBOR:
		return string(asCBOR(t, []byte(text)))
	case codec.YAML:
		out, err := yaml.JSONToYAML([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	obj := s.Version.New()
	if err := json.Unmarshal([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	out, err := f.handler.Codec.AppendValue(nil, obj, s.Version.WithKind(s.Kind), media)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// patchTargets are objects that patches are tried on.
var patchTargets = map[string]string{
	configMaps: `{"metadata":{"name":"a","labels":{"l":"v"},"finalizers":["example.com/f"]},"data":{"k":"v"},"binaryData":{"b":"AAH/"}}`,
	"/apis/apps/v1/namespaces/default/deployments": `{"metadata":{"name":"a"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","env":[{"name":"E","value":"1"}],"ports":[{"containerPort":80}]}]}}}}`,
	"/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers": `{"metadata":{"name":"a"},"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"a"}}}`,
}

// makeTargets makes the targets and answers with the paths of them the targets and of what hangs on them.
func makeTargets(f *fuzzed) []string {
	f.t.Helper()
	paths := sets.List(sets.KeySet(patchTargets))
	for i, path := range paths {
		if a := f.do(call{method: "POST", path: path, body: patchTargets[path]}); a.code != http.StatusCreated {
			f.t.Fatalf("create in %s: %s", path, a.body)
		}
		paths[i] += "/a"
	}
	return append(paths, "/apis/apps/v1/namespaces/default/deployments/a/scale", "/apis/apps/v1/namespaces/default/deployments/a/status")
}

var validations = []string{"", "Ignore", "Warn", "Strict"}

// FuzzPatch tries patches of the three kinds that are no apply. What is
// accepted is an object that replaces itself.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `1`, `"x"`, `{"data":{"k":null,"l":"w"}}`, `{"data":null}`, `{"metadata":{"labels":{"l":"x"}}}`,
		`{"metadata":null}`, `{"spec":null}`, `{"spec":{"replicas":"x"}}`, `{"spec":{"replicas":1e99}}`, `{"kind":"X"}`, `{"apiVersion":1}`,
		`[{"op":"test","path":"/data/k","value":"v"},{"op":"replace","path":"/data/k","value":"w"}]`,
		`[{"op":"add","path":"/metadata/labels/~01","value":"x"}]`, `[{"op":"remove","path":"/metadata"}]`, `[{"op":"remove","path":""}]`,
		`[{"op":"replace","path":"","value":null}]`, `[{"op":"replace","path":"","value":[]}]`, `[{"op":"add","path":"","value":{}}]`,
		`[{"op":"copy","from":"","path":"/data/x"}]`, `[{"op":"move","from":"/data","path":"/data/k"}]`, `[{"op":"copy","from":"/metadata","path":"/metadata/x"}]`,
		`[{"op":"add","path":"/metadata/finalizers/-1","value":"example.com/g"}]`, `[{"op":"remove","path":"/metadata/finalizers/9"}]`,
		`[{"op":"test","path":""}]`, `[{"op":"replace","path":""}]`, `[{"op":"add","path":"/data/x"}]`, `[{"op":"test","path":"/metadata/finalizers","value":[null]}]`,
		`[{"path":"/data"}]`, `[{"op":"add"}]`, `[null]`, `[{"op":"test","path":"/x"}]`, `[{"op":"add","path":"/spec/template/spec/containers/99999999","value":{}}]`,
		`{"metadata":{"$deleteFromPrimitiveList/finalizers":["example.com/f"]}}`, `{"metadata":{"$setElementOrder/finalizers":["example.com/f"],"finalizers":["x"]}}`,
		`{"$patch":"replace"}`, `{"$patch":"delete"}`, `{"$patch":"x"}`, `{"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"}]}}}}`,
		`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","image":"j"}]}}}}`,
		`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"E","value":"2"},{"name":"F"}]}]}}}}`,
		`{"spec":{"template":{"spec":{"containers":[{"image":"j"}]}}}}`, `{"spec":{"template":{"spec":{"containers":[1]}}}}`,
		`{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`, `{"spec":{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}}`,
		`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"d"}],"containers":[{"name":"c"}]}}}}`,
		`{"spec":{"template":{"spec":{"$setElementOrder/containers":[1]}}}}`, `{"spec":{"template":{"spec":{"$setElementOrder/containers":{}}}}}`,
		`{"spec":{"template":{"spec":{"containers":[[1]]}}}}`, `{"spec":{"template":{"spec":{"volumes":[{"$patch":"replace"}]}}}}`,
		`{"metadata":{"managedFields":[{}]}}`, `{"metadata":{"managedFields":[{"fieldsV1":[]}]}}`, `{"metadata":{"resourceVersion":"0"}}`, `{"metadata":{"uid":"x"}}`,
		`{"metadata":{"$retainKeys":1}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":1}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":[1]}}`,
		`{"metadata":{"creationTimestamp":"x"}}`, `{"data":{"k":"a","k":"b"}}`,
		strings.Repeat(`{"a":`, 128) + `"\"{"` + strings.Repeat(`}`, 128), strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat(`}`, 200),
	} {
		for kind := range uint8(3) {
			for target := range uint8(3) {
				f.Add(target, kind, target, []byte(seed))
			}
		}
	}
	srv := newFuzzed(f)
	targets := makeTargets(srv)
	f.Fuzz(func(t *testing.T, target, kind, validation uint8, body []byte) {
		srv := srv.with(t)
		path := targets[int(target)%len(targets)]
		a := srv.do(call{
			method: "PATCH", body: string(body), contentType: string(request.PatchTypes[kind%3]),
			path: path + "?dryRun=All&fieldValidation=" + validations[int(validation)%len(validations)],
		})
		if a.code < http.StatusBadRequest {
			srv.replaces(t, path, a.body)
		}
	})
}

// replaces checks that a patched object is taken as it is.
func (f *fuzzed) replaces(t *testing.T, path string, body []byte) {
	t.Helper()
	again := f.do(call{method: "PUT", path: path + "?dryRun=All&fieldValidation=Strict", body: string(body)})
	if again.code != http.StatusOK {
		t.Fatalf("the patched %s\nis refused: %d %s", body, again.code, again.body)
	}
	if got, want := withoutIdentity(t, again.body), withoutIdentity(t, body); got != want {
		t.Fatalf("the patched object is\n%s\nreplaced by itself\n%s", want, got)
	}
}

// FuzzApply applies configurations in YAML and CBOR. What is accepted applies
// again, and is the same.
// https://kubernetes.io/docs/reference/using-api/server-side-apply/
func FuzzApply(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `1`, `x`, ``, "a: 1\n---\nb: 2\n", "a: &a [*a]\n", "{? [a] : b}", "? {a: b}\n: c\n", "1: 2\n",
		`{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"w"}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"m":"x"}},"data":{"k":"v"}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"w","k":"x"}}`, `{"apiVersion":"v1","kind":"ConfigMap","data":[]}`, `{"apiVersion":"v1","kind":"ConfigMap","data":{"k":1}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":null}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"managedFields":[{}]}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"finalizers":["a","a"]}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}`, `{"apiVersion":1,"kind":{}}`, `{"apiVersion":"v1","kind":"ConfigMap","x":1}`,
		`{"apiVersion":"v1","kind":"Secret"}`, `{"apiVersion":"a/b/c","kind":"ConfigMap"}`, `{"apiVersion":"v2","kind":"ConfigMap"}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"uid":1}}`,
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"x"}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"creationTimestamp":"x"}}`, `{"apiVersion":"v1","kind":"ConfigMap","binaryData":{"b":"%"}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":2}}`, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"G"}]},{"name":"c"}]}}}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"image":"c"}]}}}}`, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[null]}}}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":80}]}]}}}}`, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":null}}`,
		`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"selector":{"matchLabels":null}}}`, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1.5}}`, `{"apiVersion":"apps/v1","kind":"Deployment","status":{"replicas":1}}`,
		`{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"a"},"spec":{"replicas":4}}`, `{"apiVersion":"autoscaling/v1","kind":"Scale","spec":[]}`, `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":[],"spec":{"replicas":"x"}}`,
		`{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","spec":{"minReplicas":1}}`, `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","spec":{"minReplicas":1}}`,
	} {
		for target := range uint8(5) {
			f.Add(target, false, true, target, []byte(seed))
			if json.Valid([]byte(seed)) {
				f.Add(target, true, true, target, asCBOR(f, []byte(seed)))
			}
		}
	}
	srv := newFuzzed(f)
	targets := append(makeTargets(srv), configMaps+"/new", "/apis/apps/v1/namespaces/default/deployments/new")
	f.Fuzz(func(t *testing.T, target uint8, asCBOR, force bool, validation uint8, body []byte) {
		srv := srv.with(t)
		path := targets[int(target)%len(targets)]
		in := call{
			method: "PATCH", body: string(body), contentType: "application/apply-patch+yaml",
			path: path + fmt.Sprintf("?dryRun=All&fieldManager=m&force=%v&fieldValidation=%s", force, validations[int(validation)%len(validations)]),
		}
		if asCBOR {
			in.contentType = applyCBOR
		}
		a := srv.do(in)
		if a.code >= http.StatusBadRequest {
			return
		}
		if a.code == http.StatusOK {
			srv.replaces(t, path, a.body)
		}
		again := srv.do(in)
		if got, want := withoutIdentity(t, again.body), withoutIdentity(t, a.body); again.code != a.code || got != want {
			t.Fatalf("applied once\n%s\nagain, %d\n%s", want, again.code, got)
		}
	})
}
