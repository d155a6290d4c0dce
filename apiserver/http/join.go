package http

import (
	"net"
	"sync"
	"time"
)

// The library's HTTP/2 flushes the headers of an answer before it has asked the
// handler for the body, so that each answer would be two writes, and two reads
// of the client. Writing was a fifth of the processor time of a pod's create.
const (
	// smallWrite is more than the record with the headers of an answer.
	smallWrite = 256
	// joinWithin is for how long a small write waits for the one behind it.
	joinWithin = 200 * time.Microsecond
	// flushWithin is for how long one who closes a connection may wait for a client
	// that does not read.
	flushWithin = 100 * time.Millisecond
)

// joiner is a listener whose connections join a small write with the next.
type joiner struct{ net.Listener }

func (l joiner) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return join(conn), nil
}

// joined is a connection that keeps a small write for a moment, so that it goes
// out together with the next one. An error of a write that was kept is that of
// the next.
type joined struct {
	net.Conn

	mu    sync.Mutex // held while something is written
	small [smallWrite]byte
	kept  int // bytes of small
	err   error
	timer *time.Timer
}

func join(conn net.Conn) *joined {
	c := &joined{Conn: conn}
	c.timer = time.AfterFunc(time.Hour, c.late)
	c.timer.Stop()
	return c
}

// Write may be called by one at a time.
func (c *joined) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.kept == 0 {
		if len(p) >= smallWrite {
			return c.Conn.Write(p)
		}
		c.kept = copy(c.small[:], p)
		c.timer.Reset(joinWithin)
		return len(p), nil
	}
	c.timer.Stop()
	before := int64(c.kept)
	both := net.Buffers{c.small[:c.kept], p}
	c.kept = 0
	n, err := both.WriteTo(c.Conn)
	c.err = err
	return int(max(n-before, 0)), err
}

// late writes what has waited in vain.
func (c *joined) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

func (c *joined) flush() {
	if c.kept > 0 && c.err == nil {
		_, c.err = c.Conn.Write(c.small[:c.kept])
	}
	c.kept = 0
}

// flushLast writes what is kept, before nothing can be written any more. Whoever is
// writing has it otherwise.
func (c *joined) flushLast() {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		c.timer.Stop()
		if c.kept > 0 {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(flushWithin)) // it fails for a closed one only
			c.flush()
		}
	}
}

// flushBefore writes what is kept when the deadline that comes now lets nothing
// through.
func (c *joined) flushBefore(deadline time.Time) {
	if !deadline.IsZero() && !deadline.After(time.Now()) {
		c.flushLast()
	}
}

func (c *joined) SetDeadline(t time.Time) error {
	c.flushBefore(t)
	return c.Conn.SetDeadline(t)
}

func (c *joined) SetWriteDeadline(t time.Time) error {
	c.flushBefore(t)
	return c.Conn.SetWriteDeadline(t)
}

// Close writes what is kept.
func (c *joined) Close() error {
	c.flushLast()
	return c.Conn.Close()
}
