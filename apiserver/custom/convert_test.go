package custom_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/controller/migration"
)

// twoVersions is a definition with v1, which has spec.hostPort, and v2, which has
// spec.host and spec.port.
func twoVersions(storage, conversion string) string {
	is := func(name string) bool { return name == storage }
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  conversion: %s
  versions:
  - name: v1
    served: true
    storage: %v
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {hostPort: {type: string}, mode: {type: string, default: one}}}}}}
  - name: v2
    served: true
    storage: %v
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {host: {type: string}, port: {type: string}, mode: {type: string, default: two}}}}}}
`, conversion, is("v1"), is("v2"))
}

const (
	definitionPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
	widgetsV2      = "/apis/example.com/v2/namespaces/default/widgets"
)

func TestNoConversion(t *testing.T) {
	w := newWorld(t, twoVersions("v1", "{strategy: None}"))
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"hostPort":"h:1"}}`)
	o := w.want(200, "GET", widgetsV2+"/a", "").object()
	if o["apiVersion"] != "example.com/v2" || text(t, o["spec"]) != `{"mode":"one"}` {
		t.Errorf("in v2 it is %s", text(t, o))
	}
	w.want(201, "POST", widgetsV2, `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"b"},"spec":{"host":"h"}}`)
	o = w.want(200, "GET", widgets+"/b", "").object()
	if text(t, o["spec"]) != `{"mode":"two"}` {
		t.Errorf("in v1 it is %s", text(t, o))
	}
}

// Another stored version leaves what is stored as it is, until it is written.
func TestStorageVersion(t *testing.T) {
	w := newWorld(t, twoVersions("v1", "{strategy: None}"))
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"mode":"x"}}`)
	stored := func() string {
		t.Helper()
		data, _, err := w.store.Raw(t.Context(), "example.com/widgets/default/a")
		if err != nil {
			t.Fatal(err)
		}
		var o struct{ APIVersion string }
		if err := json.Unmarshal(data, &o); err != nil {
			t.Fatal(err)
		}
		return o.APIVersion
	}
	w.want(200, "PATCH", definitionPath, `[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`, "application/json-patch+json")
	w.settle()
	d := w.want(200, "GET", definitionPath, "").object()
	if s := text(t, d["status"].(map[string]any)["storedVersions"]); s != `["v1","v2"]` {
		t.Errorf("storedVersions are %s", s)
	}
	if v := stored(); v != "example.com/v1" {
		t.Errorf("stored in %s", v)
	}
	for _, path := range []string{widgets, widgetsV2} {
		if o := w.want(200, "GET", path+"/a", "").object(); text(t, o["spec"]) != `{"mode":"x"}` {
			t.Errorf("%s is %s", path, text(t, o))
		}
	}
	// What changes nothing brings it into the version of now.
	o := w.want(200, "GET", widgets+"/a", "")
	w.want(200, "PUT", widgets+"/a", string(o.body))
	if v := stored(); v != "example.com/v2" {
		t.Errorf("stored in %s after it was written", v)
	}
}

// A migration writes every object in the version that is stored now, and the
// definition forgets the others.
func TestMigration(t *testing.T) {
	w := newWorld(t, twoVersions("v1", "{strategy: None}"))
	for i := range 20 {
		w.want(201, "POST", widgets, fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a%d"}}`, i))
	}
	w.want(200, "PATCH", definitionPath, `[{"op":"replace","path":"/spec/versions/0/storage","value":false},{"op":"replace","path":"/spec/versions/1/storage","value":true}]`, "application/json-patch+json")
	w.settle()
	const migrations = "/apis/storagemigration.k8s.io/v1/storageversionmigrations"
	w.want(201, "POST", migrations, `{"metadata":{"name":"m"},"spec":{"resource":{"group":"example.com","resource":"widgets"}}}`)
	loop := migration.New(w.client())
	for range 2 {
		if _, err := loop.Step(t.Context(), api.Key{Name: "m"}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if s := text(t, w.want(200, "GET", migrations+"/m", "").object()["status"]); !strings.Contains(s, `"Succeeded"`) {
		t.Errorf("status is %s", s)
	}
	for i := range 20 {
		data, _, err := w.store.Raw(t.Context(), fmt.Sprintf("example.com/widgets/default/a%d", i))
		if err != nil || !strings.HasPrefix(string(data), `{"apiVersion":"example.com/v2"`) {
			t.Errorf("stored as %s (%v)", data, err)
		}
	}
	d := w.want(200, "GET", definitionPath, "").object()
	if s := text(t, d["status"].(map[string]any)["storedVersions"]); s != `["v2"]` {
		t.Errorf("storedVersions are %s", s)
	}
}

// conversionHook converts widgets. change may spoil the answer.
func conversionHook(t *testing.T, change func(*apiextensionsv1.ConversionReview)) (conversion string, calls *int) {
	t.Helper()
	calls = new(int)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*calls++
		var review apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		out := &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: "Success"}}
		for _, raw := range review.Request.Objects {
			out.ConvertedObjects = append(out.ConvertedObjects, runtime.RawExtension{Raw: convertWidget(t, raw.Raw, review.Request.DesiredAPIVersion)})
		}
		review.Request, review.Response = nil, out
		if change != nil {
			change(&review)
		}
		if err := json.NewEncoder(w).Encode(&review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return fmt.Sprintf("{strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}",
		server.URL, base64.StdEncoding.EncodeToString(ca)), calls
}

