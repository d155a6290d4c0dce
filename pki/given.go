package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ReadPool reads the certificates of authorities that somebody else made.
func ReadPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", path)
	}
	return pool, nil
}

// Given is a certificate and its key in files that somebody else keeps, and may
// replace at any time. It is safe for use by any goroutine.
type Given struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]stamp
}

// stamp tells one content of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

// ReadGiven reads the files for the first time.
func ReadGiven(certFile, keyFile string) (*Given, error) {
	g := &Given{certFile: certFile, keyFile: keyFile}
	seen, err := g.look()
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	g.current, g.seen = &cert, seen
	return g, nil
}

func (g *Given) look() (seen [2]stamp, err error) {
	for i, path := range []string{g.certFile, g.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return seen, err
		}
		seen[i] = stamp{info.ModTime(), info.Size()}
	}
	return seen, nil
}

// get reads the files again if they have changed. While they make no pair, as
// between the replacing of one and the other, the last pair serves.
func (g *Given) get() *tls.Certificate {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen, err := g.look()
	if err != nil || seen == g.seen {
		return g.current
	}
	if cert, err := tls.LoadX509KeyPair(g.certFile, g.keyFile); err == nil {
		g.current, g.seen = &cert, seen
	}
	return g.current
}

// ForServer fits tls.Config.GetCertificate.
func (g *Given) ForServer(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.get(), nil }

// ForClient fits tls.Config.GetClientCertificate.
func (g *Given) ForClient(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return g.get(), nil }

// EnsureSelfSigned makes a server's certificate and key unless the files are
// there: by an authority of its own, which is forgotten and whose certificate
// stands in certFile behind the server's, so that clients can trust that file.
// One of the files alone is an error.
func EnsureSelfSigned(certFile, keyFile string, names []string, o Options) error {
	_, certErr := os.Stat(certFile)
	_, keyErr := os.Stat(keyFile)
	switch {
	case certErr == nil && keyErr == nil:
		return nil
	case certErr == nil || keyErr == nil:
		return fmt.Errorf("of %s and %s only one is there: add the other one, or remove it for both to be made", certFile, keyFile)
	case !errors.Is(certErr, os.ErrNotExist):
		return certErr
	case !errors.Is(keyErr, os.ErrNotExist):
		return keyErr
	}
	caCert, caKey, err := newCA("hansa-self-signed", o.Clock.Now(), DefaultCALifetime)
	if err != nil {
		return err
	}
	cert, key, err := parseCA(caCert, caKey)
	if err != nil {
		return err
	}
	ca := &CA{cert: cert, key: key, clock: o.Clock, lifetime: selfSignedLifetime}
	leaf, err := ca.Issue(Identity{CommonName: "kube-apiserver", Names: names, Server: true})
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return fmt.Errorf("encode a private key: %w", err)
	}
	for _, file := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{
		{keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600},
		{certFile, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), caCert...), 0o644},
	} {
		if err := os.MkdirAll(filepath.Dir(file.path), 0o755); err != nil {
			return err
		}
		if err := writeSynced(file.path, file.data, file.mode); err != nil {
			return err
		}
	}
	return nil
}

// selfSignedLifetime is that of Kubernetes' own self-signed certificates: nobody
// renews them.
const selfSignedLifetime = 365 * 24 * time.Hour
