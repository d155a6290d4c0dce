package conformance

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"hansa.dev/hansa/pki"
)

// What this server serves has an APIService each, of Kubernetes' priorities
// ("Kubernetes API Aggregation Layer").
func TestLocalAPIServices(t *testing.T) {
	for name, want := range map[string]string{
		"v1.": "Local onstart 18000 1", "v1.apps": "Local onstart 17800 15", "v2.autoscaling": "Local onstart 17500 30",
		"v1.rbac.authorization.k8s.io": "Local onstart 17000 15", "v1.apiextensions.k8s.io": "Local onstart 16700 15",
	} {
		u := admin.want(t, http.StatusOK, call{path: apiServices + "/" + name}, nil).object(t)
		spec := u.Object["spec"].(map[string]any)
		conditions := u.Object["status"].(map[string]any)["conditions"].([]any)
		c := conditions[0].(map[string]any)
		got := fmt.Sprint(c["reason"], " ", u.GetLabels()["kube-aggregator.kubernetes.io/automanaged"], " ", spec["groupPriorityMinimum"], " ", spec["versionPriority"])
		if got != want || c["status"] != "True" || c["message"] != "Local APIServices are always available" {
			t.Errorf("%s: %s, want %s; %v", name, got, want, c)
		}
	}
	if a := admin.do(t, call{path: apiServices + "/v1.apiregistration.k8s.io"}); a.code != http.StatusNotFound {
		t.Errorf("apiregistration has an APIService: %d", a.code)
	}
}

// The APIServices of custom resources come and go with their definition, and come
// back while it is there.
func TestDefinitionsHaveAPIServices(t *testing.T) {
	gvr := define(t, gadget)
	path := apiServices + "/v1." + gvr.Group
	there := func() bool { return admin.do(t, call{path: path}).code == http.StatusOK }
	eventually(t, "the APIService is there", there)
	u := admin.want(t, http.StatusOK, call{path: path}, nil).object(t)
	spec := u.Object["spec"].(map[string]any)
	if u.GetLabels()["kube-aggregator.kubernetes.io/automanaged"] != "true" || fmt.Sprint(spec["groupPriorityMinimum"], spec["versionPriority"]) != "1000 100" {
		t.Errorf("%v %v", u.GetLabels(), spec)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path}, nil)
	eventually(t, "the APIService is there again", there)
	undefine(t, gvr.Group)
	eventually(t, "the APIService is gone", func() bool { return !there() })
}

// Requests go to the extension with the user that authentication and impersonation
// found, and with nothing that a client says about itself there; authorization is
// this server's ("Configure the Aggregation Layer", "Authentication Flow").
func TestFrontProxyIdentity(t *testing.T) {
	e := upExtension(t, nil)
	admin.want(t, http.StatusOK, call{path: e.path() + "?limit=5&labelSelector=a%3Db", header: map[string]string{
		"X-Remote-User": "mallory", "X-Remote-Group": "system:masters", "X-Remote-Uid": "0", "X-Remote-Extra-Forged": "yes", "X-Mine": "m",
	}}, nil)
	h := e.last()
	if h.Get("X-Remote-User") != "hansa-admin" || !slices.Equal(h["X-Remote-Group"], []string{"system:masters", "system:authenticated"}) || h.Get("X-Remote-Extra-Forged") != "" || h.Get("X-Mine") != "m" {
		t.Errorf("as the administrator: %v", h)
	}
	if h.Get("Authorization") != "" {
		t.Error("a credential is passed on")
	}
	if id := h["X-Remote-Extra-Authentication.kubernetes.io%2fcredential-Id"]; len(id) != 1 || !strings.HasPrefix(id[0], "X509SHA256=") {
		t.Errorf("no credential id: %v", h)
	}
	grant(t, e.namespace, "reader", "jane", fmt.Sprintf("[{apiGroups: [%s], resources: [flunders], verbs: [list]}]", e.group))
	jane := impersonating(t, "jane", "dev")
	eventually(t, "jane may list", func() bool { return jane.do(t, call{path: e.path()}).code == http.StatusOK })
	if h = e.last(); h.Get("X-Remote-User") != "jane" || !slices.Equal(h["X-Remote-Group"], []string{"dev", "system:authenticated"}) || h.Get("Impersonate-User") != "" {
		t.Errorf("as jane: %v", h)
	}
	a := jane.do(t, call{path: e.path("one")})
	a.refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("flunders.%s \"one\" is forbidden: User \"jane\" cannot get resource \"flunders\" in API group %[1]q in the namespace %[2]q", e.group, e.namespace))
}

