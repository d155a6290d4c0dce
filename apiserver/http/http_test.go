package http_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/apiserver/auth/authn"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/internal/health"
	"hansa.dev/hansa/store"
)

// cluster is a server with an empty cluster, spoken to over TLS and HTTP/2.
type cluster struct {
	*httptest.Server
	t        *testing.T
	server   *apihttp.Server
	requests *request.Handler
}

// byToken lets the tokens "admin" and "u" in, and everybody ask for health and
// version.
var byToken = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
	switch r.Header.Get("Authorization") {
	case "Bearer admin":
		return &authenticator.Response{User: requesttest.Admin}, true, nil
	case "Bearer u":
		return &authenticator.Response{User: requesttest.Nobody}, true, nil
	case "":
		if slices.Contains(authn.AnonymousPaths, r.URL.Path) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous}}, true, nil
		}
		return nil, false, nil
	}
	return nil, false, io.ErrUnexpectedEOF
})

// withHealth also lets everybody ask for health and version.
var withHealth = authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if !a.IsResourceRequest() && a.GetUser().GetName() == user.Anonymous {
		return authorizer.DecisionAllow, "", nil
	}
	return requesttest.AdminOnly.Authorize(ctx, a)
})

func newCluster(t *testing.T, change func(*apihttp.Config)) *cluster {
	t.Helper()
	return newClusterOver(t, requesttest.Store(t), change)
}

func newClusterOver(t *testing.T, st *store.Store, change func(*apihttp.Config)) *cluster {
	t.Helper()
	h := requesttest.Handler(t, func(c *request.Config) { c.Store, c.Authorizer = st, withHealth })
	config := apihttp.Config{
		Requests:      h,
		Authenticator: byToken,
		Version:       version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+hansa.0"},
		Address:       "192.0.2.1:6443",
		OpenAPI:       &apihttp.OpenAPI{V2JSON: openapi.V2JSON, V2Proto: openapi.V2Proto, V3: openapi.V3},
	}
	if change != nil {
		change(&config)
	}
	s, err := apihttp.New(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Server: httptest.NewUnstartedServer(s), t: t, server: s, requests: h}
	c.EnableHTTP2 = true
	c.StartTLS()
	t.Cleanup(func() {
		s.Stop()
		c.Close()
	})
	return c
}

