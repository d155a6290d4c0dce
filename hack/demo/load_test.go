package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// until runs a load against h until the n-th request has come, and returns its
// result.
func until(t *testing.T, n int64, h http.HandlerFunc) result {
	t.Helper()
	var count atomic.Int64
	reached := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count.Add(1) == n {
			close(reached)
		}
		h(w, r)
	}))
	defer server.Close()
	l := startLoad(t.Context(), strings.TrimPrefix(server.URL, "http://"), 4000)
	<-reached
	return l.stop()
}

func hello(version int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello from pod-1 version %d\n", version) }
}

func TestLoadCounts(t *testing.T) {
	r := until(t, 400, hello(3))
	if r.total() < 200 || len(r.failures) > 0 || r.versions[3] != r.total() || r.last != 3 {
		t.Errorf("result:\n%s", r)
	}
	for _, kind := range []string{"new connections", "kept connections"} {
		if r.requests[kind] == 0 {
			t.Errorf("no request on %s", kind)
		}
	}
	if err := r.verdict(0, 3); err != nil {
		t.Errorf("verdict: %v", err)
	}
}

// Whatever goes wrong with a request is a failure, none is sent again unseen.
func TestLoadSeesFailures(t *testing.T) {
	for name, broken := range map[string]http.HandlerFunc{
		"status 502 Bad Gateway": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"closed without an answer": func(w http.ResponseWriter, r *http.Request) {
			panic(http.ErrAbortHandler)
		},
		`answer "something else"`: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "something else") },
	} {
		t.Run(name, func(t *testing.T) {
			var n, sent atomic.Int64
			r := until(t, 300, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1)%10 == 0 {
					sent.Add(1)
					broken(w, r)
					return
				}
				hello(1)(w, r)
			})
			// Those still on their way when the load ends are not counted.
			if got := int64(len(r.failures)); got == 0 || got > sent.Load() || got < sent.Load()-workers {
				t.Errorf("%d failures of %d sent", got, sent.Load())
			}
			if len(r.failures) > 0 && !strings.Contains(r.failures[0], name) {
				t.Errorf("failure %q, want %q", r.failures[0], name)
			}
			if err := r.verdict(0, 1); err == nil {
				t.Error("the verdict is good")
			}
		})
	}
}

// A server that asks to close a kept connection is obeyed: no failure.
func TestLoadObeysClose(t *testing.T) {
	var n atomic.Int64
	r := until(t, 300, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%3 == 0 {
			w.Header().Set("Connection", "close")
		}
		hello(1)(w, r)
	})
	if len(r.failures) > 0 {
		t.Errorf("result:\n%s", r)
	}
}

func TestVerdict(t *testing.T) {
	good := result{took: time.Second, requests: map[string]int{"new connections": 300}, versions: map[int]int{4: 300}, last: 4}
	slow, old := good, good
	slow.took = 2 * time.Second
	old.last = 3
	for want, r := range map[string]result{"": good, "fewer than 200": slow, "from version 3, not 4": old} {
		err := r.verdict(200, 4)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("verdict %v, want %q", err, want)
		}
	}
}

func TestResultString(t *testing.T) {
	r := result{
		took:     2 * time.Second,
		requests: map[string]int{"new connections": 3, "kept connections": 2},
		versions: map[int]int{2: 1, 1: 3},
		latencies: []time.Duration{
			time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 40 * time.Millisecond,
		},
		failures: []string{"new connections after 1s: status 502"},
	}
	const want = `5 requests in 2.0s, 2 a second: 2 on kept connections and 3 on new connections
answered by version 1: 3 version 2: 1
latency: median 2ms, 99 % within 3ms, worst 40ms
failed: 1
  new connections after 1s: status 502
`
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
