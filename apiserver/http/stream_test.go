package http_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	apihttp "hansa.dev/hansa/apiserver/http"
)

// forwarding is a cluster whose logs are what a backend streams.
func forwarding(t *testing.T, backend http.HandlerFunc, carrier http.RoundTripper) *cluster {
	b := httptest.NewServer(backend)
	t.Cleanup(b.Close)
	to, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	return newCluster(t, func(c *apihttp.Config) {
		c.Connectors = map[string]apihttp.Connector{
			"pods/log": apihttp.ConnectorFunc(func(w http.ResponseWriter, r *http.Request, _ *apihttp.Connection) error {
				return apihttp.ForwardStream(w, r, to, carrier)
			}),
		}
	})
}

const podLog = "/api/v1/namespaces/default/pods/p/log"

// Streams over WebSocket, as Kubernetes' wsstream.Reader has them: an empty
// message, then what the stream has, as bytes or as base64.
func TestStreamOverWebSocket(t *testing.T) {
	long := strings.Repeat("0123456789", 1<<12)
	c := forwarding(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a line\n"+long) }, http.DefaultTransport)
	for protocol, wants := range map[string]string{"": "a line\n" + long, "binary.k8s.io": "a line\n" + long, "base64.binary.k8s.io": "YSBsaW5lC"} {
		var asked []string
		if protocol != "" {
			asked = []string{"unknown", protocol}
		}
		ws := c.dial(podLog, asked...)
		var got, message string
		err := websocket.Message.Receive(ws, &message)
		if err != nil || message != "" {
			t.Errorf("%q: first message %q, %v", protocol, message, err)
		}
		for ; err == nil; err = websocket.Message.Receive(ws, &message) {
			got += message
		}
		if !errors.Is(err, io.EOF) || !strings.HasPrefix(got, wants) {
			t.Errorf("%q: %d bytes, %.20q, %v", protocol, len(got), got, err)
		}
	}
	if a := c.do(call{path: podLog}); string(a.body) != "a line\n"+long {
		t.Errorf("without WebSocket: %d, %d bytes", a.code, len(a.body))
	}
}

// Each message comes when it is written, and the stream ends with its reader.
func TestFollowedStreamOverWebSocket(t *testing.T) {
	lines, gone := make(chan string), make(chan struct{})
	c := forwarding(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		for {
			select {
			case line := <-lines:
				_, _ = io.WriteString(w, line)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}, http.DefaultTransport)
	go func() { lines <- "one\n" }() // the answer begins with it
	ws := c.dial(podLog+"?follow=true", "binary.k8s.io")
	for _, want := range []string{"", "one\n", "two\n"} {
		if want == "two\n" {
			lines <- want
		}
		var got string
		if err := websocket.Message.Receive(ws, &got); err != nil || got != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	ws.Close()
	<-gone
}

// roundTrip is a function as a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What cannot be streamed is a status, before there is a WebSocket; protocols
// that nobody has are refused.
func TestStreamOverWebSocketRefused(t *testing.T) {
	refused := forwarding(t, nil, roundTrip(func(*http.Request) (*http.Response, error) { return nil, apierrors.NewBadRequest("no such container") }))
	upgrade := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket"}
	if s := refused.do(call{path: podLog, header: upgrade}).status(t); s.Code != http.StatusBadRequest || s.Message != "no such container" {
		t.Errorf("refused: %+v", s)
	}
	c := forwarding(t, func(http.ResponseWriter, *http.Request) {}, http.DefaultTransport)
	if ws, err := c.tryDial(podLog, "unknown"); err == nil {
		ws.Close()
		t.Error("an unknown protocol is let in")
	}
}
