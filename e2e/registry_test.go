package e2e

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A registry of images on the machine itself; without TLS, which runtimes
// accept there. Repositories below private/ want a password.
const (
	registryAddress  = "127.0.0.1:5000"
	registryUser     = "puller"
	registryPassword = "sesame"
)

// images counts the times that the manifest of each tag was asked for.
var images = struct {
	sync.Mutex
	asked map[string]int
}{asked: map[string]int{}}

func pulls(ref string) int {
	images.Lock()
	defer images.Unlock()
	return images.asked[ref]
}

// serveRegistry starts the registry.
func serveRegistry() error {
	l, err := net.Listen("tcp", registryAddress)
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
		if repository, tag, ok := strings.Cut(path, "/manifests/"); ok && !strings.HasPrefix(tag, "sha256:") && r.Method != http.MethodPut {
			images.Lock()
			images.asked[repository+":"+tag]++
			images.Unlock()
		}
		inner.ServeHTTP(w, r)
	})
	go func() { log.Println("registry:", http.Serve(l, files)) }()
	return nil
}

// publish puts the shell's image into the registry under a repository, as 1.
func (s *space) publish(repository string) string {
	s.t.Helper()
	ref, err := name.ParseReference(registryAddress + "/" + repository + ":1")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range filepath.SplitList(os.Getenv(imagesVariable)) {
		if !strings.Contains(file, "busybox") {
			continue
		}
		image, err := tarball.ImageFromPath(file, nil)
		if err == nil {
			err = remote.Write(ref, image, remote.WithTransport(withPassword{}))
		}
		if err != nil {
			s.t.Fatalf("publish %s: %v", ref, err)
		}
	}
	return ref.String()
}

// withPassword sends the registry's password along.
type withPassword struct{}

func (withPassword) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth(registryUser, registryPassword)
	return http.DefaultTransport.RoundTrip(r)
}
