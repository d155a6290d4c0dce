package rig

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// All requests go over one connection, those without a body, with an empty one and
// with one that the server does not read.
func TestOneConnection(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	}))
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c := Target{URL: server.URL, TLS: &tls.Config{RootCAs: roots}}.Connect()
	defer c.Close()
	for _, body := range [][]byte{nil, {}, []byte("x"), nil, {}, nil} {
		if _, err := c.Discard(t.Context(), http.MethodPost, "/", JSON, body); err != nil {
			t.Errorf("body %q: %v", body, err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("there were %d connections", n)
	}
}
