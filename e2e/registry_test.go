package e2e

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
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
var images = counter{n: map[string]int{}}

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
			images.add(repository + ":" + tag)
		}
		inner.ServeHTTP(w, r)
	})
	go func() { log.Println("registry:", http.Serve(l, files)) }()
	return nil
}

// publish puts the shell's image into the registry under a repository, as 1, by
// the requests of the OCI distribution specification. Notes make another image
// of it, the same for the same notes.
func (s *space) publish(repository string, notes ...string) string {
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
		if image, err = mutate.Config(image, config); err != nil {
			s.t.Fatal(err)
		}
	}
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
