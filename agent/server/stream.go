package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"hansa.dev/hansa/runtime"
)

// command is what exec and attach connect the client's streams to.
type command func(ctx context.Context, s runtime.Streams) error

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	words := r.URL.Query()["command"]
	if len(words) == 0 {
		s.fail(w, &Error{http.StatusBadRequest, "you must specify a command"})
		return
	}
	run, err := s.running(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.connect(w, r, "executing command in container", func(ctx context.Context, streams runtime.Streams) error {
		return s.Runtime.Exec(ctx, run.ID, words, streams)
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	run, err := s.running(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.connect(w, r, "attaching to container", func(ctx context.Context, streams runtime.Streams) error {
		return s.Runtime.Attach(ctx, run.ID, streams)
	})
}

func (s *Server) running(r *http.Request) (Run, error) {
	run, err := s.target(r, false)
	if err == nil && !run.Running {
		err = &Error{http.StatusBadRequest, fmt.Sprintf("container %s of pod %s is not running", r.PathValue("container"), r.PathValue("pod"))}
	}
	return run, err
}

// connect serves a command over whatever the client speaks: WebSocket with the
// newest protocol, or SPDY or WebSocket with an older one.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, doing string, f command) {
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		s.fail(w, &Error{http.StatusBadRequest, err.Error()})
		return
	}
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		s.connectV5(w, r, doing, o, f)
		return
	}
	e := executor{f}
	if doing == "attaching to container" {
		remotecommand.ServeAttach(w, r, e, "", "", "", o, s.idleTimeout(), createTimeout, remotecommand.SupportedStreamingProtocols)
		return
	}
	remotecommand.ServeExec(w, r, e, "", "", "", nil, o, s.idleTimeout(), createTimeout, remotecommand.SupportedStreamingProtocols)
}

// executor makes a command what the streaming library calls.
type executor struct{ f command }

func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return e.run(ctx, in, out, errOut, tty, resize)
}

func (e executor) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return e.run(ctx, in, out, errOut, tty, resize)
}

func (e executor) run(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := runtime.Streams{TTY: tty}
	// A nil pointer in an interface is not nil: streams that were not asked
	// for must stay away.
	if in != nil {
		s.Stdin = in
	}
	if out != nil {
		s.Stdout = out
	}
	if errOut != nil {
		s.Stderr = errOut
	}
	if resize != nil {
		s.Resize = sizes(ctx, resize)
	}
	err := e.f(ctx, s)
	var exit *runtime.ExitError
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: fmt.Errorf("error executing command: exit code %d", exit.Code), Code: exit.Code}
	}
	return err
}

func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan runtime.TerminalSize {
	out := make(chan runtime.TerminalSize)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- runtime.TerminalSize{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

// portForward carries connections to ports of a pod.
func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	uid := types.UID(r.PathValue("uid"))
	sandbox, err := s.Node.Sandbox(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), uid)
	if err != nil {
		s.fail(w, err)
		return
	}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, err := portforward.NewV4Options(r)
		if err != nil {
			s.fail(w, &Error{http.StatusBadRequest, err.Error()})
			return
		}
		portforward.ServePortForward(w, r, forwarder{s.Runtime, sandbox}, r.PathValue("pod"), string(uid), o, s.idleTimeout(), createTimeout, portforward.SupportedProtocols)
	})
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		proxy.NewTunnelingHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			serve(&rawUpgrade{ResponseWriter: w}, r)
		})).ServeHTTP(w, r)
		return
	}
	serve(w, r)
}

// rawUpgrade writes an upgrade's answer to the hijacked connection itself. The
// tunnel reads it there, for it was made for a proxy, which takes the answer
// from another server and passes it on as it is.
type rawUpgrade struct {
	http.ResponseWriter
	conn net.Conn
	err  error
}

func (u *rawUpgrade) WriteHeader(code int) {
	if code != http.StatusSwitchingProtocols {
		u.ResponseWriter.WriteHeader(code)
		return
	}
	// The tunnel's connection comes without buffers: nothing was read yet.
	if u.conn, _, u.err = http.NewResponseController(u.ResponseWriter).Hijack(); u.err != nil {
		return
	}
	answer := http.Response{StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Header: u.Header()}
	u.err = answer.Write(u.conn)
}

// Hijack gives the connection that the answer was written to.
func (u *rawUpgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if u.err != nil {
		return nil, nil, u.err
	}
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}

type forwarder struct {
	runtime runtime.Runtime
	sandbox string
}

func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return f.runtime.PortForward(ctx, f.sandbox, port, streamConn{stream})
}

// streamConn makes a stream a connection. It has no deadlines: the connection
// that carries it has one for being idle.
type streamConn struct{ io.ReadWriteCloser }

func (streamConn) LocalAddr() net.Addr              { return streamAddr{} }
func (streamConn) RemoteAddr() net.Addr             { return streamAddr{} }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

type streamAddr struct{}

func (streamAddr) Network() string { return "stream" }
func (streamAddr) String() string  { return "portforward" }
