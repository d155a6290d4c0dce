// Package issuertest is an OpenID Connect issuer for tests: a server with a
// certificate of its own that tells its keys and signs tokens.
package issuertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is one issuer. Its methods may be called from any goroutine.
type Issuer struct {
	// URL is the issuer's name, and where it answers.
	URL string
	// CA is the certificate of the server, in PEM.
	CA []byte

	t      testing.TB
	server *httptest.Server

	mu    sync.Mutex
	key   crypto.Signer
	kid   int
	asked map[string]int // path → requests
	down  bool
}

// New starts an issuer on an address, such as 127.0.0.1. It ends with the test.
func New(t testing.TB, address string) *Issuer {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{t: t, URL: "https://" + l.Addr().String(), asked: map[string]int{}}
	i.Rotate()
	i.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(i.serve)}, TLS: &tls.Config{Certificates: []tls.Certificate{i.certificate(address)}}}
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	return i
}

func (i *Issuer) certificate(address string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		i.t.Fatal(err)
	}
	i.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Rotate has the issuer sign by another key (ES256), and tell that alone.
func (i *Issuer) Rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.use(key, err)
}

// RotateRSA is Rotate with a key for RS256.
func (i *Issuer) RotateRSA() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	i.use(key, err)
}

func (i *Issuer) use(key crypto.Signer, err error) {
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key = key
	i.kid++
}

// Down has the issuer fail, or answer again.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Asked is how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

// Paths of the issuer. The configuration is at two.
const (
	Configuration = "/.well-known/openid-configuration"
	Elsewhere     = "/elsewhere/openid-configuration"
	Keys          = "/keys"
)

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked[r.URL.Path]++
	var answer any
	switch r.URL.Path {
	case Configuration, Elsewhere:
		answer = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + Keys, "id_token_signing_alg_values_supported": []string{string(i.algorithm())}}
	case Keys:
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: fmt.Sprint(i.kid), Algorithm: string(i.algorithm()), Use: "sig"}}}
	}
	if answer == nil || i.down {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client has gone
}

func (i *Issuer) algorithm() jose.SignatureAlgorithm {
	if _, ok := i.key.(*rsa.PrivateKey); ok {
		return jose.RS256
	}
	return jose.ES256
}

// Token is a token with these claims, which is good from a minute ago for an
// hour unless they say otherwise.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	all := map[string]any{"iss": i.URL, "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: i.algorithm(), Key: i.key}, (&jose.SignerOptions{}).WithHeader("kid", fmt.Sprint(i.kid)))
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}
