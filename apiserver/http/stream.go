package http

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The subprotocols by which a stream is read over a WebSocket: its bytes, or
// base64 of them as text. Without one it is the bytes.
const (
	binaryProtocol = "binary.k8s.io"
	base64Protocol = "base64.binary.k8s.io"
)

// maxMessage bounds the bytes of a stream in one message.
const maxMessage = 4 << 10

// ForwardStream answers with what another server streams, as Forward does, or,
// when the request is for a WebSocket, in messages, the first of which is empty
// and says that the connection stands. Both sides end when either does. An error
// is one of reaching the other side, or its refusal by the transport.
func ForwardStream(w http.ResponseWriter, r *http.Request, to *url.URL, transport http.RoundTripper) error {
	if !isWebSocket(r) {
		return Forward(w, r, to, transport)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", to, err)
	}
	resp, err := transport.RoundTrip(out)
	if err != nil {
		return unreached(err)
	}
	defer resp.Body.Close()
	handler := func(ws *websocket.Conn) {
		defer ws.Close()
		go func() {
			awaitClose(ws)
			cancel()
		}()
		defer context.AfterFunc(ctx, func() { ws.Close() })()
		sendStream(ws, resp.Body)
	}
	websocket.Server{Handshake: chooseStream, Handler: handler}.ServeHTTP(w, r)
	return nil
}

// chooseStream takes the first subprotocol of a client's that streams have.
func chooseStream(c *websocket.Config, _ *http.Request) error {
	if len(c.Protocol) == 0 {
		return nil
	}
	i := slices.IndexFunc(c.Protocol, func(p string) bool { return p == binaryProtocol || p == base64Protocol })
	if i < 0 {
		return fmt.Errorf("none of the protocols %q is supported, but %s and %s are", c.Protocol, binaryProtocol, base64Protocol)
	}
	c.Protocol = c.Protocol[i : i+1]
	return nil
}

// sendStream sends what there is to read, as it comes. Both errors that may be,
// of the stream and of the client, are the end of the connection and no more:
// nobody is left who could be told.
func sendStream(ws *websocket.Conn, from io.Reader) {
	send := func(b []byte) error { return websocket.Message.Send(ws, b) }
	if slices.Equal(ws.Config().Protocol, []string{base64Protocol}) {
		send = func(b []byte) error { return websocket.Message.Send(ws, base64.StdEncoding.EncodeToString(b)) }
	}
	buf := make([]byte, maxMessage)
	for n := 0; send(buf[:n]) == nil; {
		var err error
		if n, err = from.Read(buf); n == 0 && err != nil {
			return
		}
	}
}

// awaitClose returns when a client of which nothing is expected has closed its
// connection.
func awaitClose(ws *websocket.Conn) {
	var ignored []byte
	for websocket.Message.Receive(ws, &ignored) == nil {
	}
}

// unreached is the status that says why another server gave no answer: its own,
// if there is one in the error.
func unreached(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
}