func convertWidget(t *testing.T, raw []byte, to string) []byte {
	var o map[string]any
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Error(err)
	}
	spec, _ := o["spec"].(map[string]any)
	if o["apiVersion"] = to; strings.HasSuffix(to, "v1") {
		spec["hostPort"] = fmt.Sprint(spec["host"], ":", spec["port"])
		delete(spec, "host")
		delete(spec, "port")
	} else if both, ok := spec["hostPort"].(string); ok {
		spec["host"], spec["port"], _ = strings.Cut(both, ":")
		delete(spec, "hostPort")
	}
	data, err := json.Marshal(o)
	if err != nil {
		t.Error(err)
	}
	return data
}

func TestWebhookConversion(t *testing.T) {
	conversion, calls := conversionHook(t, nil)
	w := newWorld(t, twoVersions("v1", conversion))
	w.want(201, "POST", widgetsV2, `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"a"},"spec":{"host":"h","port":"1"}}`)
	o := w.want(200, "GET", widgets+"/a", "").object()
	if text(t, o["spec"]) != `{"hostPort":"h:1","mode":"two"}` {
		t.Errorf("in v1 it is %s", text(t, o))
	}
	w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"hostPort":"x:2"}}`)
	*calls = 0
	list := w.want(200, "GET", widgetsV2, "").object()
	if s := text(t, list["items"].([]any)[1].(map[string]any)["spec"]); s != `{"host":"x","mode":"one","port":"2"}` || *calls != 1 {
		t.Errorf("the second of the list is %s, after %d calls", s, *calls)
	}
	o = w.want(200, "PATCH", widgetsV2+"/a", `{"spec":{"port":"9"}}`, "application/merge-patch+json").object()
	if text(t, o["spec"]) != `{"host":"h","mode":"two","port":"9"}` {
		t.Errorf("patched to %s", text(t, o))
	}
	o = w.want(200, "PATCH", widgetsV2+"/a?fieldManager=m&force=true", `{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"a"},"spec":{"host":"z"}}`, "application/apply-patch+yaml").object()
	if text(t, o["spec"]) != `{"host":"z","mode":"two","port":"9"}` {
		t.Errorf("applied to %s", text(t, o))
	}
}

func TestWebhookThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*apiextensionsv1.ConversionReview)
		want   string
	}{
		"refuses": {func(r *apiextensionsv1.ConversionReview) {
			r.Response.Result = metav1.Status{Status: "Failure", Message: "not today"}
		}, "conversion webhook for example.com/v1, Kind=Widget failed: not today"},
		"lies":    {func(r *apiextensionsv1.ConversionReview) { r.Response.UID = "other" }, "conversion webhook for example.com/v1, Kind=Widget failed: expected response.uid="},
		"forgets": {func(r *apiextensionsv1.ConversionReview) { r.Response.ConvertedObjects = nil }, "conversion webhook for example.com/v1, Kind=Widget returned 0 objects, expected 1"},
		"renames": {func(r *apiextensionsv1.ConversionReview) {
			r.Response.ConvertedObjects[0].Raw = []byte(strings.Replace(string(r.Response.ConvertedObjects[0].Raw), `"name":"a"`, `"name":"b"`, 1))
		}, "conversion webhook for example.com/v1, Kind=Widget returned invalid object: must have the same name: a != b"},
	} {
		t.Run(name, func(t *testing.T) {
			conversion, _ := conversionHook(t, c.change)
			w := newWorld(t, twoVersions("v1", conversion))
			w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"hostPort":"x:2"}}`)
			if got := w.want(500, "GET", widgetsV2+"/a", "").status().Message; !strings.HasPrefix(got, c.want) {
				t.Errorf("answer is %s\nwant %s", got, c.want)
			}
			w.want(200, "GET", widgets+"/a", "")
		})
	}
}

// FuzzConversion has a webhook answer anything: who asks in another version gets an
// object of that version or a 500, and what is stored stays as it is.
func FuzzConversion(f *testing.F) {
	for _, seed := range []string{
		"", "null", "[]", `{"response":null}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"UID","result":{"status":"Success"},"convertedObjects":[{"apiVersion":"example.com/v2","kind":"Widget","metadata":{"name":"a","namespace":"default","uid":"OBJECT"},"spec":{"host":"h","port":1}}]}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"UID","result":{"status":"Success"},"convertedObjects":[null]}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"UID","result":{"status":"Failure"}}}`,
		`{"apiVersion":"v1","kind":"Status","response":{"uid":"UID","convertedObjects":[{"metadata":{"labels":{"a":1}}}]}}`,
	} {
		f.Add(seed)
	}
	var answer, object string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review apiextensionsv1.ConversionReview
		if json.NewDecoder(r.Body).Decode(&review) != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = strings.NewReplacer("UID", string(review.Request.UID), "OBJECT", object).WriteString(w, answer)
	}))
	f.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	w := newWorld(f, twoVersions("v1", fmt.Sprintf("{strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: %q, caBundle: %s}}}",
		server.URL, base64.StdEncoding.EncodeToString(ca))))
	made := w.want(201, "POST", widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"hostPort":"x:2"}}`)
	object, _ = made.object()["metadata"].(map[string]any)["uid"].(string)
	before := string(w.want(200, "GET", widgets+"/a", "").body)
	f.Fuzz(func(t *testing.T, text string) {
		w.t, answer = t, text
		for _, path := range []string{widgetsV2 + "/a", widgetsV2} {
			got := w.do("GET", path, "")
			switch got.code {
			case 500:
			case 200:
				if !json.Valid(got.body) || !strings.Contains(string(got.body), `"example.com/v2"`) {
					t.Fatalf("%s answers %s", path, got.body)
				}
			default:
				t.Fatalf("%s answers %d %s", path, got.code, got.body)
			}
		}
		if after := string(w.want(200, "GET", widgets+"/a", "").body); after != before {
			t.Fatalf("stored is %s, was %s", after, before)
		}
	})
}
