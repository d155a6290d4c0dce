package pki

import (
	"crypto/tls"
	"sync"
	"time"
)

// Leaf is a certificate that renews itself when it is asked for and two thirds
// of its life are over. It is safe for use by any goroutine.
//
// A connection keeps the certificate it was made with. A client that keeps one
// open for a third of a leaf's life must therefore dial again: the server asks
// on every request whether the client's certificate is still valid.
type Leaf struct {
	ca *CA
	id Identity

	mu      sync.Mutex
	current *tls.Certificate
	renew   time.Time
}

// Leaf is a renewing certificate for an identity. The first one is signed when
// it is first asked for.
func (ca *CA) Leaf(id Identity) *Leaf { return &Leaf{ca: ca, id: id} }

// Get is a certificate with at least a third of its life ahead, and the moment
// from which on Get gives another.
//
// When a new one cannot be signed, the present one serves until it expires.
func (l *Leaf) Get() (cert *tls.Certificate, renew time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The time of day, by which others judge it: it may jump, and a machine that
	// was suspended slept through a part of the certificate's life.
	now := l.ca.clock.Now().Round(0)
	if l.current != nil && now.Before(l.renew) && !now.Before(l.current.Leaf.NotBefore) {
		return l.current, l.renew, nil
	}
	fresh, err := l.ca.Issue(l.id)
	if err != nil {
		if l.current != nil && now.Before(l.current.Leaf.NotAfter) {
			return l.current, l.renew, nil
		}
		return nil, time.Time{}, err
	}
	l.current = fresh
	l.renew = now.Add(fresh.Leaf.NotAfter.Sub(now) * 2 / 3)
	return l.current, l.renew, nil
}

// ForServer fits tls.Config.GetCertificate.
func (l *Leaf) ForServer(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, _, err := l.Get()
	return cert, err
}

// ForClient fits tls.Config.GetClientCertificate.
func (l *Leaf) ForClient(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	cert, _, err := l.Get()
	return cert, err
}