// A client with a certificate of the front proxies' authority may say who asks;
// nobody else may ("Authenticating Proxy").
func TestFrontProxyIsBelieved(t *testing.T) {
	says := map[string]string{"X-Remote-User": "jane", "X-Remote-Uid": "u-1", "X-Remote-Group": "dev", "X-Remote-Extra-Scopes": "a", "X-Remote-Extra-Example.com%2fkey": "b"}
	ask := func(p *peer) answer {
		return p.do(t, call{method: "POST", path: at("selfsubjectreviews", ""), body: "{apiVersion: authentication.k8s.io/v1, kind: SelfSubjectReview}", header: says})
	}
	front := func(a *pki.Authority) *pki.CA { return a.FrontProxy }
	proxy := certificate(t, front, pki.Identity{CommonName: "front-proxy-client", Client: true})
	a := ask(proxy)
	if a.code != http.StatusCreated {
		t.Fatalf("%d: %s", a.code, a.body)
	}
	info := a.object(t).Object["status"].(map[string]any)["userInfo"].(map[string]any)
	if info["username"] != "jane" || info["uid"] != "u-1" || fmt.Sprint(info["groups"]) != "[dev system:authenticated]" || fmt.Sprint(info["extra"]) != "map[example.com/key:[b] scopes:[a]]" {
		t.Errorf("taken for %v", info)
	}
	for name, p := range map[string]*peer{
		"another name":         certificate(t, front, pki.Identity{CommonName: "somebody", Client: true}),
		"nobody in the header": proxy,
	} {
		if name == "nobody in the header" {
			says = nil
		}
		if a := ask(p); a.code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
	}
	says = map[string]string{"X-Remote-User": "jane"}
	own := certificate(t, apiCA, pki.Identity{CommonName: "kim", Client: true})
	if a := ask(own); !strings.Contains(string(a.body), `"kim"`) {
		t.Errorf("a client's own word: %d %s", a.code, a.body)
	}
}

