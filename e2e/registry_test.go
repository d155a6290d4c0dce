package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A registry of images on the machine itself; without TLS, which runtimes
// accept there, and with. Repositories below private/ want a password, those
// below keyed/ a header.
const (
	registryAddress  = "127.0.0.1:5000"
	secureAddress    = "127.0.0.1:5443"
	clientsAddress   = "127.0.0.1:5444" // with client certificates
	registryKey      = "open"
	registryUser     = "puller"
	registryPassword = "sesame"
)

// images counts the times that the manifest of each tag was asked for.
var images = counter{n: map[string]int{}}

// gates are what requests for a repository's blobs go through: func() to wait.
var gates sync.Map

// registryCA vouches for the registry, and for its clients.
var registryCA = newAuthority("registry")

// serveRegistry starts the registry.
func serveRegistry() error {
	l, err := net.Listen("tcp", registryAddress)
	if err != nil {
		return err
	}
	certificate, err := registryCA.issue("registry")
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", secureAddress, &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	clients, err := tls.Listen("tcp", clientsAddress, &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: registryCA.pool(),
	})
	if err != nil {
		return err
	}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	files := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v2/")
		user, password, _ := r.BasicAuth()
		known := user == registryUser && password == registryPassword
		if !known && strings.HasPrefix(path, "private/") {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		if strings.HasPrefix(path, "keyed/") && !known && r.Header.Get("X-Registry-Key") != registryKey {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"no key"}]}`, http.StatusForbidden)
			return
		}
		if repository, _, ok := strings.Cut(path, "/blobs/sha256:"); ok && r.Method == http.MethodGet {
			if wait, ok := gates.Load(repository); ok {
				w = &trickled{ResponseWriter: w, wait: wait.(func())}
			}
		}
		if repository, tag, ok := strings.Cut(path, "/manifests/"); ok && !strings.HasPrefix(tag, "sha256:") && r.Method != http.MethodPut {
			images.add(repository + ":" + tag)
		}
		inner.ServeHTTP(w, r)
	})
	for _, l := range []net.Listener{l, secure, clients} {
		server := &http.Server{Handler: files, ErrorLog: log.New(io.Discard, "", 0)}
		go func() { log.Println("registry:", server.Serve(l)) }()
	}
	return nil
}

// trickled waits after the first byte of a layer, which is compressed by gzip;
// layers are asked for when the rest is there.
type trickled struct {
	http.ResponseWriter
	wait func()
}

func (g *trickled) Write(p []byte) (int, error) {
	if g.wait == nil || len(p) < 2 || p[0] != 0x1f {
		return g.ResponseWriter.Write(p)
	}
	n, err := g.ResponseWriter.Write(p[:1])
	if err != nil {
		return n, err
	}
	if err := http.NewResponseController(g.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	g.wait()
	g.wait = nil
	m, err := g.ResponseWriter.Write(p[1:])
	return n + m, err
}

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) *authority {
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err) // the machine has no random numbers
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	return a
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate for this machine, good for servers and clients.
func (a *authority) issue(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// publish puts the shell's image into the registry under a repository, as 1, by
// the requests of the OCI distribution specification. Notes make another image
// of it, the same for the same notes.
func (s *space) publish(repository string, notes ...string) string {
	s.t.Helper()
	return s.publishImage(repository, s.shellImage(notes...))
}

// publishLayer publishes the shell's image with a layer of its own that nobody
// has yet.
func (s *space) publishLayer(repository, content string) string {
	s.t.Helper()
	layer, err := crane.Layer(map[string][]byte{"layer": []byte(content)})
	if err != nil {
		s.t.Fatal(err)
	}
	image, err := mutate.AppendLayers(s.shellImage(), layer)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.publishImage(repository, image)
}

// shellImage is the shell's image; notes make another one of it.
func (s *space) shellImage(notes ...string) v1.Image {
	s.t.Helper()
	files := filepath.SplitList(os.Getenv(imagesVariable))
	file := files[slices.IndexFunc(files, func(f string) bool { return strings.Contains(f, "busybox") })]
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(notes) > 0 {
		file, err := image.ConfigFile()
		if err != nil {
			s.t.Fatal(err)
		}
		config := *file.Config.DeepCopy()
		config.Labels = map[string]string{"notes": strings.Join(notes, ", ")}
		if image, err = withConfig(image, config); err != nil {
			s.t.Fatal(err)
		}
	}
	return image
}

// withConfig is another image, of another configuration.
func withConfig(image v1.Image, config v1.Config) (v1.Image, error) {
	return mutate.Config(image, config)
}

// publishImage puts an image into the registry under a repository, as 1.
func (s *space) publishImage(repository string, image v1.Image) string {
	s.t.Helper()
	layers, err := image.Layers()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range layers {
		content, err := l.Compressed()
		if err != nil {
			s.t.Fatal(err)
		}
		digest, err := l.Digest()
		if err != nil {
			s.t.Fatal(err)
		}
		s.upload(http.MethodPost, repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		s.t.Fatal(err)
	}
	digest, err := image.ConfigName()
	if err != nil {
		s.t.Fatal(err)
	}
	s.upload(http.MethodPost, repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", bytes.NewReader(config))
	manifest, err := image.RawManifest()
	if err != nil {
		s.t.Fatal(err)
	}
	kind, err := image.MediaType()
	if err != nil {
		s.t.Fatal(err)
	}
	s.upload(http.MethodPut, repository+"/manifests/1", string(kind), bytes.NewReader(manifest))
	return registryAddress + "/" + repository + ":1"
}

// upload sends something to the registry.
func (s *space) upload(method, path, kind string, content io.Reader) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+registryAddress+"/v2/"+path, content)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	r.SetBasicAuth(registryUser, registryPassword)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		s.t.Fatalf("%s %s: %s", method, path, answer.Status)
	}
}
