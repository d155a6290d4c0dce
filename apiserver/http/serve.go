package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/audit"
)

const auditHeader = "Audit-Id"

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(auditHeader)
	if id == "" {
		id = string(uuid.NewUUID())
	}
	h := w.Header()
	h[auditHeader] = []string{id}
	h["Cache-Control"] = []string{"no-cache, private"}

	s.underWay.Add(1)
	defer s.underWay.Add(-1)
	rw := &response{ResponseWriter: w}
	defer s.finish(rw, r)
	t := parsePath(r.URL.Path)
	if !t.resource {
		s.servePath(rw, r)
		return
	}
	s.serveResource(rw, r, t)
}

// response notes what was sent, for metrics and for panics.
type response struct {
	http.ResponseWriter
	status int
	size   int
	audit  *audit.Record // nil: nothing is noted

	mu       sync.Mutex
	warnings []string
	ended    bool // nobody may touch the connection any more
}

func (w *response) WriteHeader(code int) {
	if w.status != 0 {
		return
	}
	w.status = code
	w.mu.Lock()
	for _, text := range w.warnings {
		w.Header().Add("Warning", text)
	}
	w.mu.Unlock()
	w.audit.Started(code)
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.size += n
	return n, err
}

// hurry ends all reading at once, and writing at a time, unless the request has
// been answered meanwhile: then the connection is another's.
func (w *response) hurry(last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	conn := http.NewResponseController(w.ResponseWriter)
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // long ago
	_ = conn.SetWriteDeadline(last)
}

// end keeps hurry from doing anything from now on.
func (w *response) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack gives the connection away, for upgrades.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
		w.audit.Started(w.status)
	}
	return conn, rw, err
}

// Flush sends what was written so far.
func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// maxWarnings bounds the Warning headers of one answer, in bytes.
const maxWarnings = 4 << 10

// warn adds a Warning header, once for each text.
func (w *response) warn(text string) {
	header, err := utilnet.NewWarningHeader(299, "-", text)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	size := len(header)
	for _, had := range w.warnings {
		if had == header {
			return
		}
		size += len(had)
	}
	if size <= maxWarnings {
		w.warnings = append(w.warnings, header)
	}
}

