package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const apiServices = "/apis/apiregistration.k8s.io/v1/apiservices"

// extension is an API server of a test's own, as small as one can be: it serves
// flunders of one group-version, and lets in who a front proxy says it is.
type extension struct {
	t          *testing.T
	group      string
	namespace  string // of its service, api
	address    netip.AddrPort
	authority  []byte // of its certificate, in PEM
	proxies    *x509.CertPool
	aggregated bool          // it knows aggregated discovery
	ended      chan struct{} // closed when a watch's client goes

	mu    sync.Mutex
	seen  []http.Header                                     // of requests for flunders
	items map[string]string                                 // NAMESPACE/NAME to JSON
	lie   func(w http.ResponseWriter, r *http.Request) bool // answers something else
}

// ServeHTTP answers as whom the proxy says.
func (e *extension) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	lie := e.lie
	e.mu.Unlock()
	if !e.believes(r) {
		http.Error(w, "not a front proxy of mine", http.StatusUnauthorized)
		return
	}
	if lie != nil && lie(w, r) {
		return
	}
	gv := e.group + "/v1"
	below, ours := strings.CutPrefix(r.URL.Path, "/apis/"+gv+"/")
	switch path := r.URL.Path; {
	case path == "/apis" && e.aggregated && strings.Contains(r.Header.Get("Accept"), "as=APIGroupDiscoveryList"):
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		fmt.Fprintf(w, `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","items":[{"metadata":{"name":%q},"versions":[{"version":"v1","freshness":"Current","resources":[{"resource":"flunders","responseKind":{"group":%[1]q,"version":"v1","kind":"Flunder"},"scope":"Namespaced","singularResource":"flunder","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["fl"]}]}]}]}`, e.group)
	case path == "/apis/"+gv:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":%q,"resources":[{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["fl"]},{"name":"flunders/status","singularName":"","namespaced":true,"kind":"Flunder","verbs":["get"]}]}`, gv)
	case path == "/openapi/v3":
		fmt.Fprintf(w, `{"paths":{"apis/%s":{"serverRelativeURL":"/openapi/v3/apis/%[1]s?hash=ABC"},"version":{"serverRelativeURL":"/openapi/v3/version?hash=X"}}}`, gv)
	case path == "/openapi/v3/apis/"+gv:
		w.Header().Set("Etag", `"ABC"`)
		if r.Header.Get("If-None-Match") == `"ABC"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, `{"openapi":"3.0.0","info":{"title":"flunders","version":"v1"},"paths":{},"components":{"schemas":{"flunder":{"type":"object"}}}}`)
	case path == "/openapi/v2":
		fmt.Fprint(w, e.swagger())
	case ours:
		e.mu.Lock()
		e.seen = append(e.seen, r.Header.Clone())
		e.mu.Unlock()
		e.flunders(w, r, below)
	default:
		http.NotFound(w, r)
	}
}

func (e *extension) believes(r *http.Request) bool {
	certs := r.TLS.PeerCertificates
	if len(certs) == 0 {
		return false
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: e.proxies, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil && certs[0].Subject.CommonName == "front-proxy-client" && r.Header.Get("X-Remote-User") != ""
}

// swagger has, beside what is ours, a path that is not, and a schema with a name
// of Kubernetes' and other fields.
func (e *extension) swagger() string {
	meta := "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	return fmt.Sprintf(`{"swagger":"2.0","info":{"title":"flunders","version":"v1"},"parameters":{"pretty":{"name":"pretty","in":"query","type":"string","uniqueItems":true}},"paths":{
		"/version/":{"get":{"operationId":"stolen","responses":{"200":{"description":"OK"}}}},
		"/apis/%[1]s/v1/flunders":{"get":{"operationId":"listFlunder","responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.Flunder"}}}},"parameters":[{"$ref":"#/parameters/pretty"}]}},
		"definitions":{"com.example.Flunder":{"type":"object","properties":{"metadata":{"$ref":"#/definitions/%[2]s"}},"x-kubernetes-group-version-kind":[{"group":%[1]q,"version":"v1","kind":"Flunder"}]},%[2]q:{"type":"object","properties":{"mine":{"type":"string"}}}}}`, e.group, meta)
}

// flunders answers for resources: below is [namespaces/NAMESPACE/]flunders[/NAME].
func (e *extension) flunders(w http.ResponseWriter, r *http.Request, below string) {
	parts := strings.Split(below, "/")
	ns := ""
	if parts[0] == "namespaces" && len(parts) > 2 {
		ns, parts = parts[1], parts[2:]
	}
	if parts[0] != "flunders" {
		http.NotFound(w, r)
		return
	}
	if len(parts) == 3 && parts[2] == "console" {
		e.console(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case r.Method == "GET" && r.URL.Query().Get("watch") == "true":
		e.mu.Unlock()
		e.watch(w, r)
		e.mu.Lock()
	case r.Method == "GET" && len(parts) == 1:
		var items []string
		for key, item := range e.items {
			if ns == "" || strings.HasPrefix(key, ns+"/") {
				items = append(items, item)
			}
		}
		slices.Sort(items)
		fmt.Fprintf(w, `{"kind":"FlunderList","apiVersion":%q,"metadata":{"resourceVersion":"7"},"items":[%s]}`, e.group+"/v1", strings.Join(items, ","))
	case r.Method == "GET":
		item, ok := e.items[ns+"/"+parts[1]]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":%q,"code":404}`, fmt.Sprintf("flunders %q not found", parts[1]))
			return
		}
		fmt.Fprint(w, item)
	case r.Method == "POST" && len(parts) == 1, r.Method == "PUT":
		e.store(w, r, ns, nil)
	case r.Method == "PATCH" && r.Header.Get("Content-Type") == mergePatch:
		e.store(w, r, ns, []byte(e.items[ns+"/"+parts[1]]))
	case r.Method == "DELETE":
		for key, item := range e.items {
			if label := r.URL.Query().Get("labelSelector"); label != "" && !strings.Contains(item, `"labels":{"`+strings.Replace(label, "=", `":"`, 1)+`"}`) {
				continue
			}
			if len(parts) == 1 && strings.HasPrefix(key, ns+"/") || len(parts) > 1 && key == ns+"/"+parts[1] {
				delete(e.items, key)
			}
		}
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// store keeps what is sent; in a patch, merged with what there was.
func (e *extension) store(w http.ResponseWriter, r *http.Request, ns string, was []byte) {
	var u unstructured.Unstructured
	body, err := io.ReadAll(r.Body)
	if err == nil && was != nil {
		body, err = jsonpatch.MergePatch(was, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &u.Object)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.SetNamespace(ns)
	text, err := json.Marshal(u.Object)
	if err != nil {
		e.t.Error(err)
	}
	e.items[ns+"/"+u.GetName()] = string(text)
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
	}
	fmt.Fprint(w, string(text))
}

