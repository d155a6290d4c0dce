package ocibuild

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// builder returns one with a cache of its own, for a module of its own with
// one program.
func builder(t *testing.T) *Builder {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":        "module example.com/m\n\ngo 1.26\n",
		"hello/main.go": "package main\n\nvar word = \"none\"\n\nfunc main() { println(word) }\n",
	} {
		if err := writeFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Builder{Root: root, Cache: filepath.Join(root, "cache")}
}

func build(t *testing.T, b *Builder, spec Spec) string {
	t.Helper()
	path, err := b.Build(t.Context(), "hansa.local/test:1", spec)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// entries reads the flattened file system of an image.
func entries(t *testing.T, img v1.Image) map[string]*tar.Header {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	found := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found["/"+strings.TrimSuffix(h.Name, "/")] = h
	}
}

func TestDockerArchive(t *testing.T) {
	path := build(t, builder(t), Spec{
		Programs: map[string]Program{"/bin/hello": {Package: "./hello", LDFlags: "-X main.word=yes"}},
		Files:    map[string]File{"/etc/conf": {Content: "a"}, "/etc/secret": {Content: "bc", Mode: 0o600}},
		Dirs:     map[string]fs.FileMode{"/tmp": fs.ModeSticky | 0o777},
		Config:   v1.Config{Entrypoint: []string{"/bin/hello"}, User: "65534"},
	})
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || strings.Join(manifest[0].RepoTags, " ") != "hansa.local/test:1" {
		t.Errorf("manifest %+v, want the one tag", manifest)
	}
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Config.User != "65534" || len(config.RootFS.DiffIDs) != 1 || len(config.History) != 1 {
		t.Errorf("config %+v", config)
	}
	got := entries(t, img)
	for path, want := range map[string]struct {
		mode int64
		size int64
	}{"/etc/conf": {0o644, 1}, "/etc/secret": {0o600, 2}, "/tmp": {0o1777, 0}} {
		h := got[path]
		if h == nil || h.Mode != want.mode || h.Size != want.size || h.Uid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: %+v, want mode %o and size %d", path, h, want.mode, want.size)
		}
	}
	if h := got["/bin/hello"]; h == nil || h.Mode != 0o755 || h.Size == 0 {
		t.Errorf("the program: %+v", h)
	}
}

func TestOCILayout(t *testing.T) {
	b := builder(t)
	path := build(t, b, Spec{Files: map[string]File{"/a": {Content: "a"}}, Format: OCILayout})
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xf", path, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 || m.Manifests[0].Annotations["io.containerd.image.name"] != "hansa.local/test:1" ||
		m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1" {
		t.Fatalf("index %+v", m)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if entries(t, img)["/a"] == nil {
		t.Error("the file is missing")
	}
}

// The same spec and sources are found again; a change of either builds anew.
func TestCache(t *testing.T) {
	b := builder(t)
	spec := Spec{Programs: map[string]Program{"/hello": {Package: "./hello"}}}
	first := build(t, b, spec)
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if again := build(t, b, spec); again != first {
		t.Errorf("built again as %s", again)
	}
	if after, err := os.Stat(first); err != nil || !os.SameFile(before, after) {
		t.Error("the image was written again")
	}
	changed := spec
	changed.Config.User = "1"
	if path := build(t, b, changed); path == first {
		t.Error("another user, and the same image")
	}
	source := filepath.Join(b.Root, "hello", "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(1) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if path := build(t, b, spec); path == first {
		t.Error("another program, and the same image")
	}
	list, err := filepath.Glob(filepath.Join(b.Cache, "work-*"))
	if err != nil || len(list) > 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

// Two caches give the same bytes: nothing of the time or place of building is
// in an image.
func TestReproducible(t *testing.T) {
	spec := Spec{
		Files: map[string]File{"/b": {Content: "b"}, "/a/c": {Content: "c"}},
		Dirs:  map[string]fs.FileMode{"/d": 0o700},
	}
	var digests []string
	for range 2 {
		img, err := tarball.ImageFromPath(build(t, builder(t), spec), nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("digests %v", digests)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		ref  string
		spec Spec
		want string
	}{
		"no tag":  {"hansa.local/test", Spec{}, "tag must be between"},
		"format":  {"hansa.local/test:1", Spec{Format: "zip"}, `there is no format "zip"`},
		"program": {"hansa.local/test:1", Spec{Programs: map[string]Program{"/x": {Package: "./absent"}}}, "build ./absent"},
	} {
		if _, err := builder(t).Build(t.Context(), c.ref, c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// The catalogue's shell, from the Debian package: it needs root and the
// package archive, or a cache filled before.
func TestBusybox(t *testing.T) {
	b, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path, err := b.Build(t.Context(), Busybox, Catalogue()[Busybox])
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, img)
	if h := got["/bin/busybox"]; h == nil || h.Typeflag != tar.TypeReg {
		t.Errorf("busybox itself: %+v", h)
	}
	for _, applet := range []string{"sh", "wget", "nc", "nslookup", "httpd"} {
		if h := got["/bin/"+applet]; h == nil || h.Linkname != "busybox" {
			t.Errorf("%s: %+v, want a link to busybox", applet, h)
		}
	}
}

// Every row can be told from every other, and has a command to run.
func TestCatalogue(t *testing.T) {
	seen := map[string]string{}
	for name, spec := range Catalogue() {
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(data)]; ok {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[string(data)] = name
		if len(spec.Config.Entrypoint)+len(spec.Config.Cmd) == 0 {
			t.Errorf("%s has no command", name)
		}
	}
	if len(seen) != Backends+3 {
		t.Errorf("%d images", len(seen))
	}
}
