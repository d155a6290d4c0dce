package http

import (
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/transport"

	"hansa.dev/hansa/apiserver/request"
)

// Connector serves a subresource that takes the connection over: logs, exec,
// attach, port forwarding, proxies. It is called when the request has been
// authorized and admitted.
type Connector interface {
	// Connect answers the request itself. Before anything has been written it
	// may return an API status error instead, which is then sent; a response
	// that was begun or hijacked is the connector's to finish. The request's
	// context ends with the client and when the server stops.
	Connect(w http.ResponseWriter, r *http.Request, c *Connection) error
}

// Connection says what is connected to.
type Connection struct {
	Info *request.Info
	// Options is the subresource's kind (PodExecOptions, …) with the query in
	// it, nil when it has none.
	Options runtime.Object
	// Path is what follows the subresource in the URL, with its slash, for
	// proxies.
	Path string
}

// ConnectorFunc is a function as a Connector.
type ConnectorFunc func(w http.ResponseWriter, r *http.Request, c *Connection) error

// Connect calls the function.
func (f ConnectorFunc) Connect(w http.ResponseWriter, r *http.Request, c *Connection) error {
	return f(w, r, c)
}

func (s *Server) connector(info *request.Info) Connector {
	if info.Subresource == "" || !info.Served.Subresources[info.Subresource].Connect {
		return nil
	}
	return s.Connectors[request.HookName(info.Served.GroupResource(), info.Subresource)]
}

// connect hands a request to its connector.
func (s *Server) connect(w *response, r *http.Request, info *request.Info, t target, connector Connector) error {
	sub := info.Served.Subresources[info.Subresource]
	q := query(r)
	if len(q["dryRun"]) > 0 {
		return apierrors.NewBadRequest("dryRun is not supported")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	c := &Connection{Info: info, Path: t.rest}
	if sub.New != nil {
		c.Options = sub.New()
		if t.rest != "" {
			if q == nil {
				q = url.Values{}
			}
			q.Set("path", t.rest)
		}
		codec := runtime.NewParameterCodec(s.Registry.Scheme())
		if err := codec.DecodeParameters(q, info.Served.Version.GroupVersion, c.Options); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if err := s.Connect(ctx, info, c.Options); err != nil {
		return err
	}
	err := connector.Connect(w, r.WithContext(ctx), c)
	if err != nil && w.status != 0 {
		s.Logger.Debug("connection ended", "path", r.URL.Path, "error", err)
		return nil
	}
	return err
}

// Forward passes a request on to another server, as it is but for its URL, and
// the answer back. It carries upgraded connections (SPDY, WebSocket) and
// streams. The server has taken the client's credentials out of the request. An
// error is one of reaching the other side.
func Forward(w http.ResponseWriter, r *http.Request, to *url.URL, transport http.RoundTripper) error {
	return pass(w, r, transport, func(p *httputil.ProxyRequest) {
		p.Out.URL = to
		p.Out.Host = to.Host
		p.SetXForwarded()
	})
}

// pass passes a request on, rewritten, and the answer back.
func pass(w http.ResponseWriter, r *http.Request, carrier http.RoundTripper, rewrite func(*httputil.ProxyRequest)) error {
	var failed error
	proxy := &httputil.ReverseProxy{
		Transport:     carrier,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			// What a client says about itself there is for nobody to believe.
			transport.SetAuthProxyHeaders(p.Out, "", "", nil, nil)
			p.Out.Header.Del("X-Remote-User")
			rewrite(p)
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	if failed != nil {
		return unreached(failed)
	}
	return nil
}

func copyAll(w io.Writer, r io.Reader) {
	// A failed write means that the client has gone.
	_, _ = io.Copy(w, r)
}
