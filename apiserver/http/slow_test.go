package http_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/apiserver/fairness"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// wire is a server in a bubble of its own time, reached by pipes: nothing is
// under way that is not read.
type wire struct {
	t        *testing.T
	conns    chan net.Conn
	requests *request.Handler
	took     time.Duration // to stop
}

func (w *wire) Accept() (net.Conn, error) {
	if c, ok := <-w.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (w *wire) Close() error   { return nil }
func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

// onWire answers with how long the server took to stop after f.
func onWire(t *testing.T, limiter fairness.Limiter, f func(*testing.T, *wire)) time.Duration {
	var w *wire
	other := httptest.NewTLSServer(nil)
	cert := other.TLS.Certificates[0]
	other.Close()
	synctest.Test(t, func(t *testing.T) {
		w = &wire{t: t, conns: make(chan net.Conn)}
		w.requests = requesttest.Handler(t, func(c *request.Config) { c.Authorizer = withHealth })
		s, err := apihttp.New(apihttp.Config{Requests: w.requests, Authenticator: byToken, Limiter: limiter})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() {
			get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
			_ = s.Serve(ctx, w, apihttp.TLS{GetCertificate: get}, time.Second)
		})
		f(t, w)
		close(w.conns)
		began := time.Now()
		stop()
		ended.Wait()
		w.took = time.Since(began)
		<-time.After(time.Second) // of the bubble, for the library to end what has hung up
	})
	return w.took
}

// A server that stops does not wait for clients that only keep their connection:
// the library would, a second for each of HTTP/2.
func TestStopHangsUp(t *testing.T) {
	took := onWire(t, nil, func(t *testing.T, w *wire) {
		client := &http.Client{Transport: &http.Transport{
			DialContext:     func(context.Context, string, string) (net.Conn, error) { return w.dial(), nil },
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
		}}
		resp, err := client.Get("https://server/healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("the connection is of %s", resp.Proto)
		}
	})
	if took > 100*time.Millisecond {
		t.Errorf("stopping took %s", took)
	}
}

// dial gives a connection without anything said on it.
func (w *wire) dial() net.Conn {
	ours, theirs := net.Pipe()
	w.conns <- theirs
	return ours
}

func (w *wire) secured(protocol string) *tls.Conn {
	w.t.Helper()
	c := tls.Client(w.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := c.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// client speaks HTTP/2 over connections of its own, with little room for what
// is not read.
func (w *wire) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return w.secured("h2"), nil },
		ForceAttemptHTTP2: true, DisableCompression: true, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
	}}
}

func (w *wire) request(path string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "https://server"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	return r
}

// fill makes objects of together 2 MB.
func (w *wire) fill() {
	w.t.Helper()
	for i := range 20 {
		w.create(fmt.Sprint("n", i))
	}
}

func (w *wire) create(name string) {
	w.t.Helper()
	cm := requesttest.ConfigMap(name)
	cm.Data = map[string]string{"large": strings.Repeat("x", 100<<10)}
	if _, err := w.requests.Create(w.t.Context(), requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: cm}, &metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// A client that does not say all that it has begun to say is let go.
func TestSlowHeaders(t *testing.T) {
	for name, begin := range map[string]func(*wire) net.Conn{
		"no handshake": (*wire).dial,
		"half a handshake": func(w *wire) net.Conn {
			c := w.dial()
			_, _ = c.Write([]byte{22, 3, 1, 0, 200})
			return c
		},
		"no request": func(w *wire) net.Conn { return w.secured("http/1.1") },
		"half a header": func(w *wire) net.Conn {
			c := w.secured("http/1.1")
			_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: aaa")
			return c
		},
		"no preface": func(w *wire) net.Conn { return w.secured("h2") },
		"half a header of HTTP/2": func(w *wire) net.Conn {
			c := w.secured("h2")
			go func() {
				_, _ = io.WriteString(c, http2.ClientPreface)
				f := http2.NewFramer(c, nil)
				_ = f.WriteSettings()
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}()
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			onWire(t, nil, func(t *testing.T, w *wire) {
				began := time.Now()
				c := begin(w)
				_, _ = io.Copy(io.Discard, c)
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("the connection ended after %v", took)
				}
				_ = c.Close()
			})
		})
	}
}

