package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"k8s.io/utils/clock"
)

// backdate is how long before its making a certificate begins to be valid, for
// machines whose clocks differ.
const backdate = time.Hour

// CA is one certificate authority. It is safe for use by any goroutine.
type CA struct {
	cert     *x509.Certificate
	key      crypto.Signer
	pem      []byte
	pool     *x509.CertPool
	clock    clock.PassiveClock
	lifetime time.Duration
}

// Identity says whom a leaf names and what it is good for.
type Identity struct {
	CommonName    string
	Organizations []string
	// Names are the DNS names and IP addresses that a server answers to.
	Names []string
	// Server and Client are the uses: at least one is set.
	Server, Client bool
}

// PEM is the authority's certificate, as clients are given it. Not to be
// written to.
func (ca *CA) PEM() []byte { return ca.pem }

// Pool holds the authority's certificate alone. Not to be added to.
func (ca *CA) Pool() *x509.CertPool { return ca.pool }

// Issue signs a new key for an identity. The leaf lives for the authority's
// leaf lifetime, but not longer than the authority itself.
func (ca *CA) Issue(id Identity) (*tls.Certificate, error) {
	now := ca.clock.Now()
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("sign a certificate for %q: the authority %q expired on %s",
			id.CommonName, ca.cert.Subject.CommonName, ca.cert.NotAfter.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for %q: %w", id.CommonName, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: id.CommonName, Organization: id.Organizations},
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(ca.lifetime), ca.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	for _, name := range id.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if id.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if id.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %q: %w", id.CommonName, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the certificate for %q: %w", id.CommonName, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Sign signs a certificate for somebody else's key, as its caller describes it.
// It gets a serial number, does not outlive the authority, and is none itself.
func (ca *CA) Sign(certificate *x509.Certificate, key crypto.PublicKey) (der []byte, err error) {
	if now := ca.clock.Now(); !now.Before(ca.cert.NotAfter) {
		return nil, fmt.Errorf("the signer has expired: NotAfter=%v", ca.cert.NotAfter)
	}
	c := *certificate
	if c.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	c.NotAfter = earlier(c.NotAfter, ca.cert.NotAfter)
	c.BasicConstraintsValid, c.IsCA = true, false
	if der, err = x509.CreateCertificate(rand.Reader, &c, ca.cert, key, ca.key); err != nil {
		return nil, fmt.Errorf("failed to sign certificate: %w", err)
	}
	return der, nil
}

// newCA makes a self-signed authority, as the PEM of its certificate and key.
func newCA(name string, now time.Time, lifetime time.Duration) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of authority %q: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign authority %q: %w", name, err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, nil
}

// parseCA checks that the two belong together and make an authority.
func parseCA(certPEM, keyPEM []byte) (*x509.Certificate, crypto.Signer, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, errors.New("the certificate is not in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read the certificate: %w", err)
	}
	if !cert.IsCA {
		return nil, nil, errors.New("the certificate is not that of an authority")
	}
	keys, err := decodeKeys(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(keys[0].Public()) {
		return nil, nil, errors.New("the key does not belong to the certificate")
	}
	return cert, keys[0], nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// decodeKeys reads all private keys of a file; there is at least one.
func decodeKeys(data []byte) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no private key in PEM form")
	}
	return keys, nil
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a %s stands where a private key should", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// newSerial is a random positive number of 127 bits (RFC 5280, 4.1.2.2).
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
