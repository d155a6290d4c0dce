package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"
	"weak"

	"k8s.io/apimachinery/pkg/apis/asn1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"
)

// Certificates authenticates by the client certificate of the connection: the
// common name is the user, the organizations are the groups.
//
// Checking a signature takes longer than all else about a small request, and
// one connection carries many. A certificate that was found good is therefore
// remembered for as long as its connections last, and later only its dates are
// looked at.
type Certificates struct {
	clock clock.PassiveClock

	mu    sync.RWMutex
	roots *x509.CertPool
	known map[leafPointer]*verified // by roots
}

// leafPointer names a certificate as a connection has it, without keeping it:
// hashing its bytes would take a twentieth of the time of a small request.
type leafPointer = weak.Pointer[x509.Certificate]

type verified struct {
	user                user.Info
	notBefore, notAfter time.Time
}

// NewCertificates trusts client certificates that chain to roots.
func NewCertificates(roots *x509.CertPool, clk clock.PassiveClock) *Certificates {
	return &Certificates{roots: roots, clock: clk, known: map[leafPointer]*verified{}}
}

// Trust has all certificates judged by other roots from now on, those of open
// connections too.
func (c *Certificates) Trust(roots *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots = roots
	clear(c.known)
}

// AuthenticateRequest implements authenticator.Request. It has no opinion on
// requests without a certificate.
func (c *Certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	now := c.clock.Now()
	v := c.lookup(weak.Make(leaf))
	if v == nil || now.Before(v.notBefore) || now.After(v.notAfter) {
		var err error
		if v, err = c.verify(r.TLS.PeerCertificates, now); err != nil {
			return nil, false, fmt.Errorf("verifying certificate SN=%d of %q failed: %w", leaf.SerialNumber, leaf.Subject.CommonName, err)
		}
		if v == nil {
			return nil, false, nil
		}
	}
	return &authenticator.Response{User: v.user}, true, nil
}

func (c *Certificates) lookup(leaf leafPointer) *verified {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.known[leaf]
}

// remember keeps what the roots have said, unless there are others meanwhile.
func (c *Certificates) remember(leaf *x509.Certificate, v *verified, roots *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots != roots {
		return
	}
	p := weak.Make(leaf)
	if c.known[p] == nil {
		runtime.AddCleanup(leaf, c.forget, p)
	}
	c.known[p] = v
}

func (c *Certificates) forget(leaf leafPointer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, leaf)
}

// verify is nil without an error for a certificate that names nobody.
func (c *Certificates) verify(chain []*x509.Certificate, now time.Time) (*verified, error) {
	leaf := chain[0]
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	c.mu.RLock()
	roots := c.roots
	c.mu.RUnlock()
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	if leaf.Subject.CommonName == "" {
		return nil, nil
	}
	uid, err := userID(leaf)
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	v := &verified{
		user: authenticated(&user.DefaultInfo{
			Name:   leaf.Subject.CommonName,
			UID:    uid,
			Groups: leaf.Subject.Organization,
			Extra:  map[string][]string{user.CredentialIDKey: {"X509SHA256=" + hex.EncodeToString(fingerprint[:])}},
		}),
		notBefore: leaf.NotBefore,
		notAfter:  leaf.NotAfter,
	}
	for _, cert := range chains[0] {
		if cert.NotBefore.After(v.notBefore) {
			v.notBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(v.notAfter) {
			v.notAfter = cert.NotAfter
		}
	}
	c.remember(leaf, v, roots)
	return v, nil
}

// userID is the part of a subject that Kubernetes takes as the user's UID.
func userID(leaf *x509.Certificate) (string, error) {
	found := false
	var uid string
	for _, attribute := range leaf.Subject.Names {
		if !attribute.Type.Equal(asn1.X509UID()) {
			continue
		}
		if found {
			return "", errors.New("expected 1 UID, but found multiple")
		}
		found = true
		var ok bool
		if uid, ok = attribute.Value.(string); !ok {
			return "", errors.New("unable to parse UID into a string")
		}
		if uid == "" {
			return "", errors.New("UID cannot be an empty string")
		}
	}
	return uid, nil
}
