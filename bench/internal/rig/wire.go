package rig

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is a connection of HTTP/2 with one request at a time. It takes a third of
// the processor time of net/http's, which is what a load generator beside the
// server should be like: the figures are the server's, not its.
//
// It belongs to one goroutine at a time.
type wire struct {
	host, token string

	conn    *tls.Conn
	out     bytes.Buffer // the frames of a request, sent at once
	writer  *http2.Framer
	reader  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder

	stream  uint32 // the next request's
	status  int
	credit  int // bytes of bodies that may be sent
	arrived int // bytes of answers since the server was last told to go on
}

// window is what the server may send before it is told to go on.
const window = 1 << 30

// largest is the size of a body that every server takes without being asked for.
const largest = 65535

// errTooLarge is for bodies that want flow control of their own.
var errTooLarge = errors.New("the body is too large for a lean connection")

func (t Target) wire(ctx context.Context) (*wire, error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, err
	}
	security := t.TLS.Clone()
	security.NextProtos = []string{http2.NextProtoTLS}
	if security.ServerName == "" {
		security.ServerName = u.Hostname()
	}
	dialer := &tls.Dialer{Config: security}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	w := &wire{host: u.Host, token: t.Token, conn: conn.(*tls.Conn), stream: 1, credit: largest}
	w.writer = http2.NewFramer(&w.out, nil)
	w.reader = http2.NewFramer(nil, bufio.NewReaderSize(w.conn, 16<<10))
	w.reader.SetReuseFrames()
	w.encoder = hpack.NewEncoder(&w.headers)
	w.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			w.status, _ = strconv.Atoi(f.Value) //nolint:errcheck // 0 is no success
		}
	})
	w.out.WriteString(http2.ClientPreface)
	if err := errors.Join(
		w.writer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20},
		),
		w.writer.WriteWindowUpdate(0, window),
		w.flush(),
	); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return w, nil
}

func (w *wire) flush() error {
	_, err := w.conn.Write(w.out.Bytes())
	w.out.Reset()
	return err
}

// roundTrip sends a request and hands the answer's body to sink as it comes. After
// an error other than errTooLarge the connection is of no more use.
func (w *wire) roundTrip(ctx context.Context, method, path, accept, contentType string, body []byte, sink func([]byte)) (status int, err error) {
	if len(body) > largest {
		return 0, errTooLarge
	}
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err != nil {
			err = context.Cause(ctx)
		}
	}()
	for w.credit < len(body) {
		if _, err := w.frame(0, nil); err != nil {
			return 0, err
		}
	}
	stream := w.stream
	w.stream += 2
	w.headers.Reset()
	w.field(":method", method)
	w.field(":scheme", "https")
	w.field(":authority", w.host)
	w.field(":path", path)
	w.field("user-agent", "hansa-bench")
	if accept != "" {
		w.field("accept", accept)
	}
	if body != nil {
		w.field("content-type", contentType)
		w.field("content-length", strconv.Itoa(len(body)))
	}
	if w.token != "" {
		w.field("authorization", "Bearer "+w.token)
	}
	if err := w.writer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.headers.Bytes(), EndStream: len(body) == 0, EndHeaders: true}); err != nil {
		return 0, err
	}
	for left := body; len(left) > 0; {
		part := left[:min(len(left), 16<<10)]
		left = left[len(part):]
		if err := w.writer.WriteData(stream, len(left) == 0, part); err != nil {
			return 0, err
		}
	}
	w.credit -= len(body)
	if err := w.flush(); err != nil {
		return 0, err
	}
	w.status = 0
	for {
		done, err := w.frame(stream, sink)
		if err != nil {
			return 0, err
		}
		if done {
			return w.status, nil
		}
	}
}

func (w *wire) field(name, value string) {
	_ = w.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // to memory
}

// frame reads one frame. done: it was the last of the stream.
func (w *wire) frame(stream uint32, sink func([]byte)) (done bool, err error) {
	frame, err := w.reader.ReadFrame()
	if err != nil {
		return false, err
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		if !f.HeadersEnded() {
			return false, errors.New("headers in several frames")
		}
		if _, err := w.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return false, err
		}
		return f.StreamEnded(), nil
	case *http2.DataFrame:
		if f.StreamID == stream && sink != nil {
			sink(f.Data())
		}
		if w.arrived += int(f.Length); w.arrived > window/2 {
			err = errors.Join(w.writer.WriteWindowUpdate(0, uint32(w.arrived)), w.flush())
			w.arrived = 0
		}
		return f.StreamEnded(), err
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return false, errors.Join(w.writer.WriteSettingsAck(), w.flush())
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return false, errors.Join(w.writer.WritePing(true, f.Data), w.flush())
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			w.credit += int(f.Increment)
		}
	case *http2.RSTStreamFrame:
		if f.StreamID != stream {
			return false, nil // of a request that is over
		}
		return false, fmt.Errorf("the server ended the stream: %s", f.ErrCode)
	case *http2.GoAwayFrame:
		return false, fmt.Errorf("the server goes away: %s %s", f.ErrCode, strings.TrimSpace(string(f.DebugData())))
	}
	return false, nil
}

// exchange is roundTrip on the client's lean connection, which is made when there
// is none. A request on a connection that the server has closed meanwhile is sent
// once more.
func (c *Client) exchange(ctx context.Context, method, path, contentType string, body []byte, sink func([]byte)) (status int, err error) {
	for {
		fresh := c.wire == nil
		if fresh {
			if c.wire, err = c.target.wire(ctx); err != nil {
				return 0, err
			}
		}
		status, err = c.wire.roundTrip(ctx, method, path, c.Accept, contentType, body, sink)
		if err == nil || errors.Is(err, errTooLarge) {
			return status, err
		}
		err = errors.Join(fmt.Errorf("%s %s: %w", method, path, err), c.closeWire())
		if fresh || ctx.Err() != nil {
			return 0, err
		}
	}
}

func (c *Client) closeWire() error {
	if c.wire == nil {
		return nil
	}
	w := c.wire
	c.wire = nil
	// Its end may have come already.
	if err := w.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
