package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"hansa.dev/hansa/pki"
)

// plane is the API alone over an etcd, as envtest runs it: two processes by the
// names that `hansa envtest` has laid out.
type plane struct {
	etcdURL string
	etcd    *process
	url     string
	certs   string // --cert-dir
	clients *pki.CA
	api     *process
}

// assets is the folder that `hansa envtest` lays out, once for all tests.
var assets = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(root, "assets")
	out, err := exec.Command(binary, "envtest", dir).CombinedOutput()
	if want := fmt.Sprintf("export KUBEBUILDER_ASSETS='%s'\n", dir); err != nil || string(out) != want {
		return "", fmt.Errorf("hansa envtest: %w: %s", err, out)
	}
	return dir, nil
})

// asset is a command by a name of envtest.
func asset(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := assets()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, name), args...)
	cmd.Env = append(os.Environ(), "HANSA_DETECT_MUTATIONS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// starter runs what starts a program on a thread that lives as long as this
// process: a program whose Pdeathsig is set ends with the thread that started it.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// begun starts a program that is told to end after the test, and must end well.
func begun(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.errs
	started := make(chan error)
	starter() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { p.end(t) })
	return p
}

// end tells a program to end.
func (p *process) end(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		_ = p.cmd.Process.Kill()
		t.Errorf("%s does not end", p.cmd.Args[0])
		return
	}
	if p.err != nil {
		t.Errorf("%s ended with %v\n%s", p.cmd.Args[0], p.err, p.errs.String())
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// startEtcd starts etcd with the flags that envtest gives it.
func startEtcd(t *testing.T, flags ...string) (url string, p *process) {
	t.Helper()
	url = "http://127.0.0.1:" + freePort(t)
	p = begun(t, asset(t, "etcd", append([]string{
		"--listen-client-urls=" + url, "--advertise-client-urls=" + url,
		"--listen-peer-urls=http://127.0.0.1:" + freePort(t), "--data-dir=" + t.TempDir(), "--unsafe-no-fsync=true",
	}, flags...)...))
	eventually(t, "etcd is healthy", func() bool { return healthy(url+"/health", http.DefaultClient) })
	return url, p
}

func healthy(url string, c *http.Client) bool {
	resp, err := c.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// prepare makes what envtest puts into a folder before it starts the API: an
// authority of clients and a key of service accounts.
func (p *plane) prepare(t *testing.T) {
	t.Helper()
	p.certs = filepath.Join(t.TempDir(), "certs")
	a, err := pki.Open(p.certs, pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.clients = a.API
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]pem.Block{"sa.key": {Type: "PRIVATE KEY", Bytes: private}, "sa.pub": {Type: "PUBLIC KEY", Bytes: public}} {
		if err := os.WriteFile(filepath.Join(p.certs, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// startPlane starts etcd, and the API with the flags that envtest gives it and
// those given, which win.
func startPlane(t *testing.T, flags ...string) *plane {
	t.Helper()
	p := &plane{}
	p.etcdURL, p.etcd = startEtcd(t)
	p.prepare(t)
	p.start(t, flags...)
	return p
}

// flags are those that envtest gives kube-apiserver.
func (p *plane) flags(port string) []string {
	return []string{
		"--etcd-servers=" + p.etcdURL, "--cert-dir=" + p.certs, "--bind-address=127.0.0.1", "--secure-port=" + port,
		"--client-ca-file=" + filepath.Join(p.certs, "api-ca.crt"),
		"--service-account-issuer=https://127.0.0.1:" + port + "/",
		"--service-account-key-file=" + filepath.Join(p.certs, "sa.pub"), "--service-account-signing-key-file=" + filepath.Join(p.certs, "sa.key"),
		"--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true", "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
	}
}

func (p *plane) start(t *testing.T, flags ...string) {
	t.Helper()
	port := freePort(t)
	p.url = "https://127.0.0.1:" + port
	p.api = begun(t, asset(t, "kube-apiserver", append(p.flags(port), flags...)...))
	admin := p.as(t, "admin", "system:masters")
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	if !poll(ctx, func() bool { return healthy(p.url+"/readyz", admin.http) }) {
		t.Fatalf("the API is not ready: %s", p.api.errs.String())
	}
}

// config is that of nobody in particular.
func (p *plane) config() *rest.Config {
	return &rest.Config{Host: p.url, UserAgent: "conformance", QPS: -1, WarningHandler: rest.NoWarnings{}, TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(p.certs, "apiserver.crt")}}
}

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

// issue signs a certificate by the authority of --client-ca-file.
func (p *plane) issue(t *testing.T, id pki.Identity) pair {
	t.Helper()
	leaf, err := p.clients.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
}

// as is a client with a certificate of the authority of --client-ca-file; "" is
// nobody in particular.
func (p *plane) as(t *testing.T, name string, groups ...string) *peer {
	t.Helper()
	config := p.config()
	if name != "" {
		pair := p.issue(t, pki.Identity{CommonName: name, Organizations: groups, Client: true})
		config.CertData, config.KeyData = pair.cert, pair.key
	}
	// The server's certificate may not be there yet.
	if _, err := os.Stat(config.CAFile); err != nil {
		config.TLSClientConfig.CAFile, config.Insecure = "", true
	}
	client, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// bearing is a client with a token.
func (p *plane) bearing(t *testing.T, token string) *peer {
	t.Helper()
	config := p.config()
	config.BearerToken = strings.TrimSpace(token)
	client, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