// The ConfigMap by which extensions know this server, and who may read it.
func TestExtensionAuthentication(t *testing.T) {
	path := at("configmaps", "kube-system", "extension-apiserver-authentication")
	read := func() (cm corev1.ConfigMap) {
		admin.want(t, http.StatusOK, call{path: path, accept: "application/json"}, &cm)
		return cm
	}
	want := map[string]string{
		"requestheader-allowed-names": `["front-proxy-client"]`, "requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
		"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	}
	had := read()
	for key, value := range want {
		if had.Data[key] != value {
			t.Errorf("%s: %q", key, had.Data[key])
		}
	}
	for _, key := range []string{"client-ca-file", "requestheader-client-ca-file"} {
		if !strings.HasPrefix(had.Data[key], "-----BEGIN CERTIFICATE-----") {
			t.Errorf("%s: %q", key, had.Data[key])
		}
	}
	if had.Data["client-ca-file"] == had.Data["requestheader-client-ca-file"] {
		t.Error("clients are front proxies")
	}
	admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"data":{"client-ca-file":null,"requestheader-allowed-names":null}}`}, nil)
	eventually(t, "it is mended", func() bool {
		return read().Data["client-ca-file"] == had.Data["client-ca-file"] && read().Data["requestheader-allowed-names"] != ""
	})
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path}, nil)
	eventually(t, "it is made again", func() bool { return admin.do(t, call{path: path}).code == http.StatusOK })
	grantRole(t, "kube-system", "extension-apiserver-authentication-reader", "extension")
	reader := impersonating(t, "extension")
	eventually(t, "who has the role may read", func() bool { return reader.do(t, call{path: path}).code == http.StatusOK })
}

// grantRole binds a role of a namespace to a user.
func grantRole(t *testing.T, ns, role, user string) {
	t.Helper()
	name := namespaceName(t)
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("rolebindings", ns), body: fmt.Sprintf(
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: %s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %s}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}]", name, role, user)}, nil)
	t.Cleanup(func() {
		if r, err := admin.open(context.Background(), call{method: "DELETE", path: at("rolebindings", ns, name)}); err == nil {
			r.Body.Close()
		}
	})
}

// Objects of an extension are made, read and deleted by way of this server, and
// its answers come as they are.
func TestExtensionRequestsArePassedOn(t *testing.T) {
	e := upExtension(t, nil)
	body := fmt.Sprintf(`{"apiVersion":%q,"kind":"Flunder","metadata":{"name":"one"}}`, e.group+"/v1")
	admin.want(t, http.StatusCreated, call{method: "POST", path: e.path(), body: body, contentType: "application/json"}, nil)
	if a := admin.want(t, http.StatusOK, call{path: e.path("one")}, nil); a.object(t).GetName() != "one" {
		t.Errorf("got %s", a.body)
	}
	gvr := schema.GroupVersionResource{Group: e.group, Version: "v1", Resource: "flunders"}
	list, err := dyn.Resource(gvr).Namespace(e.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	admin.do(t, call{path: e.path("none")}).refused(t, 404, metav1.StatusReasonNotFound, `flunders "none" not found`)
	if a := admin.do(t, call{method: "PATCH", path: e.path("one"), body: "[]", contentType: jsonPatch}); a.code != http.StatusMethodNotAllowed {
		t.Errorf("a refusal of the extension: %d", a.code)
	}
	replaced := admin.want(t, http.StatusOK, call{method: "PUT", path: e.path("one"), body: strings.Replace(body, `"one"`, `"one","labels":{"by":"put"}`, 1), contentType: "application/json"}, nil).object(t)
	patched := admin.want(t, http.StatusOK, call{method: "PATCH", path: e.path("one"), body: `{"metadata":{"annotations":{"by":"patch"}}}`, contentType: mergePatch}, nil).object(t)
	if replaced.GetLabels()["by"] != "put" || patched.GetLabels()["by"] != "put" || patched.GetAnnotations()["by"] != "patch" {
		t.Errorf("replaced is %v, patched %v", replaced, patched)
	}
	if r := shared.run(t, "kubectl", "get", "flunders", "-n", e.namespace, "-o", "name"); r.out != "flunder."+e.group+"/one\n" {
		t.Errorf("kubectl: %+v", r)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: e.path("one")}, nil)
	if a := admin.do(t, call{path: e.path("one")}); a.code != http.StatusNotFound {
		t.Errorf("deleted: %d", a.code)
	}
	for _, name := range []string{"a", "b"} {
		admin.want(t, http.StatusCreated, call{method: "POST", path: e.path(), body: strings.Replace(body, `"one"`, `"`+name+`","labels":{"is":"`+name+`"}`, 1), contentType: "application/json"}, nil)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: e.path() + "?labelSelector=is%3Da"}, nil)
	if list, err = dyn.Resource(gvr).Namespace(e.namespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "b" {
		t.Errorf("a part of the collection deleted: %v, %v", list, err)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: e.path()}, nil)
	if list, err = dyn.Resource(gvr).Namespace(e.namespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("the collection deleted: %v, %v", list, err)
	}
}

// A watch streams as events come, and ends on the other side when the client goes.
func TestExtensionWatch(t *testing.T) {
	e := upExtension(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := admin.open(ctx, call{path: e.path() + "?watch=true"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	line, err := bufio.NewReader(r.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"ADDED"`) {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second):
		t.Error("the extension still has the watch")
	}
}

