package aggregation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/kinds"
)

// Remote is another server in what it answers for: one group-version. Immutable.
type Remote struct {
	service *apiregistrationv1.APIService
	resolve func(namespace, name string, port int32) (string, error)
	// plain and upgrading are the connections to it, HTTP/2 where it has that, and
	// HTTP/1.1 for what becomes of a connection. broken says why there are none.
	plain, upgrading *http.Transport
	broken           error
	// entry is what it serves; nil until it was asked for the first time.
	entry *apidiscoveryv2.APIVersionDiscovery
	docs  *documents // nil: none came yet
}

// newRemote is a remote as its APIService says, with what is known of it from
// before.
func (s *Server) newRemote(a *apiregistrationv1.APIService, was *Remote) *Remote {
	r := &Remote{service: a, resolve: s.Resolve}
	if was != nil && sameDoor(&was.service.Spec, &a.Spec) {
		r.entry, r.docs = was.entry, was.docs
		r.plain, r.upgrading, r.broken = was.plain, was.upgrading, was.broken
		return r
	}
	if was != nil {
		was.close()
	}
	r.broken = r.connect(s)
	return r
}

// sameDoor says whether two APIServices are reached and believed alike.
func sameDoor(a, b *apiregistrationv1.APIServiceSpec) bool {
	return a.Service.Namespace == b.Service.Namespace && a.Service.Name == b.Service.Name && ptr.Equal(a.Service.Port, b.Service.Port) &&
		a.InsecureSkipTLSVerify == b.InsecureSkipTLSVerify && string(a.CABundle) == string(b.CABundle)
}

// connect makes the transports.
func (r *Remote) connect(s *Server) error {
	spec := &r.service.Spec
	t := s.TLS()
	t.ServerName = spec.Service.Name + "." + spec.Service.Namespace + ".svc"
	t.InsecureSkipVerify = spec.InsecureSkipTLSVerify
	if len(spec.CABundle) > 0 {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(spec.CABundle) {
			return errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	dial := (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	once := t.Clone()
	once.NextProtos = []string{"http/1.1"}
	r.plain = &http.Transport{
		TLSClientConfig: t, DialContext: dial, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second,
		// A connection on which nothing comes any more is found out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	r.upgrading = &http.Transport{TLSClientConfig: once, DialContext: dial, TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true}
	return nil
}

// close gives up connections that nobody uses.
func (r *Remote) close() {
	if r.plain != nil {
		r.plain.CloseIdleConnections()
	}
}

// GroupVersion is what the remote answers for.
func (r *Remote) GroupVersion() schema.GroupVersion { return versionOf(r.service) }

func (r *Remote) priority() kinds.Priority { return priorityOf(r.service) }

// Available says whether requests are to be passed on.
func (r *Remote) Available() bool { return kinds.APIServiceAvailable(r.service) }

// Broken says why the remote cannot be reached as its APIService says; nil for
// most.
func (r *Remote) Broken() error { return r.broken }

// Entry is what the remote serves, as aggregated discovery has it: stale, and
// empty, when it did not say. Nil before it was asked. Not to be written to.
func (r *Remote) Entry() *apidiscoveryv2.APIVersionDiscovery { return r.entry }

// Discovery is where the remote tells what it serves.
func (r *Remote) Discovery() string {
	gv := r.GroupVersion()
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.String()
}

// Location is where the remote is now.
func (r *Remote) Location() (*url.URL, error) {
	b := r.service.Spec.Service
	host, err := r.resolve(b.Namespace, b.Name, ptr.Deref(b.Port, 443))
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: host}, nil
}

// Transport carries requests to the remote; with upgrade, ones that turn into
// something else than HTTP.
func (r *Remote) Transport(upgrade bool) http.RoundTripper {
	if upgrade {
		return r.upgrading
	}
	return r.plain
}

// identity is as whom this server asks for itself.
type identity struct {
	name   string
	groups []string
}

// Kubernetes' identities: the first always has access.
var (
	prober    = identity{"system:kube-aggregator", []string{"system:masters"}}
	describer = identity{"system:aggregator", nil}
)

// reply is what a remote answers to this server itself.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// maxDocument bounds what is read of a remote's descriptions of itself, in bytes.
const maxDocument = 32 << 20

// get asks the remote about itself.
func (r *Remote) get(ctx context.Context, as identity, path, accept, etag string) (*reply, error) {
	return r.do(ctx, http.MethodGet, as, path, "", accept, etag)
}

// do asks the remote something.
func (r *Remote) do(ctx context.Context, method string, as identity, path, query, accept, etag string) (*reply, error) {
	if r.broken != nil {
		return nil, r.broken
	}
	at, err := r.Location()
	if err != nil {
		return nil, err
	}
	at.Path, at.RawQuery = path, query
	req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, err
	}
	transport.SetAuthProxyHeaders(req, as.name, "", as.groups, nil)
	req.Header.Set("Accept", accept)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := r.plain.RoundTrip(req) // and follows nobody elsewhere
	if err != nil {
		return nil, fmt.Errorf("failing or missing response from %v: %w", at, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("failing or missing response from %v: %w", at, err)
	case len(body) > maxDocument:
		return nil, fmt.Errorf("response from %v is larger than %d bytes", at, maxDocument)
	}
	return &reply{resp.StatusCode, resp.Header, body}, nil
}
