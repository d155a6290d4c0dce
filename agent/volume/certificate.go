package volume

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
)

// Certificates are how pods come by certificates.
type Certificates interface {
	// RequestCertificate makes a PodCertificateRequest for a pod, its service
	// account and its node; signer, key and what else is asked for are in spec.
	RequestCertificate(ctx context.Context, p *v1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error)
	// CertificateRequest is nil when there is none of that name (any more).
	CertificateRequest(namespace, name string) *certificatesv1.PodCertificateRequest
}

const (
	// overdueAfter is how long after the time to renew it a certificate is said
	// to be overdue.
	overdueAfter = 10 * time.Minute
	// spread is the span over which renewals that are due together are spread.
	spread = 5 * time.Minute
	// certificateLook is how often an unanswered request is looked at without a
	// change, and after how long one that is gone is made again.
	certificateLook = time.Minute
)

// errUnissued is why a pod waits for its first certificate.
var errUnissued = errors.New("credential bundle is not issued yet")

// certificate is the state of one podCertificate source of a volume ("Pod
// Certificates"):
//
//	nothing ─► asked ─► issued ─► issued and asked ─► issued …
//	             └────────┴─► refused, for good
//
// It is kept in memory only: after a restart of the agent another certificate is
// asked for, while containers have the one in the volume.
type certificate struct {
	signer         string
	key, chain     []byte // PEM, nil until they are issued
	renew, expires time.Time
	asked          *asked
	refused        error
	verdict        string // why: Denied or Failed
	overdue, dead  bool   // which events were sent of the certificate that is there
}

// asked is a request under way.
type asked struct {
	name string
	key  []byte
	at   time.Time
}

// addCertificate adds a private key and its certificate. While none can be had
// the one that is there serves.
func (m *Manager) addCertificate(ctx context.Context, out payload, p *v1.Pod, volume string, source int, src *v1.PodCertificateProjection, mode fs.FileMode) (next time.Time, err error) {
	id := fmt.Sprintf("%s\x00%d", volume, source)
	now := m.Clock.Now().Round(0) // time of day, as the certificate's
	c := m.certificates.get(p.UID, id)
	c.signer = src.SignerName
	if c.refused == nil {
		err = m.advance(ctx, p, src, &c, now, string(p.UID)+id)
		m.certificates.put(p.UID, id, c)
	}
	switch {
	case c.refused != nil:
		return time.Time{}, c.refused
	case c.chain == nil && err != nil:
		return time.Time{}, err
	case c.chain == nil:
		return time.Time{}, errUnissued
	}
	for path, data := range map[string][]byte{
		src.CredentialBundlePath: slices.Concat(c.key, c.chain), src.KeyPath: c.key, src.CertificateChainPath: c.chain,
	} {
		if path != "" {
			out[path] = privateFile(p, data, mode)
		}
	}
	if c.asked != nil || err != nil {
		return now.Add(certificateLook), nil
	}
	return c.renew, nil
}

// advance takes the next step of a certificate, if there is one. who tells it
// apart from all others of the cluster.
func (m *Manager) advance(ctx context.Context, p *v1.Pod, src *v1.PodCertificateProjection, c *certificate, now time.Time, who string) error {
	if c.chain != nil {
		m.sayLate(p, c, now)
	}
	if c.asked == nil {
		if c.chain != nil && now.Before(c.renew) {
			return nil
		}
		key, proof, err := newKey(src.KeyType)
		if err != nil {
			return err
		}
		r, err := m.Objects.RequestCertificate(ctx, p, certificatesv1.PodCertificateRequestSpec{
			SignerName: src.SignerName, MaxExpirationSeconds: src.MaxExpirationSeconds,
			StubPKCS10Request: proof, UnverifiedUserAnnotations: src.UserAnnotations,
		})
		if err != nil {
			return fmt.Errorf("request a certificate: %w", err)
		}
		c.asked = &asked{r.Name, key, now}
	}
	r := m.Objects.CertificateRequest(p.Namespace, c.asked.name)
	if r == nil {
		if now.Sub(c.asked.at) >= certificateLook {
			c.asked = nil // asked for again by the next look
		}
		return nil
	}
	for _, cond := range r.Status.Conditions {
		switch cond.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.verdict, c.asked = cond.Type, nil
			how := "was denied"
			if cond.Type == certificatesv1.PodCertificateRequestConditionTypeFailed {
				how = "failed"
			}
			m.Event(p, v1.EventTypeWarning, cond.Type, fmt.Sprintf("PodCertificateRequest %s/%s %s, reason=%q, message=%q", r.Namespace, r.Name, how, cond.Reason, cond.Message))
			c.refused = fmt.Errorf("PodCertificateRequest was permanently %s: reason=%q message=%q", strings.ToLower(cond.Type), cond.Reason, cond.Message)
			return nil
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			*c = certificate{
				signer: c.signer, key: c.asked.key, chain: cleanChain(r.Status.CertificateChain),
				renew: r.Status.BeginRefreshAt.Add(jitter(who)), expires: r.Status.NotAfter.Time,
			}
			return nil
		}
	}
	return nil
}

// sayLate tells the pod, once each, that its certificate should have been
// renewed, and that it expired.
func (m *Manager) sayLate(p *v1.Pod, c *certificate, now time.Time) {
	if !c.overdue && now.After(c.renew.Add(overdueAfter)) {
		m.Event(p, v1.EventTypeWarning, "CertificateOverdueForRefresh", "PodCertificate refresh overdue")
		c.overdue = true
	}
	if !c.dead && now.After(c.expires) {
		m.Event(p, v1.EventTypeWarning, "CertificateExpired", "PodCertificate expired")
		c.dead = true
	}
}

// jitter is somewhere between nothing and spread, for the same who the same.
func jitter(who string) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(who)) // a hash takes all
	return time.Duration(h.Sum64() % uint64(spread))
}

// CertificateStates counts the certificates of pods by signer and state, in the
// kubelet's words.
func (m *Manager) CertificateStates() map[[2]string]int {
	now, out := m.Clock.Now(), map[[2]string]int{}
	for c := range m.certificates.all {
		state := "fresh"
		switch {
		case c.refused != nil:
			state = strings.ToLower(c.verdict)
		case c.chain == nil:
			state = "not_yet_issued"
		case now.After(c.expires):
			state = "expired"
		case now.After(c.renew.Add(overdueAfter)):
			state = "overdue_for_refresh"
		}
		out[[2]string{c.signer, state}]++
	}
	return out
}

// newKey makes a key pair and the proof that it is ours: the private key as PEM
// and an empty signing request.
func newKey(kind string) (key, proof []byte, err error) {
	var private crypto.PrivateKey
	switch kind {
	case "RSA3072":
		private, err = rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		private, err = rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("there is no such type")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a key of type %q: %w", kind, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key of type %q: %w", kind, err)
	}
	if proof, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private); err != nil {
		return nil, nil, fmt.Errorf("sign a certificate request with a key of type %q: %w", kind, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), proof, nil
}

// cleanChain drops headers and what is between the certificates.
func cleanChain(text string) []byte {
	var out []byte
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
	}
	return out
}
