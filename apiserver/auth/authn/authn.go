// Package authn says who sends a request: by what a front proxy says, by the client
// certificate of its connection, by a bearer token, or, on a few paths that say nothing of the
// cluster, as nobody in particular.
package authn

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// AnonymousPaths are those that anybody may ask for, unless said otherwise:
// health and version.
var AnonymousPaths = []string{"/healthz", "/livez", "/readyz", "/version", "/version/"}

// DefaultAnonymous lets nobody in particular ask for them, and for nothing else.
func DefaultAnonymous() apiserver.AnonymousAuthConfig {
	c := apiserver.AnonymousAuthConfig{Enabled: true}
	for _, path := range AnonymousPaths {
		c.Conditions = append(c.Conditions, apiserver.AnonymousAuthCondition{Path: path})
	}
	return c
}

// Authenticator says who sends a request. It is safe for use by any goroutine.
type Authenticator struct {
	proxies      *FrontProxies // nil: none is believed
	certificates *Certificates
	tokens       authenticator.Token
	audiences    authenticator.Audiences
	anonymous    apiserver.AnonymousAuthConfig
}

// New is an authenticator by certificates and tokens. anonymous says where a
// request without either is let in; without conditions it is everywhere.
// audiences are the API server's own.
func New(certificates *Certificates, tokens authenticator.Token, audiences []string, anonymous apiserver.AnonymousAuthConfig) *Authenticator {
	return &Authenticator{certificates: certificates, tokens: tokens, audiences: audiences, anonymous: anonymous}
}

// AuthenticateRequest implements authenticator.Request. It takes the token out
// of the request's headers, so that it goes no further. A request with
// credentials that are not good is refused even where nobody in particular would
// be let in; the error is for the log and not for the client.
func (z *Authenticator) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	var errs []error
	for _, try := range []func(*http.Request) (*authenticator.Response, bool, error){
		z.proxies.AuthenticateRequest,
		z.certificates.AuthenticateRequest,
		z.bearer,
		z.webSocketBearer,
	} {
		resp, ok, err := try(r)
		if ok {
			resp.User = authenticated(resp.User)
			return resp, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, false, utilerrors.NewAggregate(errs)
	}
	if !z.letsIn(r.URL.Path) {
		return nil, false, nil
	}
	return &authenticator.Response{
		User:      &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}},
		Audiences: z.audiences,
	}, true, nil
}

// letsIn says whether nobody in particular may ask for a path.
func (z *Authenticator) letsIn(path string) bool {
	on := z.anonymous.Conditions
	return z.anonymous.Enabled && (len(on) == 0 || slices.Contains(on, apiserver.AnonymousAuthCondition{Path: path}))
}

// authenticated adds the group of everybody who is known.
func authenticated(u user.Info) user.Info {
	groups := u.GetGroups()
	if slices.Contains(groups, user.AllAuthenticated) || slices.Contains(groups, user.AllUnauthenticated) {
		return u
	}
	return &user.DefaultInfo{
		Name:   u.GetName(),
		UID:    u.GetUID(),
		Groups: append(slices.Clip(groups), user.AllAuthenticated),
		Extra:  u.GetExtra(),
	}
}

var errInvalidToken = errors.New("invalid bearer token")

func (z *Authenticator) bearer(r *http.Request) (*authenticator.Response, bool, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	token, _, _ := strings.Cut(rest, " ")
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, false, nil
	}
	resp, ok, err := z.token(r, token)
	if ok {
		r.Header.Del("Authorization")
	}
	return resp, ok, err
}

// Browsers cannot set headers on a WebSocket, but they can name subprotocols;
// one of them may carry the token, in base64 for URLs.
const (
	protocolHeader       = "Sec-Websocket-Protocol"
	bearerProtocolPrefix = "base64url.bearer.authorization.k8s.io."
)

func (z *Authenticator) webSocketBearer(r *http.Request) (*authenticator.Response, bool, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return nil, false, nil
	}
	var token string
	var others []string
	for _, header := range r.Header[protocolHeader] {
		for protocol := range strings.SplitSeq(header, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, ok := strings.CutPrefix(protocol, bearerProtocolPrefix)
			if !ok {
				others = append(others, protocol)
				continue
			}
			if token != "" {
				return nil, false, errors.New("multiple base64.bearer.authorization tokens specified")
			}
			decoded, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || len(decoded) == 0 || !utf8.Valid(decoded) {
				return nil, false, errors.New("invalid base64.bearer.authorization token encoding")
			}
			token = string(decoded)
		}
	}
	if token == "" {
		return nil, false, nil
	}
	if len(others) == 0 {
		// The server must answer with one of the client's protocols, and may
		// not answer with the token.
		return nil, false, errors.New("missing additional subprotocol")
	}
	resp, ok, err := z.token(r, token)
	if ok {
		r.Header.Set(protocolHeader, strings.Join(others, ","))
	}
	return resp, ok, err
}

func (z *Authenticator) token(r *http.Request, token string) (*authenticator.Response, bool, error) {
	resp, ok, err := z.tokens.AuthenticateToken(r.Context(), token)
	if !ok && err == nil {
		err = errInvalidToken
	}
	return resp, ok, err
}