// A body that does not come costs its client the request when the time of that
// is over, large or small and whatever was promised.
func TestSlowBodies(t *testing.T) {
	for _, length := range []int64{10, 3 << 20, -1} {
		onWire(t, nil, func(t *testing.T, w *wire) {
			client := w.client()
			defer client.CloseIdleConnections()
			body, rest := io.Pipe()
			defer rest.Close()
			r := w.request(configMaps)
			r.Method, r.Body, r.ContentLength = http.MethodPost, body, length
			r.Header.Set("Content-Type", "application/json")
			go func() { _, _ = rest.Write([]byte("{")) }()
			began := time.Now()
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if took := time.Since(began); resp.StatusCode != http.StatusGatewayTimeout || took != time.Minute {
				t.Errorf("with a length of %d: %d after %v", length, resp.StatusCode, took)
			}
		})
	}
}

// A client that does not read its answer gives its seat back when the time of
// the request is over, and cannot take the part for the whole.
func TestSlowReaderOfAList(t *testing.T) {
	onWire(t, fairness.NewLimits(1, 1), func(t *testing.T, w *wire) {
		w.fill()
		client := w.client()
		defer client.CloseIdleConnections()
		slow, err := client.Do(w.request(configMaps))
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Body.Close()
		list := func() int {
			r := w.request(configMaps)
			r.Header.Set("Authorization", "Bearer u")
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.StatusCode
		}
		<-time.After(59 * time.Second)
		if code := list(); code != http.StatusTooManyRequests {
			t.Errorf("while it is being read: %d", code)
		}
		<-time.After(10 * time.Second)
		if code := list(); code != http.StatusForbidden {
			t.Errorf("after its time: %d, want that of the authorizer", code)
		}
		if n, err := io.Copy(io.Discard, slow.Body); err == nil {
			t.Errorf("%d bytes of the list are taken for all", n)
		}
	})
}

// A watcher that does not read is dropped, long before its watch would be over;
// one that has nothing to read is not.
func TestSlowWatcherIsDropped(t *testing.T) {
	onWire(t, nil, func(t *testing.T, w *wire) {
		client := w.client()
		defer client.CloseIdleConnections()
		began := time.Now()
		slow, err := client.Do(w.request(configMaps + "?watch=true"))
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Body.Close()
		good, err := client.Do(w.request(configMaps + "?watch=true"))
		if err != nil {
			t.Fatal(err)
		}
		defer good.Body.Close()
		events := bufio.NewReader(good.Body)
		next := func() {
			t.Helper()
			if line, err := events.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"type":"ADDED"`) {
				t.Fatalf("after %v: %.100s %v", time.Since(began), line, err)
			}
		}
		<-time.After(10 * time.Minute)
		for i := range 5 {
			w.create(fmt.Sprint("a", i))
			next()
		}
		<-time.After(3 * time.Minute)
		w.create("b")
		next()
		if n, err := io.Copy(io.Discard, slow.Body); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the watch that was not read went on: %d bytes, %v", n, err)
		}
		<-time.After(10 * time.Minute)
		w.create("c")
		next()
	})
}

// The same over HTTP/1.1, where the connection is the watch's own.
func TestSlowWatcherOfOldIsDropped(t *testing.T) {
	onWire(t, nil, func(t *testing.T, w *wire) {
		c := w.secured("http/1.1")
		defer c.Close()
		_, _ = io.WriteString(c, "GET "+configMaps+"?watch=true HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.create("a")
		<-time.After(5 * time.Minute)
		if n, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("%d bytes are taken for the whole", n)
		}
	})
}

// What a connection may carry at once is told to the client.
func TestStreamsOfAConnection(t *testing.T) {
	onWire(t, nil, func(t *testing.T, w *wire) {
		c := w.secured("h2")
		defer c.Close()
		go func() {
			_, _ = io.WriteString(c, http2.ClientPreface)
			_ = http2.NewFramer(c, nil).WriteSettings()
		}()
		frame, err := http2.NewFramer(nil, c).ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		settings, ok := frame.(*http2.SettingsFrame)
		if !ok {
			t.Fatalf("the first frame is %v", frame)
		}
		if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != 1000 {
			t.Errorf("%d streams are offered", n)
		}
		if n, ok := settings.Value(http2.SettingMaxHeaderListSize); !ok || n > 2<<20 {
			t.Errorf("headers of %d bytes are taken", n)
		}
	})
}

// Headers of more than a megabyte are refused (RFC 6585, section 5).
func TestHeadersThatAreTooLarge(t *testing.T) {
	onWire(t, nil, func(t *testing.T, w *wire) {
		c := w.secured("http/1.1")
		defer c.Close()
		go func() {
			_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: "+strings.Repeat("a", 2<<20)+"\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answer is %+v, %v", resp, err)
		}
	})
}
