package authn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/asn1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/apiserver/auth/authn"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type ca struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	c := &ca{t: t}
	c.cert, c.key = c.make(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: epoch.Add(1000 * time.Hour),
	})
	return c
}

func (c *ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// client makes a certificate that is good for an hour.
func (c *ca) client(name pkix.Name, usage x509.ExtKeyUsage) *x509.Certificate {
	cert, _ := c.make(&x509.Certificate{Subject: name, ExtKeyUsage: []x509.ExtKeyUsage{usage}, NotAfter: epoch.Add(time.Hour)})
	return cert
}

func (c *ca) make(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(7), epoch.Add(-time.Hour)
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key
}

// tokens knows one.
var tokens = authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
	switch token {
	case "good":
		return &authenticator.Response{User: &user.DefaultInfo{Name: "robot", Groups: []string{"system:serviceaccounts"}}}, true, nil
	case "expired":
		return nil, false, errors.New("service account token has expired")
	}
	return nil, false, nil
})

func request(path string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func shows(r *http.Request, certs ...*x509.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: certs}
	return r
}

func TestAuthenticate(t *testing.T) {
	authority, stranger := newCA(t), newCA(t)
	z := authn.New(authn.NewCertificates(authority.pool(), clocktesting.NewFakePassiveClock(epoch)), tokens, []string{"api"}, authn.DefaultAnonymous())
	ann := authority.client(pkix.Name{CommonName: "ann", Organization: []string{"dev", "ops"}}, x509.ExtKeyUsageClientAuth)
	protocol := func(token string) string {
		return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	for _, c := range []struct {
		name    string
		request *http.Request
		user    string // empty: refused
		groups  []string
		reason  string
	}{
		{"a certificate", shows(request("/api"), ann), "ann", []string{"dev", "ops", "system:authenticated"}, ""},
		{"of another authority", shows(request("/api"), stranger.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth)), "", nil, "verifying certificate SN=7 of \"ann\" failed"},
		{"of a server", shows(request("/api"), authority.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageServerAuth)), "", nil, "incompatible key usage"},
		{"that names nobody", shows(request("/api"), authority.client(pkix.Name{}, x509.ExtKeyUsageClientAuth)), "", nil, ""},
		{"a bad one on an open path", shows(request("/healthz"), stranger.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth)), "", nil, "verifying certificate"},

		{"a token", request("/api", "Authorization", "Bearer good"), "robot", []string{"system:serviceaccounts", "system:authenticated"}, ""},
		{"a token in small letters", request("/api", "Authorization", "bearer good"), "robot", []string{"system:serviceaccounts", "system:authenticated"}, ""},
		{"a token and more", request("/api", "Authorization", "Bearer good x"), "robot", []string{"system:serviceaccounts", "system:authenticated"}, ""},
		{"an unknown token", request("/api", "Authorization", "Bearer bad"), "", nil, "invalid bearer token"},
		{"an expired token", request("/api", "Authorization", "Bearer expired"), "", nil, "service account token has expired"},
		{"a bad token on an open path", request("/version", "Authorization", "Bearer bad"), "", nil, "invalid bearer token"},
		{"an empty token", request("/api", "Authorization", "Bearer "), "", nil, ""},
		{"another scheme", request("/api", "Authorization", "Basic good"), "", nil, ""},
		{"certificate before token", shows(request("/api", "Authorization", "Bearer good"), ann), "ann", []string{"dev", "ops", "system:authenticated"}, ""},
		{"token after a bad certificate", shows(request("/api", "Authorization", "Bearer good"), stranger.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth)), "robot", []string{"system:serviceaccounts", "system:authenticated"}, ""},

		{"a websocket's token", request("/api", "Upgrade", "websocket", "Sec-WebSocket-Protocol", "v5.channel.k8s.io, "+protocol("good")), "robot", []string{"system:serviceaccounts", "system:authenticated"}, ""},
		{"alone", request("/api", "Upgrade", "websocket", "Sec-WebSocket-Protocol", protocol("good")), "", nil, "missing additional subprotocol"},
		{"twice", request("/api", "Upgrade", "websocket", "Sec-WebSocket-Protocol", protocol("good")+","+protocol("good")), "", nil, "multiple base64.bearer.authorization tokens"},
		{"garbled", request("/api", "Upgrade", "websocket", "Sec-WebSocket-Protocol", "v5.channel.k8s.io,base64url.bearer.authorization.k8s.io.%%"), "", nil, "invalid base64.bearer.authorization token encoding"},
		{"not a websocket", request("/api", "Sec-WebSocket-Protocol", "v5.channel.k8s.io,"+protocol("good")), "", nil, ""},

		{"nobody on an open path", request("/livez"), "system:anonymous", []string{"system:unauthenticated"}, ""},
		{"nobody below an open path", request("/livez/etcd"), "", nil, ""},
		{"nobody elsewhere", request("/api/v1/pods"), "", nil, ""},
	} {
		resp, ok, reason := z.AuthenticateRequest(c.request)
		if c.user == "" {
			if ok {
				t.Errorf("%s: let in as %v", c.name, resp.User)
			}
			if (reason == nil) != (c.reason == "") || reason != nil && !strings.Contains(reason.Error(), c.reason) {
				t.Errorf("%s: reason %v, want %q", c.name, reason, c.reason)
			}
			continue
		}
		if !ok || reason != nil {
			t.Errorf("%s: not let in, because of %v", c.name, reason)
			continue
		}
		u := resp.User
		if u.GetName() != c.user || !slices.Equal(u.GetGroups(), c.groups) {
			t.Errorf("%s: %s %v, want %s %v", c.name, u.GetName(), u.GetGroups(), c.user, c.groups)
		}
		for _, header := range []string{"Authorization", "Sec-WebSocket-Protocol"} {
			if c.user == "robot" && strings.Contains(strings.ToLower(c.request.Header.Get(header)), "bearer") {
				t.Errorf("%s: the token is still in the headers", c.name)
			}
		}
	}
}