// watch sends one event, and waits until the client goes.
func (e *extension) watch(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, `{"type":"ADDED","object":{"kind":"Flunder","apiVersion":%q,"metadata":{"name":"seen"}}}`+"\n", e.group+"/v1")
	if err := http.NewResponseController(w).Flush(); err != nil {
		e.t.Error(err)
	}
	<-r.Context().Done()
	close(e.ended)
}

// console echoes what it is sent.
func (e *extension) console(w http.ResponseWriter, r *http.Request) {
	websocket.Server{Handler: func(ws *websocket.Conn) {
		var message string
		for websocket.Message.Receive(ws, &message) == nil && websocket.Message.Send(ws, message) == nil {
		}
	}}.ServeHTTP(w, r)
}

// lies has the extension answer something else; nil ends that.
func (e *extension) lies(f func(w http.ResponseWriter, r *http.Request) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lie = f
}

// last are the headers of the last request for flunders.
func (e *extension) last() http.Header {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.seen) == 0 {
		return nil
	}
	return e.seen[len(e.seen)-1]
}

// startExtension runs an extension where the cluster reaches it, which knows its
// front proxies as all do: by the ConfigMap that the API server keeps.
func startExtension(t *testing.T, change func(*extension)) *extension {
	t.Helper()
	e := &extension{
		t: t, group: group(t), namespace: namespace(t), aggregated: true,
		proxies: x509.NewCertPool(), items: map[string]string{}, ended: make(chan struct{}),
	}
	if change != nil {
		change(e)
	}
	var trust corev1.ConfigMap
	admin.want(t, http.StatusOK, call{path: at("configmaps", "kube-system", "extension-apiserver-authentication"), accept: "application/json"}, &trust)
	if !e.proxies.AppendCertsFromPEM([]byte(trust.Data["requestheader-client-ca-file"])) {
		t.Fatalf("no authority of front proxies in %v", trust.Data)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(shared.address.Prev().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	e.address = netip.MustParseAddrPort(l.Addr().String())
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: e}, EnableHTTP2: true}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{e.certificate()}, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(func() { e.lies(nil) })
	return e
}

