package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T, dir string, clk *clocktesting.FakeClock) *Authority {
	t.Helper()
	a, err := Open(dir, Options{Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOpenMakesOnceAndReads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "pki")
	clk := clocktesting.NewFakeClock(epoch)
	first := open(t, dir, clk)
	second := open(t, dir, clk)
	if string(first.API.PEM()) != string(second.API.PEM()) {
		t.Error("the second start has another API authority")
	}
	if string(first.API.PEM()) == string(first.Etcd.PEM()) || string(first.API.PEM()) == string(first.FrontProxy.PEM()) {
		t.Error("authorities are not separate")
	}
	if len(second.TokenKeys()) != 1 {
		t.Errorf("%d token keys, want 1", len(second.TokenKeys()))
	}

	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v, %v; want 0700", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Errorf("%d files, %v; want 7", len(entries), err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o644)
		if strings.HasSuffix(e.Name(), ".key") {
			want = 0o600
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", e.Name(), info.Mode().Perm(), want)
		}
	}
}

// A start that was killed leaves the unfinished directory beside the place of
// the real one; the next start begins again.
func TestOpenAfterCrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if err := os.MkdirAll(dir+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".new", "api-ca.crt"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, clocktesting.NewFakeClock(epoch))
	if _, err := os.Stat(dir + ".new"); !os.IsNotExist(err) {
		t.Errorf("the unfinished directory is still there: %v", err)
	}
}

func TestOpenFillsAnEmptyDirectory(t *testing.T) {
	open(t, t.TempDir(), clocktesting.NewFakeClock(epoch))
}

func TestOpenRefusesDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string) error
		want   []string
	}{
		{"a missing key", func(_ *testing.T, dir string) error {
			return os.Remove(filepath.Join(dir, "etcd-ca.key"))
		}, []string{"etcd-ca.key: no such file", "restore the file from a backup"}},
		{"a missing token key", func(_ *testing.T, dir string) error {
			return os.Remove(filepath.Join(dir, "service-account.key"))
		}, []string{"service-account.key: no such file"}},
		{"a key of another authority", func(t *testing.T, dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "etcd-ca.key"))
			if err != nil {
				t.Fatal(err)
			}
			return os.WriteFile(filepath.Join(dir, "api-ca.key"), data, 0o600)
		}, []string{"api-ca.crt and api-ca.key: the key does not belong to the certificate"}},
		{"an empty certificate", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "api-ca.crt"), nil, 0o600)
		}, []string{"api-ca.crt and api-ca.key: the certificate is not in PEM form"}},
		{"a certificate in place of a key", func(t *testing.T, dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "api-ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			return os.WriteFile(filepath.Join(dir, "api-ca.key"), data, 0o600)
		}, []string{"a CERTIFICATE stands where a private key should"}},
		{"a damaged token key", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "service-account.key"), []byte("garbage"), 0o600)
		}, []string{"service-account.key: there is no private key in PEM form"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			clk := clocktesting.NewFakeClock(epoch)
			open(t, dir, clk)
			if err := c.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, Options{Clock: clk})
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestIssue(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	names := APIServerNames("cluster.local", netip.MustParseAddr("10.43.0.1"), "node-1", "192.0.2.7")
	cert, err := a.API.Issue(Identity{CommonName: "kube-apiserver", Names: names, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "127.0.0.1", "::1", "10.43.0.1", "node-1", "192.0.2.7",
	} {
		_, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.API.Pool(), CurrentTime: epoch})
		if err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	client := x509.VerifyOptions{Roots: a.API.Pool(), CurrentTime: epoch, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := cert.Leaf.Verify(client); err == nil {
		t.Error("a server's certificate passes as a client's")
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: a.Etcd.Pool(), CurrentTime: epoch}); err == nil {
		t.Error("the etcd authority vouches for an API certificate")
	}

	node, err := a.API.Issue(NodeIdentity("n1"))
	if err != nil {
		t.Fatal(err)
	}
	if got := node.Leaf.Subject.String(); got != "CN=system:node:n1,O=system:nodes" {
		t.Errorf("node's subject is %s", got)
	}
	if _, err := node.Leaf.Verify(client); err != nil {
		t.Errorf("node as a client: %v", err)
	}
}

// A leaf does not outlive its authority, and an expired authority says so.
func TestIssueNearTheEnd(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a, err := Open(filepath.Join(t.TempDir(), "pki"), Options{Clock: clk, CALifetime: 40 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	clk.Step(20 * 24 * time.Hour)
	cert, err := a.API.Issue(AdminIdentity())
	if err != nil {
		t.Fatal(err)
	}
	if want := epoch.Add(40 * 24 * time.Hour); !cert.Leaf.NotAfter.Equal(want) {
		t.Errorf("the leaf ends %s, its authority %s", cert.Leaf.NotAfter, want)
	}
	clk.Step(21 * 24 * time.Hour)
	if _, err := a.API.Issue(AdminIdentity()); err == nil || !strings.Contains(err.Error(), `"hansa-api-ca" expired on 2026-02-11`) {
		t.Errorf("an expired authority signs: %v", err)
	}
}

// What is signed for others does not outlive the authority, and is none.
func TestSign(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	asked := &x509.Certificate{
		Subject: pkix.Name{CommonName: "jane"}, IsCA: true, NotBefore: epoch, NotAfter: epoch.Add(10 * DefaultCALifetime),
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := a.API.Sign(asked, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.SerialNumber.Sign() <= 0 || leaf.NotAfter.After(epoch.Add(DefaultCALifetime)) {
		t.Errorf("an authority until %s: %v", leaf.NotAfter, leaf.IsCA)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("it is for another key")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.API.Pool(), CurrentTime: epoch, KeyUsages: asked.ExtKeyUsage}); err != nil {
		t.Error(err)
	}
	clk.Step(DefaultCALifetime)
	if _, err := a.API.Sign(asked, key.Public()); err == nil {
		t.Error("the authority signs after its end")
	}
}