// A certificate is looked at on every request, though its signature is checked
// once: it ends when its time is over, on an open connection too.
func TestCertificateExpires(t *testing.T) {
	authority := newCA(t)
	clk := clocktesting.NewFakePassiveClock(epoch)
	z := authn.NewCertificates(authority.pool(), clk)
	r := shows(request("/"), authority.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth))
	for _, c := range []struct {
		at time.Duration
		ok bool
	}{{0, true}, {time.Hour, true}, {time.Hour + time.Second, false}, {0, true}, {-2 * time.Hour, false}} {
		clk.SetTime(epoch.Add(c.at))
		if _, ok, err := z.AuthenticateRequest(r); ok != c.ok || (err == nil) != c.ok {
			t.Errorf("after %v: %v, %v", c.at, ok, err)
		}
	}
}

func TestCertificateUID(t *testing.T) {
	authority := newCA(t)
	z := authn.NewCertificates(authority.pool(), clocktesting.NewFakePassiveClock(epoch))
	uid := func(values ...string) *http.Request {
		name := pkix.Name{CommonName: "ann"}
		for _, value := range values {
			name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.X509UID(), Value: value})
		}
		return shows(request("/"), authority.client(name, x509.ExtKeyUsageClientAuth))
	}
	resp, _, err := z.AuthenticateRequest(uid("u-1"))
	if err != nil || resp.User.GetUID() != "u-1" {
		t.Errorf("%v, %v", resp, err)
	}
	if id := resp.User.GetExtra()[user.CredentialIDKey]; len(id) != 1 || !strings.HasPrefix(id[0], "X509SHA256=") {
		t.Errorf("credential id %v", id)
	}
	if _, ok, err := z.AuthenticateRequest(uid("u-1", "u-2")); ok || err == nil {
		t.Error("two UIDs are taken")
	}
	if _, ok, err := z.AuthenticateRequest(uid("")); ok || err == nil {
		t.Error("an empty UID is taken")
	}
}

func BenchmarkCertificate(b *testing.B) {
	authority := newCA(b)
	z := authn.NewCertificates(authority.pool(), clocktesting.NewFakePassiveClock(epoch))
	r := shows(request("/"), authority.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth))
	b.ReportAllocs()
	for b.Loop() {
		z.AuthenticateRequest(r)
	}
}

// Where nobody in particular is let in: --anonymous-auth, and "anonymous" of an
// AuthenticationConfiguration.
func TestAnonymous(t *testing.T) {
	livez := []apiserver.AnonymousAuthCondition{{Path: "/livez"}}
	for _, tt := range []struct {
		config apiserver.AnonymousAuthConfig
		path   string
		in     bool
	}{
		{authn.DefaultAnonymous(), "/version", true},
		{authn.DefaultAnonymous(), "/api", false},
		{apiserver.AnonymousAuthConfig{}, "/version", false},
		{apiserver.AnonymousAuthConfig{Enabled: true}, "/api/v1/pods", true},
		{apiserver.AnonymousAuthConfig{Enabled: true, Conditions: livez}, "/livez", true},
		{apiserver.AnonymousAuthConfig{Enabled: true, Conditions: livez}, "/livez/etcd", false},
		{apiserver.AnonymousAuthConfig{Enabled: true, Conditions: livez}, "/version", false},
	} {
		z := authn.New(authn.NewCertificates(x509.NewCertPool(), clocktesting.NewFakePassiveClock(epoch)), tokens, []string{"api"}, tt.config)
		got, in, err := z.AuthenticateRequest(request(tt.path))
		if in != tt.in || err != nil || in && got.User.GetName() != user.Anonymous {
			t.Errorf("%+v lets in to %s: %v, %v", tt.config, tt.path, in, err)
		}
		if _, in, err := z.AuthenticateRequest(request(tt.path, "Authorization", "Bearer bad")); in || err == nil {
			t.Errorf("%+v lets somebody in whom it does not believe", tt.config)
		}
	}
}

// When the authorities change, certificates that were found good are judged anew.
func TestTrust(t *testing.T) {
	old, next := newCA(t), newCA(t)
	z := authn.NewCertificates(old.pool(), clocktesting.NewFakePassiveClock(epoch))
	byOld := shows(request("/"), old.client(pkix.Name{CommonName: "ann"}, x509.ExtKeyUsageClientAuth))
	byNext := shows(request("/"), next.client(pkix.Name{CommonName: "bob"}, x509.ExtKeyUsageClientAuth))
	for _, roots := range []*ca{old, next, old} {
		z.Trust(roots.pool())
		for r, want := range map[*http.Request]bool{byOld: roots == old, byNext: roots == next} {
			for range 2 { // found out, and remembered
				if _, ok, _ := z.AuthenticateRequest(r); ok != want {
					t.Errorf("let in %v, want %v", ok, want)
				}
			}
		}
	}
}
