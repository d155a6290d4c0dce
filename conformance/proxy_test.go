package conformance

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// backend is a server that tells what it was asked, where the shared cluster
// reaches it.
func backend(t *testing.T, secure bool) (address, port string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := maps.Clone(r.Header)
		for name := range h {
			if !strings.HasPrefix(name, "X-") && name != "Authorization" && !strings.HasPrefix(name, "Impersonate-") {
				delete(h, name)
			}
		}
		delete(h, "X-Forwarded-For")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %q %v", r.Method, r.Host, r.URL, body, h))
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "forwarded for %d", len(strings.Split(r.Header.Get("X-Forwarded-For"), ",")))
	})
	mux.HandleFunc("/to/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("url"))
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<a href="/x">x</a><a href="y">y</a><a href="https://example.com/z">z</a>`)
	})
	mux.Handle("/echo", websocket.Handler(func(ws *websocket.Conn) {
		var message string
		for websocket.Message.Receive(ws, &message) == nil && websocket.Message.Send(ws, message) == nil {
		}
	}))
	l, err := net.Listen("tcp", net.JoinHostPort(shared.address.Prev().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	address, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return address, port
}

// doors are a pod, a service and a node, all with the address of a backend, by
// the paths that lead to it.
func doors(t *testing.T) map[string]string {
	t.Helper()
	address, port := backend(t, false)
	_, securePort := backend(t, true)
	ns, node := namespace(t), ghost(t)
	p := fmt.Sprintf("metadata: {name: p, labels: {app: p}}\nspec: {nodeName: %s, containers: [{name: c, image: i, ports: [{name: web, containerPort: %s}]}]}", node, port)
	create(t, "pods", ns, p)
	create(t, "services", ns, fmt.Sprintf("metadata: {name: s}\nspec: {selector: {app: p}, ports: [{name: http, port: 80, targetPort: web}, {name: https, port: 443, targetPort: %s}]}", securePort))
	create(t, "services", ns, "metadata: {name: nameless}\nspec: {selector: {app: p}, ports: [{port: 80, targetPort: web}]}")
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, "p", "status"), contentType: mergePatch,
		body: fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%[1]q}],"conditions":[{"type":"Ready","status":"True"}]}}`, address)}, nil)
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("nodes", "", node, "status"), contentType: mergePatch,
		body: fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`, address)}, nil)
	paths := map[string]string{
		"pod":                             at("pods", ns, "p", "proxy"),
		"pod and port":                    at("pods", ns, "p:"+port, "proxy"),
		"pod by TLS":                      at("pods", ns, "https:p:"+securePort, "proxy"),
		"service's nameless port":         at("services", ns, "nameless", "proxy"),
		"service's port by name":          at("services", ns, "s:http", "proxy"),
		"service's port by number":        at("services", ns, "s:80", "proxy"),
		"service's port by TLS":           at("services", ns, "https:s:https", "proxy"),
		"service's port by TLS, numbered": at("services", ns, "https:s:443", "proxy"),
		"port of a node":                  at("nodes", "", node+":"+port, "proxy"),
		"port of a node by TLS":           at("nodes", "", "https:"+node+":"+securePort, "proxy"),
	}
	for what, path := range paths {
		eventually(t, what+" is reached", func() bool { return admin.do(t, call{path: path + "/"}).code == http.StatusTeapot })
	}
	return paths
}

// Requests of every method, with path, query and body, go through the proxies
// of pods, services and nodes as they are, as the administrator that nobody
// there learns of, and so does the answer ("Accessing services running on
// clusters", "Manually constructing apiserver proxy URLs").
func TestProxiesPassRequestsOn(t *testing.T) {
	host := strings.TrimPrefix(admin.config.Host, "https://")
	for what, path := range doors(t) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			body := ""
			if method != "GET" && method != "HEAD" {
				body = "body of " + method
			}
			a := admin.do(t, call{method: method, path: path + "/a%20b//c/?x=1&x=%2F&watch=true", body: body, contentType: "text/plain",
				header: map[string]string{"X-Mine": "m", "X-Forwarded-For": "198.51.100.1"}})
			want := fmt.Sprintf("%s %s /a%%20b/c/?x=1&x=%%2F&watch=true %q map[X-Forwarded-Uri:[%s/a%%20b/c/] X-Mine:[m]]", method, host, body, path)
			if got := a.header.Get("X-Seen"); a.code != http.StatusTeapot || got != want {
				t.Errorf("%s: %s gave %d\n%s, want\n%s\n%s", what, method, a.code, got, want, a.body)
			}
			if method != "HEAD" && string(a.body) != "forwarded for 2" {
				t.Errorf("%s: %s gave %s", what, method, a.body)
			}
			if a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: pages of other origins may read the answer", what)
			}
		}
		if a := admin.do(t, call{path: path + "/?dryRun=All"}); a.code != http.StatusBadRequest {
			t.Errorf("%s, dry run: %d", what, a.code)
		}
	}
}

// Redirects and links to the server itself lead through the proxy, those to
// elsewhere stay (pkg/util/proxy of apimachinery), and the root is the path with
// the slash.
func TestProxiesRewriteRedirects(t *testing.T) {
	still := *admin.http
	still.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &peer{admin.config, &still}
	for what, path := range doors(t) {
		for to, want := range map[string]string{
			"/there":                "%s/there",
			"/there/?a=b":           "%s/there/?a=b",
			"there":                 "there",
			path + "/there":         "%s/there",
			"https://example.com/x": "https://example.com/x",
		} {
			a := client.do(t, call{path: path + "/to/?url=" + strings.NewReplacer("?", "%3F", "=", "%3D").Replace(to)})
			if got := a.header.Get("Location"); a.code != http.StatusFound || got != strings.Replace(want, "%s", path, 1) {
				t.Errorf("%s: redirect to %s became %d %s", what, to, a.code, got)
			}
		}
		if a := client.do(t, call{path: path + "/page"}); string(a.body) != `<a href="`+path+`/x">x</a><a href="y">y</a><a href="https://example.com/z">z</a>` {
			t.Errorf("%s: the page is %s", what, a.body)
		}
		for method, code := range map[string]int{"GET": http.StatusMovedPermanently, "HEAD": http.StatusMovedPermanently, "POST": http.StatusTeapot} {
			a := client.do(t, call{method: method, path: path + "?a=b"})
			if a.code != code || code == http.StatusMovedPermanently && a.header.Get("Location") != path+"/?a=b" {
				t.Errorf("%s: %s of the root gave %d %s", what, method, a.code, a.header.Get("Location"))
			}
		}
	}
}

// A WebSocket goes through.
func TestProxiesPassWebSockets(t *testing.T) {
	for what, path := range doors(t) {
		ws := dialWebSocket(t, path+"/echo")
		var got []string
		for _, sent := range []string{"a", strings.Repeat("b", 1<<17)} {
			var back string
			if err := websocket.Message.Send(ws, sent); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if err := websocket.Message.Receive(ws, &back); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got = append(got, back)
		}
		if !slices.Equal(got, []string{"a", strings.Repeat("b", 1<<17)}) {
			t.Errorf("%s: %d messages came back otherwise", what, len(got))
		}
		ws.Close()
	}
}

// A node's own API is behind nodes/NAME/proxy; its port may be named.
func TestProxyOfNodes(t *testing.T) {
	const node = "node-shared"
	for _, name := range []string{node, node + ":10250", "https:" + node + ":"} {
		if a := admin.do(t, call{path: at("nodes", "", name, "proxy", "healthz")}); a.code != http.StatusOK || string(a.body) != "ok" {
			t.Errorf("%s: %d %s", name, a.code, a.body)
		}
	}
	admin.do(t, call{path: at("nodes", "", "none", "proxy/")}).refused(t, 404, metav1.StatusReasonNotFound, `nodes "none" not found`)
	admin.do(t, call{path: at("nodes", "", "ftp:none:1", "proxy/")}).refused(t, 400, metav1.StatusReasonBadRequest, `invalid node request "ftp:none:1"`)
}

// What there is no way to is refused as Kubernetes refuses it (ResourceLocation
// of pods, services and nodes): above all the machine's own addresses, which
// everybody could reach who may write a status or an endpoint.
func TestProxiesRefuse(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	address, port := backend(t, false)
	create(t, "pods", ns, podOn("p", node))
	create(t, "services", ns, "metadata: {name: s}\nspec: {ports: [{name: http, port: 80, targetPort: "+port+"}]}")
	slice := func(name, target string) {
		create(t, "endpointslices", ns, fmt.Sprintf("metadata: {name: %s, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{name: http, port: %s}]\nendpoints: [{addresses: [%q]%s}]", name, port, address, target))
	}
	slice("nobody", "")
	slice("other", ", targetRef: {kind: Pod, namespace: "+ns+", name: p}")
	setIP := func(ip string) {
		t.Helper()
		admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, "p", "status"), contentType: mergePatch,
			body: fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[{"ip":%[1]q}]}}`, ip)}, nil)
	}
	bad, unavailable := metav1.StatusReasonBadRequest, metav1.StatusReasonServiceUnavailable
	for _, c := range []struct {
		path    string
		code    int
		reason  metav1.StatusReason
		message string
	}{
		{at("pods", ns, "none", "proxy/"), 404, metav1.StatusReasonNotFound, `pods "none" not found`},
		{at("pods", ns, "ftp:p:1", "proxy/"), 400, bad, `invalid pod request "ftp:p:1"`},
		{at("pods", ns, "p", "proxy/"), 400, bad, "address not allowed"},
		{at("services", ns, "none", "proxy/"), 503, unavailable, `no endpoints available for service "none"`},
		{at("services", ns, "none:80", "proxy/"), 404, metav1.StatusReasonNotFound, `services "none" not found`},
		{at("services", ns, "a:b:c:d", "proxy/"), 400, bad, `invalid service request "a:b:c:d"`},
		{at("services", ns, "s:81", "proxy/"), 503, unavailable, `no service port 81 found for service "s"`},
		{at("services", ns, "s:nope", "proxy/"), 503, unavailable, `no endpoints available for service "s"`},
		{at("services", ns, "s", "proxy/"), 503, unavailable, `no endpoints available for service "s"`},
		{at("services", ns, "s:http", "proxy/"), 503, unavailable, `no endpoints available for service "s"`},
		{at("nodes", "", node, "proxy/"), 503, unavailable, "node " + node + " has no address"},
	} {
		admin.do(t, call{path: c.path}).refused(t, c.code, c.reason, c.message)
	}
	for _, ip := range []string{"127.0.0.1", "169.254.169.254"} {
		setIP(ip)
		admin.do(t, call{path: at("pods", ns, "p:"+port, "proxy/")}).refused(t, 400, bad, "address not allowed")
		admin.want(t, http.StatusOK, call{method: "PATCH", path: at("nodes", "", node, "status"), contentType: mergePatch,
			body: fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`, ip)}, nil)
		admin.do(t, call{path: at("nodes", "", node+":"+port, "proxy/")}).refused(t, 400, bad, "address not allowed")
	}
	setIP(address)
	eventually(t, "the endpoint is a pod", func() bool {
		return admin.do(t, call{path: at("services", ns, "s:http", "proxy/")}).code == http.StatusTeapot
	})
	admin.do(t, call{path: at("pods", ns, "p:1", "proxy/")}).refused(t, 503, unavailable, "error trying to reach service: dial tcp "+address+":1: connect: connection refused")
}