// call is one request; zero values are left out.
type call struct {
	method, path, body string
	contentType        string
	accept             string
	token              string // "admin" when empty, "-" for none
	header             map[string]string
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

func (c *cluster) do(in call) answer {
	c.t.Helper()
	resp := c.open(c.t.Context(), in)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

func (c *cluster) open(ctx context.Context, in call) *http.Response {
	c.t.Helper()
	if in.method == "" {
		in.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, in.method, c.URL+in.path, strings.NewReader(in.body))
	if err != nil {
		c.t.Fatal(err)
	}
	if in.contentType == "" && in.body != "" {
		in.contentType = "application/json"
	}
	for name, value := range map[string]string{"Content-Type": in.contentType, "Accept": in.accept} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	for name, value := range in.header {
		req.Header.Set(name, value)
	}
	switch in.token {
	case "":
		req.Header.Set("Authorization", "Bearer admin")
	case "-":
	default:
		req.Header.Set("Authorization", "Bearer "+in.token)
	}
	req.Header.Set("User-Agent", "tester/1")
	resp, err := c.Client().Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func (a answer) status(t *testing.T) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(a.body, &s); err != nil || s.Kind != "Status" {
		t.Fatalf("answer %d is no status: %s", a.code, a.body)
	}
	return s
}

func (a answer) decode(t *testing.T, into any) {
	t.Helper()
	if a.code >= 300 {
		t.Fatalf("answer is %d: %s", a.code, a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("decode %s: %v", a.body, err)
	}
}

const configMaps = "/api/v1/namespaces/default/configmaps"

func (c *cluster) createConfigMap(name string) {
	c.t.Helper()
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","labels":{"l":"` + name + `"}},"data":{"k":"v"}}`
	if a := c.do(call{method: "POST", path: configMaps, body: body}); a.code != http.StatusCreated {
		c.t.Fatalf("create %s: %d %s", name, a.code, a.body)
	}
}

func TestMediaTypes(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	path := configMaps + "/a"
	json := c.do(call{path: path})
	if got := string(json.body[:45]); got != `{"kind":"ConfigMap","apiVersion":"v1","metada` || json.body[len(json.body)-1] != '\n' {
		t.Errorf("JSON begins with %s", got)
	}
	yaml := c.do(call{path: path, accept: "application/yaml"})
	if !bytes.HasPrefix(yaml.body, []byte("apiVersion: v1\ndata:\n  k: v\nkind: ConfigMap\n")) {
		t.Errorf("YAML is %s", yaml.body)
	}
	proto := c.do(call{path: path, accept: "application/vnd.kubernetes.protobuf, application/json"})
	if !bytes.HasPrefix(proto.body, []byte("k8s\x00")) || proto.header.Get("Content-Type") != "application/vnd.kubernetes.protobuf" {
		t.Errorf("protobuf is %q", proto.body)
	}
	if back := c.do(call{method: "PUT", path: path, body: string(proto.body), contentType: "application/vnd.kubernetes.protobuf"}); back.code != http.StatusOK {
		t.Errorf("writing protobuf back gave %d %s", back.code, back.body)
	}
	list := c.do(call{path: configMaps, accept: "application/vnd.kubernetes.protobuf"})
	if !bytes.HasPrefix(list.body, []byte("k8s\x00")) || !bytes.Contains(list.body, []byte("ConfigMapList")) {
		t.Errorf("protobuf list is %q", list.body)
	}
	pretty := c.do(call{path: path + "?pretty=true"})
	if !bytes.HasPrefix(pretty.body, []byte("{\n  \"kind\": \"ConfigMap\",\n")) {
		t.Errorf("pretty JSON is %s", pretty.body)
	}
	partial := c.do(call{path: configMaps, accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"})
	if !bytes.HasPrefix(partial.body, []byte(`{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":`)) ||
		bytes.Contains(partial.body, []byte(`"data"`)) {
		t.Errorf("metadata is %s", partial.body)
	}
}

func TestTables(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	const as = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	var table metav1.Table
	c.do(call{path: configMaps, accept: as}).decode(t, &table)
	if table.APIVersion != "meta.k8s.io/v1" || len(table.Rows) != 1 || table.ResourceVersion == "" {
		t.Fatalf("table is %+v", table)
	}
	row := table.Rows[0]
	if row.Cells[0] != "a" || row.Cells[1] != float64(1) || len(table.ColumnDefinitions) != 3 {
		t.Errorf("row is %v", row.Cells)
	}
	if !bytes.Contains(row.Object.Raw, []byte(`"kind":"PartialObjectMetadata"`)) || bytes.Contains(row.Object.Raw, []byte(`"data"`)) {
		t.Errorf("row's object is %s", row.Object.Raw)
	}
	for include, want := range map[string]string{"None": "null", "Object": `{"kind":"ConfigMap","apiVersion":"v1",`} {
		var table metav1.Table
		c.do(call{path: configMaps + "/a?includeObject=" + include, accept: as}).decode(t, &table)
		if got := string(table.Rows[0].Object.Raw); !strings.HasPrefix(got, want) && !(include == "None" && got == "") {
			t.Errorf("%s: row's object is %s", include, got)
		}
	}
}

// https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
// https://kubernetes.io/blog/2020/09/03/warnings/
func TestDeprecatedVersionsWarn(t *testing.T) {
	c := newCluster(t, nil)
	const path = "/api/v1/namespaces/default/endpoints"
	const want = `299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"`
	for _, in := range []call{
		{path: path},
		{path: path + "/none"},
		{method: "POST", path: path, body: `{"metadata":{"name":"e"}}`},
		{method: "DELETE", path: path + "/e"},
	} {
		if got := c.do(in).header["Warning"]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s %s warns of %q", in.method, in.path, got)
		}
	}
	if got := c.do(call{path: configMaps}).header["Warning"]; got != nil {
		t.Errorf("what is not deprecated warns of %q", got)
	}
}

// Every answer names its request, by the client's word if it has one.
func TestAuditID(t *testing.T) {
	c := newCluster(t, nil)
	for _, in := range []call{{path: configMaps}, {path: "/version", token: "-"}, {path: configMaps, token: "-"}, {path: "/nowhere"}} {
		if id := c.do(in).header.Get("Audit-Id"); len(id) != 36 {
			t.Errorf("%s has the audit id %q", in.path, id)
		}
		in.header = map[string]string{"Audit-ID": "mine"}
		if id := c.do(in).header["Audit-Id"]; !slices.Equal(id, []string{"mine"}) {
			t.Errorf("%s does not keep the client's audit id: %q", in.path, id)
		}
	}
}

func TestDiscovery(t *testing.T) {
	c := newCluster(t, nil)
	var core metav1.APIResourceList
	c.do(call{path: "/api/v1"}).decode(t, &core)
	found := false
	for _, r := range core.APIResources {
		if r.Name == "configmaps" {
			found = r.Kind == "ConfigMap" && r.Namespaced && len(r.Verbs) == 8 && r.ShortNames[0] == "cm"
		}
	}
	if !found || core.GroupVersion != "v1" || core.Kind != "APIResourceList" {
		t.Errorf("/api/v1 is %+v", core)
	}
	const accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	aggregated := c.do(call{path: "/apis", accept: accept})
	if got := aggregated.header.Get("Content-Type"); got != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" {
		t.Errorf("content type is %s", got)
	}
	if !bytes.HasPrefix(aggregated.body, []byte(`{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[`)) {
		t.Errorf("aggregated discovery is %s", aggregated.body)
	}
	again := c.do(call{path: "/apis", accept: accept, header: map[string]string{"If-None-Match": aggregated.header.Get("Etag")}})
	if again.code != http.StatusNotModified {
		t.Errorf("asking again gave %d, want 304", again.code)
	}
	var groups metav1.APIGroupList
	c.do(call{path: "/apis"}).decode(t, &groups)
	if len(groups.Groups) == 0 || groups.Groups[0].PreferredVersion.Version == "" {
		t.Errorf("/apis is %+v", groups)
	}
}

func TestHealth(t *testing.T) {
	c := newCluster(t, func(c *apihttp.Config) {
		c.Checks = []apihttp.Check{{Check: health.Check{Name: "broken", Check: func(*http.Request) error { return io.ErrClosedPipe }}, ReadyOnly: true}}
	})
	for path, want := range map[string]string{
		"/livez":                         "ok",
		"/healthz/ping":                  "ok",
		"/livez?verbose":                 "[+]ping ok\n[+]etcd ok\nlivez check passed\n",
		"/readyz":                        "[+]ping ok\n[+]etcd ok\n[-]broken failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n",
		"/readyz?verbose&exclude=broken": "[+]ping ok\n[+]etcd ok\n[+]broken excluded: ok\n[+]shutdown ok\nreadyz check passed\n",
	} {
		token := "-"
		if path == "/healthz/ping" {
			token = "" // single checks are not for everybody
		}
		if a := c.do(call{path: path, token: token}); string(a.body) != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", path, a.code, a.body, want)
		}
	}
	c.server.Stop()
	if a := c.do(call{path: "/readyz/shutdown"}); a.code != http.StatusInternalServerError {
		t.Errorf("a stopping server is ready: %d", a.code)
	}
	var v version.Info
	c.do(call{path: "/version", token: "-"}).decode(t, &v)
	if v.GitVersion != "v1.37.2+hansa.0" {
		t.Errorf("version is %+v", v)
	}
}

func TestMetrics(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	c.do(call{path: configMaps + "/a"})
	c.do(call{path: configMaps + "/a/nonsense"})
	c.do(call{path: configMaps, token: "wrong"})
	got := string(c.do(call{path: "/metrics"}).body)
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{`,
		`apiserver_current_inflight_requests{request_kind="readOnly"}`,
		`authentication_attempts{result="success"} 4`,
		`authentication_attempts{result="error"} 1`,
		`authentication_duration_seconds_count{result="success"} 4`,
		`authenticated_user_requests{username="admin"} 4`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "nonsense") {
		t.Error("a path that somebody made up is a label")
	}
}

func TestOpenAPI(t *testing.T) {
	c := newCluster(t, nil)
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	c.do(call{path: "/openapi/v3"}).decode(t, &index)
	core := index.Paths["api/v1"].ServerRelativeURL
	if core == "" {
		t.Fatalf("index is %+v", index)
	}
	if a := c.do(call{path: core}); a.code != http.StatusOK || !bytes.Contains(a.body, []byte(`"io.k8s.api.core.v1.ConfigMap"`)) {
		t.Errorf("%s gave %d", core, a.code)
	}
	if a := c.do(call{path: "/openapi/v2"}); a.code != http.StatusOK || !bytes.Contains(a.body, []byte(`"swagger":"2.0"`)) {
		t.Errorf("v2 gave %d", a.code)
	}
}

func TestLargeAnswersAreCompressed(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("small")
	for i := range 3 {
		body := fmt.Sprintf(`{"metadata":{"name":"big%d"},"data":{"k":"%s"}}`, i, strings.Repeat("x", 200<<10))
		c.do(call{method: "POST", path: configMaps, body: body})
	}
	for path, want := range map[string]string{
		configMaps + "/big0":  "gzip",
		configMaps:            "gzip",
		configMaps + "/small": "",
		configMaps + "?fieldSelector=metadata.name%3Dsmall": "",
		configMaps + "?pretty=1":                            "gzip",
	} {
		resp := c.open(t.Context(), call{path: path, header: map[string]string{"Accept-Encoding": "gzip"}})
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); got != want {
			t.Errorf("%s has encoding %q, want %q", path, got, want)
		}
		plain := resp.Body.(io.Reader)
		if want == "gzip" {
			var err error
			if plain, err = gzip.NewReader(resp.Body); err != nil {
				t.Fatal(err)
			}
		}
		var unpacked any
		if err := json.NewDecoder(plain).Decode(&unpacked); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	c := newCluster(t, func(c *apihttp.Config) {
		c.Connectors = map[string]apihttp.Connector{"pods/log": apihttp.ConnectorFunc(func(http.ResponseWriter, *http.Request, *apihttp.Connection) error { panic("oh") })}
	})
	s := c.do(call{path: "/api/v1/namespaces/default/pods/p/log"}).status(t)
	if s.Code != http.StatusInternalServerError || !strings.Contains(s.Message, "this request caused apiserver to panic") {
		t.Errorf("panic gave %+v", s)
	}
}

func TestPagination(t *testing.T) {
	c := newCluster(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		c.createConfigMap(name)
	}
	var names []string
	path := configMaps + "?limit=2"
	version := ""
	for {
		var list metav1.PartialObjectMetadataList
		c.do(call{path: path}).decode(t, &list)
		for _, item := range list.Items {
			names = append(names, item.Name)
		}
		if version == "" {
			version = list.ResourceVersion
			c.createConfigMap("aa")
		}
		if list.ResourceVersion != version {
			t.Errorf("pages are of versions %s and %s", version, list.ResourceVersion)
		}
		if list.Continue == "" {
			break
		}
		path = configMaps + "?limit=2&continue=" + list.Continue
	}
	if got := strings.Join(names, " "); got != "a b c" {
		t.Errorf("pages held %s", got)
	}
}
