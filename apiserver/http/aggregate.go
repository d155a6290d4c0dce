package http

import (
	"context"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/transport"

	"hansa.dev/hansa/apiserver/aggregation"
)

// What is passed on besides requests for resources may take so long: discovery,
// by which every client begins, and descriptions.
const (
	remoteDiscovery   = 5 * time.Second
	remoteDescription = time.Minute
)

// passOn answers a request for a resource of another server, whose turn it is.
func (c *call) passOn() {
	c.info.FieldSelector, c.info.LabelSelector = c.q.Get("fieldSelector"), c.q.Get("labelSelector")
	if c.info.Verb != "list" && c.info.Verb != "watch" && c.info.Verb != "deletecollection" {
		c.info.FieldSelector, c.info.LabelSelector = "", "" // which narrow nothing else
	} else if c.info.Name == "" {
		c.info.Name = selectedName(c.info.FieldSelector)
	}
	if err := c.mayAsk(); err != nil {
		c.fail(c.w, c.r, err)
		return
	}
	if c.started != nil {
		c.started() // from here on it is the other server's
	}
	c.Server.passOn(c.w, c.r.WithContext(c.ctx), c.remote, c.info.User)
}

// passOn answers a request for a path of another server.
func (c *pathCall) passOn(remote *aggregation.Remote, limit time.Duration) {
	ctx, cancel := context.WithTimeout(c.r.Context(), limit)
	defer cancel()
	c.Server.passOn(c.w, c.r.WithContext(ctx), remote, c.user)
}

// remotePath is who answers for one of the paths of discovery and OpenAPI that are
// of one group-version, and in what time; nil when this server does.
func (s *Server) remotePath(path string) (*aggregation.Remote, time.Duration) {
	st := s.Aggregation.State()
	if len(st.Remotes()) == 0 {
		return nil, 0
	}
	path = strings.TrimSuffix(path, "/")
	if name, ok := strings.CutPrefix(path, "/openapi/v3/"); ok {
		remote, _ := st.Described(name)
		return remote, remoteDescription
	}
	var gv schema.GroupVersion
	if rest, ok := strings.CutPrefix(path, "/apis/"); ok {
		gv.Group, gv.Version, _ = strings.Cut(rest, "/")
	} else {
		gv.Version = strings.TrimPrefix(path, "/api/")
	}
	return st.Remotes()[gv], remoteDiscovery
}

// passOn passes a request on to another server, as a user, at the same path. What
// becomes of failures is Kubernetes': texts, since the other side, too, may answer
// in any form.
func (s *Server) passOn(w *response, r *http.Request, remote *aggregation.Remote, as user.Info) {
	if !remote.Available() {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if err := remote.Broken(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	to, err := remote.Location()
	if err != nil {
		s.Logger.Debug("no way to another server", "path", r.URL.Path, "error", err)
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	to.Path, to.RawPath, to.RawQuery = r.URL.Path, r.URL.RawPath, r.URL.Query().Encode()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	upgrade := upgrades(r)
	carrier := remote.Transport(upgrade)
	if !upgrade {
		carrier = ownOrigin{&utilproxy.Transport{RoundTripper: carrier}}
	}
	err = pass(w, r.WithContext(ctx), carrier, func(p *httputil.ProxyRequest) {
		p.Out.URL = to
		transport.SetAuthProxyHeaders(p.Out, as.GetName(), as.GetUID(), as.GetGroups(), as.GetExtra())
		forwardedFor(p)
	})
	if err != nil && w.status == 0 {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}
