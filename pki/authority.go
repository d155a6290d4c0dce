package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"k8s.io/utils/clock"
)

// Lifetimes when the options do not say otherwise.
const (
	DefaultLeafLifetime = 30 * 24 * time.Hour
	DefaultCALifetime   = 10 * 365 * 24 * time.Hour
)

// Options of Open. The zero value is good.
type Options struct {
	// Clock is the real one when nil.
	Clock clock.WithTicker
	// LeafLifetime is how long a leaf lives; it is replaced after two thirds.
	LeafLifetime time.Duration
	// CALifetime is that of authorities made by this call.
	CALifetime time.Duration
	// Logger is slog.Default when nil.
	Logger *slog.Logger
}

// Authority is everything that a cluster trusts. It is safe for use by any
// goroutine.
type Authority struct {
	// API signs API servers, node servers and all API clients.
	API *CA
	// FrontProxy signs whom the API server believes about a user's identity.
	FrontProxy *CA
	// Etcd signs the members and clients of etcd.
	Etcd *CA

	tokenKeys []crypto.Signer
	clock     clock.WithTicker
	log       *slog.Logger
}

// The files of the directory. The certificate of an authority is NAME.crt, its
// key NAME.key.
const (
	apiCA        = "api-ca"
	frontProxyCA = "front-proxy-ca"
	etcdCA       = "etcd-ca"
	tokenKeyFile = "service-account.key"
)

var authorities = []string{apiCA, frontProxyCA, etcdCA}

// Open reads the directory, and makes it first if there is none. A directory
// that is there is never added to: a missing or mismatched file is an error
// that names it, since a new authority in its place would cut off every client
// and node that trusts the old one.
func Open(dir string, o Options) (*Authority, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.LeafLifetime == 0 {
		o.LeafLifetime = DefaultLeafLifetime
	}
	if o.CALifetime == 0 {
		o.CALifetime = DefaultCALifetime
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	empty, err := isEmpty(dir)
	if err != nil {
		return nil, fmt.Errorf("open the certificates: %w", err)
	}
	if empty {
		if err := create(dir, o); err != nil {
			return nil, fmt.Errorf("make the certificates in %s: %w", dir, err)
		}
	}
	a, err := load(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open the certificates: %w; restore the file from a backup, or remove all of %s to begin with new ones (every kubeconfig and token made until now becomes invalid)", err, dir)
	}
	return a, nil
}

// TokenKeys are the keys of service-account tokens: the first signs, all
// verify. Not to be written to.
func (a *Authority) TokenKeys() []crypto.Signer { return a.tokenKeys }

// create writes all files beside dir and renames them into place.
func create(dir string, o Options) error {
	files := map[string][]byte{}
	now := o.Clock.Now()
	for _, name := range authorities {
		cert, key, err := newCA("hansa-"+name, now, o.CALifetime)
		if err != nil {
			return err
		}
		files[name+".crt"], files[name+".key"] = cert, key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the token key: %w", err)
	}
	if files[tokenKeyFile], err = encodeKey(key); err != nil {
		return err
	}
	return writeDir(dir, files)
}

func load(dir string, o Options) (*Authority, error) {
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{clock: o.Clock, log: o.Logger}
	for name, ca := range map[string]**CA{apiCA: &a.API, frontProxyCA: &a.FrontProxy, etcdCA: &a.Etcd} {
		var err error
		if *ca, err = loadCA(filepath.Join(dir, name), o); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, tokenKeyFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if a.tokenKeys, err = decodeKeys(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func loadCA(path string, o Options) (*CA, error) {
	certPEM, err := os.ReadFile(path + ".crt")
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(path + ".key")
	if err != nil {
		return nil, err
	}
	cert, key, err := parseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s.crt and %s.key: %w", path, filepath.Base(path), err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &CA{cert: cert, key: key, pem: certPEM, pool: pool, clock: o.Clock, lifetime: o.LeafLifetime}, nil
}

// isEmpty is true for a directory with nothing in it, or none at all.
func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && len(entries) == 0, err
}
