package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"
)

// selfSigned makes a pair of files.
func selfSigned(t *testing.T, names ...string) (certFile, keyFile string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	certFile, keyFile = filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key")
	if err := EnsureSelfSigned(certFile, keyFile, names, Options{Clock: clocktesting.NewFakeClock(epoch)}); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

// Clients can trust the file of the certificate itself.
func TestSelfSigned(t *testing.T) {
	certFile, keyFile := selfSigned(t, "kubernetes", "127.0.0.1")
	g, err := ReadGiven(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := ReadPool(certFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes", "127.0.0.1"} {
		client := &tls.Config{RootCAs: pool, ServerName: name, Time: clocktesting.NewFakeClock(epoch).Now}
		if _, _, err := handshake(t, &tls.Config{GetCertificate: g.ForServer}, client); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
}

func TestSelfSignedKeepsWhatIsThere(t *testing.T) {
	certFile, keyFile := selfSigned(t, "kubernetes")
	before, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Clock: clocktesting.NewFakeClock(epoch)}
	if err := EnsureSelfSigned(certFile, keyFile, nil, o); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(certFile); err != nil || string(after) != string(before) {
		t.Errorf("the certificate was made anew, %v", err)
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if err := EnsureSelfSigned(certFile, keyFile, nil, o); err == nil || !strings.Contains(err.Error(), "only one is there") {
		t.Errorf("a certificate without its key: %v", err)
	}
}

// Files that are replaced are served from then on, but no half of a new pair is.
func TestGivenIsReadAgain(t *testing.T) {
	certFile, keyFile := selfSigned(t, "first")
	g, err := ReadGiven(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		cert, err := g.ForServer(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.DNSNames[0]
	}
	secondCert, secondKey := selfSigned(t, "second-with-a-longer-name")
	if name() != "first" {
		t.Errorf("serves %s", name())
	}
	if err := os.Rename(secondCert, certFile); err != nil {
		t.Fatal(err)
	}
	if name() != "first" {
		t.Errorf("with the new certificate and the old key it serves %s", name())
	}
	if err := os.Rename(secondKey, keyFile); err != nil {
		t.Fatal(err)
	}
	if name() != "second-with-a-longer-name" {
		t.Errorf("with both files replaced it serves %s", name())
	}
}

func TestGivenNamesItsFile(t *testing.T) {
	certFile, keyFile := selfSigned(t, "a")
	if _, err := ReadGiven(certFile, certFile); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("a certificate for a key: %v", err)
	}
	if _, err := ReadPool(keyFile); err == nil || !strings.Contains(err.Error(), keyFile+" has no certificate") {
		t.Errorf("a key for a certificate: %v", err)
	}
}
