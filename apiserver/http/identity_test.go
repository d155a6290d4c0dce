package http_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apihttp "hansa.dev/hansa/apiserver/http"
)

// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
func TestImpersonation(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	as := func(token string, header map[string]string) answer {
		return c.do(call{path: configMaps + "/a", token: token, header: header})
	}
	s := as("", map[string]string{"Impersonate-User": "somebody"}).status(t)
	if want := `configmaps "a" is forbidden: User "somebody" cannot get resource "configmaps" in API group "" in the namespace "default"`; s.Message != want {
		t.Errorf("as somebody: %s", s.Message)
	}
	if a := as("", map[string]string{"Impersonate-User": "somebody", "Impersonate-Group": "system:masters"}); a.code != http.StatusOK {
		t.Errorf("as a member of system:masters: %d", a.code)
	}
	s = as("u", map[string]string{"Impersonate-User": "admin"}).status(t)
	if want := `configmaps "a" is forbidden: User "u" cannot impersonate-on:user-info:get resource "configmaps" in API group "" in the namespace "default"`; s.Message != want {
		t.Errorf("who may not impersonate: %s", s.Message)
	}
	if s = as("", map[string]string{"Impersonate-Group": "x"}).status(t); s.Code != http.StatusBadRequest {
		t.Errorf("a group without a user: %+v", s)
	}
}

// Nothing that a client shows to be let in is ever logged.
func TestCredentialsAreNotLogged(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := newCluster(t, func(c *apihttp.Config) {
		c.Logger = log
		c.Connectors = map[string]apihttp.Connector{"pods/log": apihttp.ConnectorFunc(func(http.ResponseWriter, *http.Request, *apihttp.Connection) error {
			return errors.New("an error of ours")
		})}
	})
	const pods = "/api/v1/namespaces/default/pods"
	for _, in := range []call{
		{path: configMaps, token: "not-to-be-seen"},
		{path: pods + "/p/log?secret=not-to-be-seen"},
		{method: "POST", path: "/api/v1/namespaces/default/secrets", body: `{"metadata":{"name":"S"},"stringData":{"k":"not-to-be-seen"}}`},
		{method: "POST", path: "/apis/authentication.k8s.io/v1/tokenreviews", body: `{"spec":{"token":"not-to-be-seen"}}`},
	} {
		if a := c.do(in); a.code < 400 {
			t.Errorf("%s gave %d", in.path, a.code)
		}
	}
	if text := logged.String(); strings.Contains(text, "not-to-be-seen") || !strings.Contains(text, "an error of ours") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestConnectors(t *testing.T) {
	var got *apihttp.Connection
	c := newCluster(t, func(c *apihttp.Config) {
		c.Connectors = map[string]apihttp.Connector{
			"pods/log": apihttp.ConnectorFunc(func(w http.ResponseWriter, _ *http.Request, conn *apihttp.Connection) error {
				got = conn
				_, err := io.WriteString(w, "a line\n")
				return err
			}),
		}
	})
	a := c.do(call{path: "/api/v1/namespaces/default/pods/p/log?container=c&follow=true"})
	if string(a.body) != "a line\n" || got.Info.Name != "p" || !strings.Contains(got.Options.(interface{ String() string }).String(), "Container:c,Follow:true") {
		t.Errorf("log gave %d %s with %+v", a.code, a.body, got)
	}
	if s := c.do(call{path: "/api/v1/namespaces/default/pods/p/log", token: "u"}).status(t); s.Code != http.StatusForbidden {
		t.Errorf("who may not read logs got %+v", s)
	}
	if s := c.do(call{path: "/api/v1/namespaces/default/pods/p/exec"}).status(t); s.Code != http.StatusMethodNotAllowed {
		t.Errorf("a subresource that nobody serves gave %+v", s)
	}
}

func TestForward(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") {
				t.Errorf("%s was passed on", name)
			}
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.String())
	}))
	defer backend.Close()
	to, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, func(c *apihttp.Config) {
		c.Connectors = map[string]apihttp.Connector{
			"pods/proxy": apihttp.ConnectorFunc(func(w http.ResponseWriter, r *http.Request, conn *apihttp.Connection) error {
				at := *to
				at.Path, at.RawQuery = conn.Path, r.URL.RawQuery
				return apihttp.Forward(w, r, &at, http.DefaultTransport)
			}),
		}
	})
	const proxy = "/api/v1/namespaces/default/pods/p/proxy"
	as := map[string]string{"Impersonate-User": "admin", "Impersonate-Group": "system:masters", "Impersonate-Extra-a": "b"}
	if a := c.do(call{method: "POST", path: proxy + "/x/y?a=b", body: "{}", header: as}); string(a.body) != "POST /x/y?a=b" {
		t.Errorf("forwarded: %d %s", a.code, a.body)
	}
	backend.Close()
	if s := c.do(call{path: proxy + "/"}).status(t); s.Code != http.StatusServiceUnavailable {
		t.Errorf("without a backend: %+v", s)
	}
}

func TestWatchInProtobuf(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	resp := c.open(t.Context(), call{path: configMaps + "?watch=1", accept: "application/vnd.kubernetes.protobuf;stream=watch"})
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/vnd.kubernetes.protobuf;stream=watch" {
		t.Errorf("content type is %s", got)
	}
	var size [4]byte
	if _, err := io.ReadFull(resp.Body, size[:]); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(resp.Body, frame); err != nil {
		t.Fatal(err)
	}
	var e metav1.WatchEvent
	if err := e.Unmarshal(frame); err != nil || e.Type != "ADDED" || !strings.HasPrefix(string(e.Object.Raw), "k8s\x00") {
		t.Errorf("event is %+v, %v", e, err)
	}
}

// dial opens a WebSocket.
func (c *cluster) dial(path string, protocols ...string) *websocket.Conn {
	c.t.Helper()
	ws, err := c.tryDial(path, protocols...)
	if err != nil {
		c.t.Fatal(err)
	}
	return ws
}

func (c *cluster) tryDial(path string, protocols ...string) (*websocket.Conn, error) {
	config, err := websocket.NewConfig(strings.Replace(c.URL, "https", "wss", 1)+path, c.URL)
	if err != nil {
		return nil, err
	}
	config.TlsConfig = &tls.Config{RootCAs: c.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	config.Header.Set("Authorization", "Bearer admin")
	config.Protocol = protocols
	return websocket.DialConfig(config)
}

func TestWatchOverWebSocket(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	ws := c.dial(configMaps + "?watch=1")
	defer ws.Close()
	var e metav1.WatchEvent
	if err := websocket.JSON.Receive(ws, &e); err != nil || e.Type != "ADDED" {
		t.Errorf("event is %+v, %v", e, err)
	}
}

// A server that stops ends its watches and lets the rest finish.
func TestServeStops(t *testing.T) {
	c := newCluster(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.TLS.Certificates[0], nil }
	go func() { done <- c.server.Serve(ctx, l, apihttp.TLS{GetCertificate: get}, time.Minute) }()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+l.Addr().String()+configMaps+"?watch=1&resourceVersion=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin")
	resp, err := c.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Proto != "HTTP/2.0" {
		t.Errorf("protocol is %s", resp.Proto)
	}
	stop()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve gave %v", err)
	}
}
