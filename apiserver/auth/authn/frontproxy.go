package authn

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"
)

// ProxyHeaders are the headers in which a front proxy says who asks: of the first
// three kinds any of the names, of the last those that begin so.
type ProxyHeaders struct {
	User, UID, Group, ExtraPrefix []string
}

// DefaultProxyHeaders are those that Kubernetes' API server uses itself, as a
// front proxy of the servers behind it.
func DefaultProxyHeaders() ProxyHeaders {
	return ProxyHeaders{
		User: []string{"X-Remote-User"}, UID: []string{"X-Remote-Uid"},
		Group: []string{"X-Remote-Group"}, ExtraPrefix: []string{"X-Remote-Extra-"},
	}
}

// FrontProxies authenticates requests of proxies that have a certificate of an
// authority of theirs, as whom the proxy says that it has authenticated itself.
type FrontProxies struct {
	certificates *Certificates
	names        []string
	headers      ProxyHeaders
}

// NewFrontProxies believes proxies with certificates that chain to roots and have
// one of the common names; without names, all of them.
func NewFrontProxies(roots *x509.CertPool, names []string, headers ProxyHeaders, clk clock.PassiveClock) *FrontProxies {
	return &FrontProxies{NewCertificates(roots, clk), names, headers}
}

// WithFrontProxies has the authenticator believe front proxies, before anything
// else that a request shows. It is called before the authenticator is used.
func (z *Authenticator) WithFrontProxies(p *FrontProxies) *Authenticator {
	z.proxies = p
	return z
}

// AuthenticateRequest implements authenticator.Request. It takes what it read out
// of the headers. It has no opinion on requests that name nobody; a nil one has
// none at all.
func (p *FrontProxies) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if p == nil {
		return nil, false, nil
	}
	name := firstOf(r.Header, p.headers.User)
	if name == "" {
		return nil, false, nil
	}
	proxy, ok, err := p.certificates.AuthenticateRequest(r)
	if !ok || err != nil {
		return nil, false, err
	}
	if cn := proxy.User.GetName(); len(p.names) > 0 && !slices.Contains(p.names, cn) {
		return nil, false, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", cn)
	}
	u := &user.DefaultInfo{Name: name, UID: firstOf(r.Header, p.headers.UID), Groups: []string{}, Extra: map[string][]string{}}
	for _, header := range p.headers.Group {
		for _, group := range r.Header.Values(header) {
			if group != "" {
				u.Groups = append(u.Groups, group)
			}
		}
	}
	for _, prefix := range p.headers.ExtraPrefix {
		for header, values := range r.Header {
			if key, ok := cutPrefixFold(header, prefix); ok {
				u.Extra[extraKey(key)] = append(u.Extra[extraKey(key)], values...)
			}
		}
	}
	p.clear(r.Header)
	return &authenticator.Response{User: u}, true, nil
}

// clear takes all headers out in which somebody is named.
func (p *FrontProxies) clear(h http.Header) {
	for _, header := range slices.Concat(p.headers.User, p.headers.UID, p.headers.Group) {
		h.Del(header)
	}
	for _, prefix := range p.headers.ExtraPrefix {
		for header := range h {
			if _, ok := cutPrefixFold(header, prefix); ok {
				delete(h, header)
			}
		}
	}
}

func firstOf(h http.Header, names []string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// extraKey is a key as the proxy wrote it into a header's name: in small letters,
// with everything else escaped.
func extraKey(name string) string {
	name = strings.ToLower(name)
	if plain, err := url.PathUnescape(name); err == nil {
		return plain
	}
	return name
}
