package http

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
)

// forwarded are the headers of proxies before us, which are passed on.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// Proxy passes a request for a proxy subresource on to the server behind the
// object, at the same path below it, as Kubernetes does:
//
//   - the root without its slash is answered by a redirect to the one with it,
//     for the relative links of a page to lead somewhere;
//   - redirects to the same server, and the links of its pages, are changed to
//     lead through the proxy;
//   - the host is the one that the client asked, and X-Forwarded-Uri the path;
//   - headers that let pages of elsewhere read the answer are taken out: the
//     server does not speak for the API.
//
// Errors are those of Forward.
func Proxy(w http.ResponseWriter, r *http.Request, c *Connection, to *url.URL, transport http.RoundTripper) error {
	upgrade := upgrades(r)
	if c.Path == "" && !upgrade && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		at := url.URL{Path: r.URL.Path + "/", RawQuery: r.URL.RawQuery}
		w.Header().Set("Location", at.String())
		w.WriteHeader(http.StatusMovedPermanently)
		return nil
	}
	at := *to
	at.Path, at.RawQuery = utilnet.JoinPreservingTrailingSlash("", c.Path), r.URL.RawQuery
	if !upgrade {
		transport = ownOrigin{&utilproxy.Transport{PathPrepend: strings.TrimSuffix(r.URL.Path, c.Path), RoundTripper: transport}}
	}
	return pass(w, r, transport, func(p *httputil.ProxyRequest) {
		p.Out.URL = &at
		forwardedFor(p)
	})
}

// forwardedFor passes on who the request comes from.
func forwardedFor(p *httputil.ProxyRequest) {
	for _, name := range forwarded {
		if had := p.In.Header[name]; had != nil {
			p.Out.Header[name] = had
		}
	}
	if client, _, err := net.SplitHostPort(p.In.RemoteAddr); err == nil {
		p.Out.Header.Set("X-Forwarded-For", strings.Join(slices.Concat(p.In.Header["X-Forwarded-For"], []string{client}), ", "))
	}
}

// ownOrigin takes out of answers what opens them to other origins.
type ownOrigin struct{ http.RoundTripper }

func (t ownOrigin) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		for _, what := range []string{"Credentials", "Headers", "Methods", "Origin"} {
			resp.Header.Del("Access-Control-Allow-" + what)
		}
	}
	return resp, err
}
