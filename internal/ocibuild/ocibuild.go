// Package ocibuild makes container images out of Debian packages and Go
// programs, without a registry, a daemon or a Dockerfile. The demo, the tests
// and the benchmarks get their images from here; Hansa itself does not use it.
//
// An image is one layer: the root file system of a Spec, as a tar whose entries
// are sorted and dated at the epoch. Results are kept in a cache folder under a
// hash of the spec and of the programs in it, so that building again is a
// look-up. Debian packages are not part of the hash: what was fetched stays
// until the cache is removed.
package ocibuild

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Format is how an image is laid out in its file. Both are what `hansa image
// import` reads.
type Format string

const (
	DockerArchive Format = "docker-archive" // as `docker save` writes
	OCILayout     Format = "oci-layout"     // OCI image layout in a tar
)

// Spec says what is in an image. Its parts are applied in the order of the
// fields, a later one over an earlier one. Paths are absolute in the image.
type Spec struct {
	// Packages are Debian packages, unpacked with all that they depend on. No
	// maintainer script runs.
	Packages []string
	// Programs are Go main packages, built statically, by their path.
	Programs map[string]Program
	// Files by their path. Folders above them are made.
	Files map[string]File
	// Dirs are empty folders with their modes.
	Dirs map[string]fs.FileMode
	// Applets is the path of a program that acts by the name it is called, as
	// busybox does, and prints those names when called with --list. Each gets a
	// link in the program's folder.
	Applets string
	// Config is what the image tells a runtime: command, user, environment.
	Config v1.Config
	// Format of the file, DockerArchive when empty.
	Format Format
}

// Program is a Go program to be built.
type Program struct {
	Dir     string // of the program's own module, from the root of this one; "" for this one
	Package string // import path or ./folder from the module's root
	LDFlags string // beside -s -w
}

// File is a file's content and mode, 0644 when zero.
type File struct {
	Content string
	Mode    fs.FileMode
}

// generation counts changes of this package that make other images of the
// same spec.
const generation = 1

// Builder builds images. Its fields are set by New and may be changed before
// the first Build.
type Builder struct {
	// Root is the root of the module whose programs are built.
	Root string
	// Cache is the folder that keeps images and packages.
	Cache string
}

// New returns a builder for the module that the working directory lies in,
// with .cache/images at its root as the cache.
func New(ctx context.Context) (*Builder, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	gomod := strings.TrimSpace(string(out))
	if gomod == "" || gomod == os.DevNull {
		return nil, fmt.Errorf("find the module: the working directory lies in none")
	}
	root := filepath.Dir(gomod)
	return &Builder{Root: root, Cache: filepath.Join(root, ".cache", "images")}, nil
}

// Build returns the path of a file with the image that spec describes, tagged
// ref ("hansa.local/web:1"). The file belongs to the cache: read it, do not
// change it. Builders that share a cache wait for each other. It needs root
// when the spec has packages, so that owners are kept.
func (b *Builder) Build(ctx context.Context, ref string, spec Spec) (string, error) {
	path, err := b.build(ctx, ref, spec)
	if err != nil {
		return "", fmt.Errorf("build image %s: %w", ref, err)
	}
	return path, nil
}

func (b *Builder) build(ctx context.Context, ref string, spec Spec) (string, error) {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(b.Cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	work, err := os.MkdirTemp(b.Cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	programs, err := b.programs(ctx, spec, filepath.Join(work, "programs"))
	if err != nil {
		return "", err
	}
	key, err := cacheKey(ref, spec, programs)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.Cache, strings.NewReplacer("/", "_", ":", "_").Replace(ref)+"-"+key+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	root := filepath.Join(work, "root")
	if err := b.populate(ctx, root, spec, programs); err != nil {
		return "", err
	}
	img, err := image(root, filepath.Join(work, "layer.tar"), spec)
	if err != nil {
		return "", err
	}
	tmp := filepath.Join(work, "image.tar")
	switch spec.Format {
	case DockerArchive, "":
		err = tarball.WriteToFile(tmp, tag, img)
	case OCILayout:
		err = writeLayout(tmp, filepath.Join(work, "layout"), tag, img)
	default:
		err = fmt.Errorf("there is no format %q", spec.Format)
	}
	if err != nil {
		return "", err
	}
	return path, os.Rename(tmp, path)
}

// cacheKey hashes what the image follows from: the name, the spec, and the
// programs as built, by their path in the image.
func cacheKey(ref string, spec Spec, programs map[string]string) (string, error) {
	sums := map[string]string{}
	for path, file := range programs {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(data)
		sums[path] = hex.EncodeToString(sum[:])
	}
	// Maps are written with sorted keys, so equal values give equal bytes.
	data, err := json.Marshal([]any{generation, runtime.GOARCH, ref, spec, sums})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// image puts the tree at root into an image of one layer; layer is the file
// that the layer is read from while the image is in use.
func image(root, layer string, spec Spec) (v1.Image, error) {
	if err := tarTree(layer, root); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	l, err := tarball.LayerFromFile(layer, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	img, err := mutate.AppendLayers(base, l)
	if err != nil {
		return nil, fmt.Errorf("append layer: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, spec.Config
	return mutate.ConfigFile(img, file)
}

// lock takes the lock file at path and waits for it if need be.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
