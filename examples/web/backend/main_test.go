package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// served is a running server under a test's control.
type served struct {
	addr    string
	stop    context.CancelFunc // SIGTERM
	drained chan time.Time     // the end of the drain time
	ended   chan error         // what serve returned
}

func start(t *testing.T, h http.Handler) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &served{addr: l.Addr().String(), stop: stop, drained: make(chan time.Time), ended: make(chan error, 1)}
	go func() { s.ended <- serve(ctx, l, h, func() <-chan time.Time { return s.drained }) }()
	return s
}

func (s *served) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// get sends a request on an open connection and returns body and whether the
// server asks to close it.
func get(t *testing.T, c net.Conn, r *bufio.Reader) (string, bool) {
	t.Helper()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return read(t, r)
}

func read(t *testing.T, r *bufio.Reader) (string, bool) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("the request was dropped: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), resp.Close
}

func TestSaysWhoAnswers(t *testing.T) {
	s := start(t, newMux("pod-1", "7"))
	c, r := s.dial(t)
	if body, closed := get(t, c, r); body != "hello from pod-1 version 7\n" || closed {
		t.Errorf("answer %q, closes %v", body, closed)
	}
	// The connection is kept.
	if body, _ := get(t, c, r); !strings.HasPrefix(body, "hello") {
		t.Errorf("second answer %q", body)
	}
}

// While it drains, old and new connections are served, and every answer asks
// for the connection to be closed.
func TestDrainGoesOnServing(t *testing.T) {
	s := start(t, newMux("pod-1", "7"))
	old, oldReader := s.dial(t)
	get(t, old, oldReader)
	s.stop()
	for { // until the server has noticed
		c, r := s.dial(t)
		body, closed := get(t, c, r)
		if body != "hello from pod-1 version 7\n" {
			t.Fatalf("a new connection got %q", body)
		}
		if closed {
			break
		}
	}
	if body, closed := get(t, old, oldReader); body != "hello from pod-1 version 7\n" || !closed {
		t.Errorf("the old connection got %q, closes %v; want an answer that closes", body, closed)
	}
	s.drained <- time.Time{}
	if err := <-s.ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("it still listens")
	}
}

// A request that is being answered at the end of the drain time is answered.
func TestWaitsForRequestsInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "late")
	}))
	c, r := s.dial(t)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	s.stop()
	s.drained <- time.Time{}
	select {
	case err := <-s.ended:
		t.Fatalf("ended with a request in flight: %v", err)
	default:
	}
	close(release)
	if body, _ := read(t, r); body != "late" {
		t.Errorf("answer %q", body)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}