// A WebSocket goes through in both directions.
func TestExtensionWebSocket(t *testing.T) {
	e := upExtension(t, nil)
	tlsConfig, err := tlsOf(admin)
	if err != nil {
		t.Fatal(err)
	}
	config, err := websocket.NewConfig("wss"+strings.TrimPrefix(admin.config.Host, "https")+e.path("one", "console"), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	config.TlsConfig = tlsConfig.Clone()
	config.TlsConfig.NextProtos = []string{"http/1.1"}
	config.Header = http.Header{"X-Remote-User": {"mallory"}}
	ws, err := websocket.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	for _, sent := range []string{"a", "b", strings.Repeat("c", 100_000)} {
		var back string
		if err := websocket.Message.Send(ws, sent); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(ws, &back); err != nil || back != sent {
			t.Fatalf("%d bytes came back, %v", len(back), err)
		}
	}
	if h := e.last(); !slices.Equal(h["X-Remote-User"], []string{"hansa-admin"}) {
		t.Errorf("as %v", h)
	}
}

// What an extension serves is in every form of discovery, at the place that its
// priorities give it, whether it knows aggregated discovery or not.
func TestExtensionIsDiscovered(t *testing.T) {
	for _, aggregated := range []bool{true, false} {
		t.Run(fmt.Sprintf("aggregated=%v", aggregated), func(t *testing.T) {
			e := upExtension(t, func(e *extension) { e.aggregated = aggregated })
			entry := e.entry(t)
			if len(entry.Resources) != 1 || entry.Version != "v1" {
				t.Fatalf("%+v", entry)
			}
			r := entry.Resources[0]
			if r.Resource != "flunders" || r.ResponseKind.Kind != "Flunder" || r.ResponseKind.Group != e.group || r.Scope != "Namespaced" || r.SingularResource != "flunder" || len(r.ShortNames) != 1 {
				t.Errorf("%+v", r)
			}
			if !aggregated && (len(r.Subresources) != 1 || r.Subresources[0].Subresource != "status") {
				t.Errorf("subresources %+v", r.Subresources)
			}
			var list metav1.APIResourceList
			admin.want(t, http.StatusOK, call{path: "/apis/" + e.group + "/v1"}, &list)
			var one metav1.APIGroup
			admin.want(t, http.StatusOK, call{path: "/apis/" + e.group}, &one)
			if len(list.APIResources) != 2 || one.PreferredVersion.Version != "v1" {
				t.Errorf("%+v, %+v", list, one)
			}
			var groups metav1.APIGroupList
			admin.want(t, http.StatusOK, call{path: "/apis", accept: "application/json"}, &groups)
			place := func(name string) int {
				return slices.IndexFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == name })
			}
			if place("apiregistration.k8s.io") != 0 || place(e.group) < place("storagemigration.k8s.io") {
				t.Errorf("%s is %d., apiregistration %d., storagemigration %d.", e.group, place(e.group), place("apiregistration.k8s.io"), place("storagemigration.k8s.io"))
			}
			admin.want(t, http.StatusOK, call{method: "PATCH", path: apiServices + "/v1." + e.group, contentType: mergePatch, body: `{"spec":{"groupPriorityMinimum":17799}}`}, nil)
			eventually(t, "it comes after apps", func() bool {
				admin.want(t, http.StatusOK, call{path: "/apis", accept: "application/json"}, &groups)
				return place(e.group) == place("apps")+1
			})
		})
	}
}

// The extension's descriptions are part of this server's: version 3 by its own
// document, version 2 merged, without what is not the extension's, and with
// another name for what has a name of this server's and is not the same.
func TestExtensionIsDescribed(t *testing.T) {
	e := upExtension(t, nil)
	name := "apis/" + e.group + "/v1"
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	eventually(t, "it is in the index", func() bool {
		admin.want(t, http.StatusOK, call{path: "/openapi/v3", accept: "application/json"}, &index)
		return index.Paths[name].ServerRelativeURL == "/openapi/v3/"+name+"?hash=ABC"
	})
	if url := index.Paths["version"].ServerRelativeURL; strings.Contains(url, "hash=X") {
		t.Errorf("the extension describes %s", url)
	}
	doc := admin.want(t, http.StatusOK, call{path: "/openapi/v3/" + name}, nil)
	if !strings.Contains(string(doc.body), "flunder") || doc.header.Get("Etag") != `"ABC"` {
		t.Errorf("%v %s", doc.header, doc.body)
	}
	if a := admin.do(t, call{path: "/openapi/v3/" + name, header: map[string]string{"If-None-Match": `"ABC"`}}); a.code != http.StatusNotModified {
		t.Errorf("with its tag: %d", a.code)
	}
	var v2 struct {
		Paths       map[string]json.RawMessage
		Definitions map[string]json.RawMessage
		Parameters  map[string]json.RawMessage
	}
	eventually(t, "it is in version 2", func() bool {
		admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: "application/json"}, &v2)
		return v2.Paths["/apis/"+e.group+"/v1/flunders"] != nil
	})
	const meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	if !strings.Contains(string(v2.Definitions["com.example.Flunder"]), meta+"_v2") || v2.Definitions[meta+"_v2"] == nil || strings.Contains(string(v2.Definitions[meta]), `"mine"`) || v2.Parameters["pretty"] == nil {
		t.Errorf("schemas: %s, %s", v2.Definitions["com.example.Flunder"], v2.Definitions[meta+"_v2"])
	}
	if strings.Contains(string(v2.Paths["/version/"]), "stolen") {
		t.Error("the extension describes /version/")
	}
	if a := admin.want(t, http.StatusOK, call{path: "/openapi/v2", accept: "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}, nil); !strings.Contains(string(a.body), "com.example.Flunder") {
		t.Error("it is not in protobuf")
	}
}