// certificate is for the name of the extension's service, and its own authority.
func (e *extension) certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "extension"}, DNSNames: []string{"api." + e.namespace + ".svc"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		e.t.Fatal(err)
	}
	e.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// service makes the service and its endpoints.
func (e *extension) service(t *testing.T) {
	t.Helper()
	create(t, "services", e.namespace, "metadata: {name: api}\nspec: {ports: [{name: https, port: 443}]}")
	e.endpoints(t, true)
}

func (e *extension) endpoints(t *testing.T, ready bool) {
	t.Helper()
	create(t, "endpointslices", e.namespace, fmt.Sprintf("metadata: {name: api, labels: {kubernetes.io/service-name: api}}\naddressType: IPv4\nports: [{name: https, port: %d}]\nendpoints: [{addresses: [%q], conditions: {ready: %v}}]",
		e.address.Port(), e.address.Addr(), ready))
}

// register makes the APIService, with more in its spec, and removes it in the end.
func (e *extension) register(t *testing.T, more string) {
	t.Helper()
	body := fmt.Sprintf("apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.%s}\nspec: {group: %[1]s, version: v1, groupPriorityMinimum: 2000, versionPriority: 10, service: {namespace: %s, name: api}, %s}", e.group, e.namespace, more)
	admin.want(t, http.StatusCreated, call{method: "POST", path: apiServices, body: body}, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r, err := admin.open(ctx, call{method: "DELETE", path: apiServices + "/v1." + e.group})
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if !poll(ctx, func() bool { return !strings.Contains(string(aggregatedDiscovery(ctx, t)), e.group) }) {
			t.Errorf("group %s does not go", e.group)
		}
	})
}

func aggregatedDiscovery(ctx context.Context, t *testing.T) []byte {
	r, err := admin.open(ctx, call{path: "/apis", accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// available is the condition of the extension's APIService, STATUS REASON, with
// its message.
func (e *extension) available(t *testing.T) (state, message string) {
	t.Helper()
	a := admin.do(t, call{path: apiServices + "/v1." + e.group, accept: "application/json"})
	if a.code != http.StatusOK {
		return fmt.Sprint(a.code), ""
	}
	conditions, _, _ := unstructured.NestedSlice(a.object(t).Object, "status", "conditions")
	for _, c := range conditions {
		if c := c.(map[string]any); c["type"] == "Available" {
			return fmt.Sprint(c["status"], " ", c["reason"]), fmt.Sprint(c["message"])
		}
	}
	return "", ""
}

// becomes waits for a condition.
func (e *extension) becomes(t *testing.T, state string) (message string) {
	t.Helper()
	var is string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !poll(ctx, func() bool { is, message = e.available(t); return is == state }) {
		t.Fatalf("the APIService is %s (%s), want %s", is, message, state)
	}
	return message
}

// upExtension starts an extension that is known and available.
func upExtension(t *testing.T, change func(*extension)) *extension {
	t.Helper()
	e := startExtension(t, change)
	e.service(t)
	e.register(t, "caBundle: "+base64.StdEncoding.EncodeToString(e.authority))
	e.becomes(t, "True Passed")
	eventually(t, "the extension is discovered", func() bool { return e.entry(t).Freshness == "Current" })
	return e
}

// entry is what aggregated discovery says of the extension.
func (e *extension) entry(t *testing.T) apidiscoveryv2.APIVersionDiscovery {
	t.Helper()
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(aggregatedDiscovery(t.Context(), t), &list); err != nil {
		t.Fatal(err)
	}
	for _, g := range list.Items {
		if g.Name == e.group {
			return g.Versions[0]
		}
	}
	return apidiscoveryv2.APIVersionDiscovery{}
}

// path is that of the extension's objects in a namespace, and below.
func (e *extension) path(below ...string) string {
	return strings.Join(append([]string{"/apis", e.group, "v1", "namespaces", e.namespace, "flunders"}, below...), "/")
}
