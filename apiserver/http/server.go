// Package http is the API on the wire: paths, media types, watches, tables,
// discovery, health and metrics over HTTP/1.1 and HTTP/2. What a request means
// is package request's; here is only how it looks.
package http

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/fairness"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/internal/health"
)

// Config is what a Server is made of. Requests, Authenticator and Version must
// be set.
type Config struct {
	Requests *request.Handler
	// Authenticator says who asks, or that it is nobody in particular where that
	// is allowed.
	Authenticator authenticator.Request
	Version       version.Info
	// Address is what legacy discovery tells clients to connect to, HOST:PORT.
	Address string
	// Connectors serve the subresources that take the connection over, by
	// request.HookName ("pods/exec").
	Connectors map[string]Connector
	// Limiter says whose turn it is when there are many requests. Nil: everybody's.
	Limiter fairness.Limiter
	// Aggregation knows who else answers for group-versions. Nil: nobody does.
	Aggregation *aggregation.Server
	// OpenAPI is nil when no documents are served.
	OpenAPI *OpenAPI
	// Paths are further paths of the server, read like any other: the keys of
	// tokens, profiles. A path ends in a slash when it stands for all below it.
	Paths map[string]http.Handler
	// Checks are what health is made of, beside "ping" and "etcd".
	Checks []Check
	// Metrics is where the server registers its own and whose all it serves.
	// Nil: a registry of its own.
	Metrics *prometheus.Registry
	Clock   clock.WithTicker // nil: the real one
	Logger  *slog.Logger     // nil: slog.Default
}

// OpenAPI are the documents to serve.
type OpenAPI struct {
	V2JSON, V2Proto func() openapi.Document
	V3              func() map[string]openapi.Document
}

// Limits of one request.
const (
	// MaxBody is the size of the largest body read, in bytes.
	MaxBody = 3 << 20
	// requestTimeout ends requests that are not long-running.
	requestTimeout = 60 * time.Second
	// lastWords is the time after that in which a client must have taken in why.
	lastWords = 5 * time.Second
	// lastLook is how long nothing may be under way before a server that stops
	// hangs up.
	lastLook = 25 * time.Millisecond
	// maxHeader bounds the request line and headers.
	maxHeader = 1 << 20
)

// Server serves the API. ServeHTTP may be called from any goroutine.
type Server struct {
	Config
	*request.Handler

	accepts     acceptCache
	discovery   atomic.Pointer[discovery]
	discovering sync.Mutex // held by whoever builds another
	metrics     *metrics
	seen        *health.Results
	stopping    atomic.Bool
	underWay    atomic.Int64 // requests
	// ending is closed when long-running requests have to go.
	ending chan struct{}
}

// New makes a server. It listens to nothing yet.
func New(c Config) (*Server, error) {
	if c.Requests == nil || c.Authenticator == nil {
		return nil, errors.New("apiserver/http: Requests and Authenticator must be set")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	s := &Server{Config: c, Handler: c.Requests, seen: health.NewResults(), ending: make(chan struct{})}
	s.metrics = newMetrics(c.Metrics)
	return s, nil
}

// TLS says how the server shows itself and which client certificates it asks
// for. Neither needs a restart to change.
type TLS struct {
	// GetCertificate gives the certificate to show.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Serve answers on a listener until the context ends; then new requests are
// refused, long-running ones ended and the others given grace to finish.
func (s *Server) Serve(ctx context.Context, l net.Listener, t TLS, grace time.Duration) error {
	server := &http.Server{
		Handler:        s,
		MaxHeaderBytes: maxHeader,
		// A client that is slow to send its headers holds a connection.
		ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout:       90 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: t.GetCertificate,
			// Certificates are verified by the authenticator, which knows the
			// authorities of the moment; a request without one is no error.
			ClientAuth: tls.RequestClientCert,
			NextProtos: []string{"h2", "http/1.1"},
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(joiner{l}, "", "") }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.Stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	go s.answered(end, cancel)
	err := server.Shutdown(end)
	if end.Err() != nil {
		err = server.Close()
	}
	<-failed
	return err
}

// answered calls done once nothing has been under way for lastLook. The library
// would wait a second more for each connection of HTTP/2, for a client to read
// that it is over.
func (s *Server) answered(ctx context.Context, done context.CancelFunc) {
	tick := s.Config.Clock.NewTicker(lastLook)
	defer tick.Stop()
	for quiet := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
		idle := s.underWay.Load() == 0
		if idle && quiet {
			done()
			return
		}
		quiet = idle
	}
}

// Stop makes the server unready and ends its long-running requests. It may be
// called more than once.
func (s *Server) Stop() {
	if s.stopping.CompareAndSwap(false, true) {
		close(s.ending)
	}
}

// Stopping says that Stop has been called.
func (s *Server) Stopping() bool { return s.stopping.Load() }