// The reasons of the condition Available, in the order in which they go, and the
// metrics of it.
func TestExtensionAvailability(t *testing.T) {
	e := startExtension(t, nil)
	e.register(t, "caBundle: "+base64.StdEncoding.EncodeToString(e.authority))
	unavailable := func() {
		t.Helper()
		if a := admin.do(t, call{path: e.path()}); a.code != http.StatusServiceUnavailable || string(a.body) != "service unavailable\n" {
			t.Errorf("%d %q", a.code, a.body)
		}
	}
	if m := e.becomes(t, "False ServiceNotFound"); m != fmt.Sprintf("service/api in %q is not present", e.namespace) {
		t.Error(m)
	}
	unavailable()
	create(t, "services", e.namespace, "metadata: {name: api}\nspec: {ports: [{name: https, port: 8443}]}")
	if m := e.becomes(t, "False ServicePortError"); m != fmt.Sprintf("service/api in %q is not listening on port 443", e.namespace) {
		t.Error(m)
	}
	patch(t, "services", e.namespace, "api", `{"spec":{"ports":[{"name":"https","port":443}]}}`)
	if m := e.becomes(t, "False EndpointsNotFound"); m != fmt.Sprintf("cannot find endpointslices for service/api in %q", e.namespace) {
		t.Error(m)
	}
	e.endpoints(t, false)
	if m := e.becomes(t, "False MissingEndpoints"); m != fmt.Sprintf("endpointslices for service/api in %q have no addresses with port name \"https\"", e.namespace) {
		t.Error(m)
	}
	unavailable()
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("endpointslices", e.namespace, "api")}, nil)
	e.endpoints(t, true)
	if m := e.becomes(t, "True Passed"); m != "all checks passed" {
		t.Error(m)
	}
	admin.want(t, http.StatusOK, call{path: e.path()}, nil)
	e.lies(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	patch(t, "services", e.namespace, "api", `{"metadata":{"labels":{"look":"again"}}}`)
	if m := e.becomes(t, "False FailedDiscoveryCheck"); m != fmt.Sprintf("bad status from https://%s/apis/%s/v1: 502", e.address, e.group) {
		t.Error(m)
	}
	metrics := string(admin.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)
	for _, want := range []string{
		fmt.Sprintf("aggregator_unavailable_apiservice{name=%q} 1", "v1."+e.group), `aggregator_unavailable_apiservice{name="v1.apps"} 0`,
		fmt.Sprintf(`aggregator_unavailable_apiservice_total{name=%q,reason="FailedDiscoveryCheck"} 1`, "v1."+e.group),
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no metric %s", want)
		}
	}
	e.lies(nil)
	e.becomes(t, "True Passed") // by itself
}

// An extension is believed by its authority and the name of its service, or not
// looked at.
func TestExtensionCertificates(t *testing.T) {
	e := startExtension(t, nil)
	other := startExtension(t, func(e *extension) { e.namespace = "other" })
	e.service(t)
	e.register(t, "caBundle: "+base64.StdEncoding.EncodeToString(other.authority))
	if m := e.becomes(t, "False FailedDiscoveryCheck"); !strings.Contains(m, "x509: certificate signed by unknown authority") && !strings.Contains(m, "x509: ECDSA verification failure") {
		t.Error(m)
	}
	admin.want(t, http.StatusOK, call{method: "PATCH", path: apiServices + "/v1." + e.group, contentType: mergePatch, body: `{"spec":{"caBundle":"YWJj"}}`}, nil)
	eventually(t, "the bundle is broken", func() bool {
		_, m := e.available(t)
		return m == "unable to load root certificates: unable to parse bytes as PEM block"
	})
	admin.want(t, http.StatusOK, call{method: "PATCH", path: apiServices + "/v1." + e.group, contentType: mergePatch, body: `{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}`}, nil)
	e.becomes(t, "True Passed")
	admin.want(t, http.StatusOK, call{path: e.path()}, nil)
}

// failing are extensions that do harm, by how they do it.
var failing = map[string]func(w http.ResponseWriter, r *http.Request) bool{
	"hanging": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
	"lying": func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		_, _ = w.Write([]byte(`{"items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1","resources":[]}]},17]}`)) // whoever reads has gone
		return true
	},
	"redirecting": func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://127.0.0.1:10250/", http.StatusFound)
		return true
	},
	"dead": func(w http.ResponseWriter, _ *http.Request) bool {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		} else {
			panic(http.ErrAbortHandler)
		}
		return true
	},
}

