package http

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire notes what is written to it; both parts of a writev are one.
type wire struct {
	net.Conn
	mu     sync.Mutex
	writes []string
	err    error
	closed bool
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.closed {
		return 0, errors.Join(w.err, net.ErrClosed)
	}
	w.writes = append(w.writes, string(p))
	return len(p), nil
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !t.After(time.Now()) {
		w.err = errors.New("too late")
	}
	return nil
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return nil
}

func (w *wire) wrote(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.writes, want) {
		t.Errorf("written: %q, want %q", w.writes, want)
	}
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("write of %q: %d, %v", text, n, err)
	}
}

func TestJoinedWrites(t *testing.T) {
	large := strings.Repeat("x", smallWrite)
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		c := join(w)
		send(t, c, large) // at once
		w.wrote(t, large)
		send(t, c, "headers")
		w.wrote(t, large) // kept
		<-time.After(joinWithin)
		synctest.Wait()
		w.wrote(t, large, "headers")
		send(t, c, "headers")
		send(t, c, "body") // the library's writev of what is no socket is two writes
		w.wrote(t, large, "headers", "headers", "body")
		<-time.After(time.Second)
		w.wrote(t, large, "headers", "headers", "body")

		// A TLS connection says good-bye, sets a deadline that has passed, and closes.
		send(t, c, "bye")
		if err := errors.Join(c.SetWriteDeadline(time.Now()), c.Close()); err != nil {
			t.Error(err)
		}
		w.wrote(t, large, "headers", "headers", "body", "bye")
	})
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		c := join(w)
		send(t, c, "bye")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		w.wrote(t, "bye")
		if _, err := c.Write([]byte(large)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := &wire{err: errors.New("broken")}
		c := join(w)
		send(t, c, "headers")
		<-time.After(2 * joinWithin)
		synctest.Wait()
		if n, err := c.Write([]byte("body")); n != 0 || !errors.Is(err, w.err) {
			t.Errorf("what was kept could not be written, and the next says %d, %v", n, err)
		}
	})
}

// A client that reads nothing keeps nobody from closing its connection, nor from
// setting a deadline.
func TestJoinedClosesOnSilentClient(t *testing.T) {
	for name, end := range map[string]func(net.Conn) error{
		"close":               net.Conn.Close,
		"a deadline":          func(c net.Conn) error { return c.SetWriteDeadline(time.Now().Add(time.Hour)) },
		"no deadline":         func(c net.Conn) error { return c.SetDeadline(time.Time{}) },
		"a deadline that was": func(c net.Conn) error { return c.SetDeadline(time.Now()) },
	} {
		synctest.Test(t, func(t *testing.T) {
			server, client := net.Pipe()
			c := join(server)
			send(t, c, "bye")
			began := time.Now()
			if err := end(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > flushWithin {
				t.Errorf("%s took %s", name, took)
			}
			c.Close()
			client.Close()
		})
	}
}

// Both are one write to a socket.
func TestJoinedInOneSegment(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l = joiner{l}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.(*joined).timer = time.NewTimer(0) // nothing is late
	send(t, c, "headers ")
	send(t, c, "body")
	got := make([]byte, 64)
	if n, err := client.Read(got); string(got[:n]) != "headers body" {
		t.Errorf("read %q, %v", got[:n], err)
	}
}