// finish turns a panic into a 500, or where the answer has begun into a broken
// connection, so that the client cannot take a part for the whole.
func (s *Server) finish(w *response, r *http.Request) {
	p := recover()
	if p == nil {
		w.audit.Complete()
		return
	}
	w.audit.Panicked(p)
	w.audit = nil
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.Logger.Error("panic in request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	s.fail(w, r, apierrors.NewInternalError(fmt.Errorf("this request caused apiserver to panic. Look in the logs for details")))
}

// authenticate says who asks.
func (s *Server) authenticate(r *http.Request) (user.Info, error) {
	began := s.Config.Clock.Now()
	answer, ok, err := s.Authenticator.AuthenticateRequest(r)
	s.metrics.authenticated(answer, ok, err, s.Config.Clock.Since(began))
	if err != nil || !ok {
		if err != nil {
			s.Logger.Debug("authentication failed", "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
		}
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	return answer.User, nil
}

// actAs says as whom the client goes on, and takes out of the headers what says
// who it is: no credential goes any further.
func (s *Server) actAs(r *http.Request, u user.Info, attributes func() *authorizer.AttributesRecord, a *audit.Record) (user.Info, error) {
	r.Header.Del("Authorization")
	as := impersonated(r.Header)
	if as == nil {
		return u, nil
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			delete(r.Header, name)
		}
	}
	asks := attributes()
	asks.User = u
	other, err := s.Impersonate(r.Context(), asks, as)
	if err != nil {
		return nil, err
	}
	a.Impersonates(other.User, other.Constraint)
	return other.User, nil
}

const impersonateExtra = authenticationv1.ImpersonateUserExtraHeaderPrefix

// impersonated is whom the client wants to be taken for, nil for itself.
func impersonated(h http.Header) *user.DefaultInfo {
	as := &user.DefaultInfo{
		Name:   h.Get(authenticationv1.ImpersonateUserHeader),
		UID:    h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: h[authenticationv1.ImpersonateGroupHeader],
	}
	for name, values := range h {
		if !strings.HasPrefix(name, impersonateExtra) {
			continue
		}
		key := strings.ToLower(strings.TrimPrefix(name, impersonateExtra))
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		if as.Extra == nil {
			as.Extra = map[string][]string{}
		}
		as.Extra[key] = append(as.Extra[key], values...)
	}
	if as.Name == "" && as.UID == "" && len(as.Groups) == 0 && as.Extra == nil {
		return nil
	}
	return as
}

// query parses the query once, and not at all when there is none.
func query(r *http.Request) url.Values {
	if r.URL.RawQuery == "" {
		return nil
	}
	return r.URL.Query()
}

// serveResource answers a request for a resource.
func (s *Server) serveResource(w *response, r *http.Request, t target) {
	start := s.Config.Clock.Now()
	q := query(r)
	remote := s.Aggregation.Remote(gvr(t).GroupVersion())
	info := &request.Info{
		Verb:        verb(r.Method, &t, isTrue(q["watch"])),
		Subresource: t.sub,
		Namespace:   t.namespace,
		Name:        t.name,
		Path:        r.URL.Path,
		UserAgent:   r.UserAgent(),
		Warn:        w.warn,
	}
	if remote == nil {
		info.Served = s.Registry.ByGVR(gvr(t))
	}
	done := s.metrics.begin(info, t, r, q)
	defer func() { done(w, s.Config.Clock.Since(start)) }()

	u, err := s.authenticate(r)
	attributes := func() *authorizer.AttributesRecord {
		a := resourceAttributes(info.Verb, t, q)
		request.Select(a, q.Get("fieldSelector"), q.Get("labelSelector"))
		return a
	}
	if s.Audit != nil {
		r = s.note(w, r, resourceAttributes(info.Verb, t, q), err != nil, start, u)
		info.Audit = w.audit
	}
	if err == nil {
		info.User, err = s.actAs(r, u, attributes, w.audit)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// What another server makes of a connection may last, too.
	streams := info.Verb == "watch" || remote != nil && upgrades(r)
	ctx, cancel, limit, err := s.timed(w, r, q, streams || lasts(t.sub))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer cancel()
	c := &call{Server: s, w: w, r: r, ctx: ctx, limit: limit, info: info, remote: remote, target: t, q: q}
	switch {
	case lasts(t.sub):
		c.answer()
	case streams:
		c.watchInTurn()
	default:
		deepen(false)
		s.inTurn(ctx, w, turn{c})
	}
}

// deepen gives the goroutine of a request, while few frames have to be copied,
// the stack that it will need: 16 KiB, the most that is had without a lock. Each
// request has a new goroutine, whose stack would grow several times on its way.
//
//go:noinline
func deepen(touch bool) byte {
	if !touch {
		return 0 // to be called is what counts
	}
	var room [7 << 10]byte
	for i := range room {
		room[i] = room[i/2] + byte(i)
	}
	return room[len(room)-1]
}

// answer answers a request whose turn it is.
func (c *call) answer() {
	if c.remote != nil {
		c.passOn()
		return
	}
	if err := c.refused(); err != nil {
		c.refuse(err)
		return
	}
	if text := c.info.Served.Version.Deprecated; text != "" {
		c.w.warn(text)
		c.info.Audit.Deprecated()
	}
	if err := c.dispatch(); err != nil {
		c.fail(c.w, c.r, err)
	}
}

// timed bounds a request that is not long-running, by what the client asks for
// or by the server's own limit, whichever is shorter: waiting for its turn
// included. When it is over the connection is read no further and soon not
// written either, so that a client that does neither holds nothing up.
func (s *Server) timed(w *response, r *http.Request, q url.Values, long bool) (context.Context, context.CancelFunc, time.Duration, error) {
	if long {
		return r.Context(), func() {}, 0, nil
	}
	limit := requestTimeout
	if text := q.Get("timeout"); text != "" {
		asked, err := time.ParseDuration(text)
		if err != nil {
			return nil, nil, 0, apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %v", err))
		}
		if asked > 0 {
			limit = min(limit, asked)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	spare := context.AfterFunc(ctx, func() { w.hurry(s.Config.Clock.Now().Add(lastWords)) })
	return ctx, func() { spare(); w.end(); cancel() }, limit, nil
}

func isTrue(values []string) bool {
	if len(values) == 0 {
		return false
	}
	switch strings.ToLower(values[0]) {
	case "false", "0":
		return false
	}
	return true
}