// Whatever an extension does, discovery and descriptions of all else come at once,
// and it is named as what is missing.
func TestFailingExtensions(t *testing.T) {
	for name, harm := range failing {
		t.Run(name, func(t *testing.T) {
			e := upExtension(t, nil)
			e.lies(harm)
			patch(t, "services", e.namespace, "api", `{"metadata":{"labels":{"look":"again"}}}`)
			admin.want(t, http.StatusOK, call{method: "PATCH", path: apiServices + "/v1." + e.group, contentType: mergePatch, body: `{"spec":{"versionPriority":11}}`}, nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if !poll(ctx, func() bool { return e.entry(t).Freshness == "Stale" }) {
				t.Fatalf("discovery has %+v", e.entry(t))
			}
			began := time.Now()
			config := rest.CopyConfig(admin.config)
			client, err := discovery.NewDiscoveryClientForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			groups, lists, err := client.ServerGroupsAndResources()
			if !discovery.IsGroupDiscoveryFailedError(err) || !strings.Contains(err.Error(), e.group+"/v1") || strings.Contains(err.Error(), "apps/v1") {
				t.Errorf("%v", err)
			}
			if len(groups) < 15 || len(lists) < 15 {
				t.Errorf("%d groups, %d lists", len(groups), len(lists))
			}
			for _, path := range []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/apis/apps/v1", "/apis/apps/v1/deployments"} {
				admin.want(t, http.StatusOK, call{path: path, accept: "application/json"}, nil)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			r := shared.run(t, "kubectl", "api-resources")
			if !strings.Contains(r.out, "deployments") || !strings.Contains(r.out, "storageversionmigrations") || strings.Contains(r.out, "flunders") {
				t.Errorf("kubectl: %+v", r)
			}
		})
	}
}

// A server that is not there is one whose discovery fails; one that goes away
// between two probes is an error of the request alone.
func TestDeadExtension(t *testing.T) {
	e := upExtension(t, nil)
	l, err := net.Listen("tcp", net.JoinHostPort(shared.address.Prev().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("endpointslices", e.namespace, "api"), contentType: mergePatch, body: fmt.Sprintf(`{"ports":[{"name":"https","port":%d}]}`, port)}, nil)
	a := admin.do(t, call{path: e.path()})
	if a.code != http.StatusServiceUnavailable || !strings.HasPrefix(string(a.body), "error trying to reach service: dial tcp ") && string(a.body) != "service unavailable\n" {
		t.Errorf("%d %s", a.code, a.body)
	}
	if m := e.becomes(t, "False FailedDiscoveryCheck"); !strings.Contains(m, "connection refused") {
		t.Error(m)
	}
}

// What an extension has in a namespace goes with the namespace, and a namespace
// waits for an extension that does not say what it has.
func TestNamespaceOfExtension(t *testing.T) {
	e := upExtension(t, nil)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "flunders-"}}
	ns, err := kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := "/apis/" + e.group + "/v1/namespaces/" + ns.Name + "/flunders"
	body := fmt.Sprintf(`{"apiVersion":%q,"kind":"Flunder","metadata":{"name":"one"}}`, e.group+"/v1")
	admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: body, contentType: "application/json"}, nil)
	e.lies(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	patch(t, "services", e.namespace, "api", `{"metadata":{"labels":{"look":"again"}}}`)
	e.becomes(t, "False FailedDiscoveryCheck")
	eventually(t, "discovery is stale", func() bool { return e.entry(t).Freshness == "Stale" })
	if err := kube.CoreV1().Namespaces().Delete(t.Context(), ns.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace says what it waits for", func() bool {
		ns, err := kube.CoreV1().Namespaces().Get(t.Context(), ns.Name, metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceDeletionDiscoveryFailure && c.Status == corev1.ConditionTrue && c.Reason == "DiscoveryFailed" &&
				c.Message == fmt.Sprintf("Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: %s/v1: stale GroupVersion discovery: %[1]s/v1", e.group)
		})
	})
	e.lies(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if !poll(ctx, func() bool { return admin.do(t, call{path: at("namespaces", "", ns.Name)}).code == http.StatusNotFound }) {
		t.Fatal("the namespace is still there")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.items) != 0 {
		t.Errorf("left: %v", e.items)
	}
}
