package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"hansa.dev/hansa/internal/bundle"
)

// bundleFile is the bundle's name in a folder of the cache, beside the
// programs it is made of.
const bundleFile = "bundle"

// set is programs that are built together and cached as one.
type set struct {
	dir      string // where their sources are and their commands run
	programs []program
	bundled  bool
	// sources are what the programs follow from beside dir, tools the commands
	// that tell the versions of what builds them.
	sources []string
	tools   [][]string
}

// program is one row of a set. Versions are those of the go.mod in its folder.
type program struct {
	name string
	env  []string
	argv []string // %OUT% is the program's path, %DIR% its folder
}

var goTool = []string{"go", "env", "GOVERSION", "GOARCH", "GOFLAGS", "GOEXPERIMENT", "GOAMD64"}

// carried is what bin/hansa carries. The C library is linked into runc.
func carried() set {
	return set{
		dir: "carried", programs: programs(), bundled: true,
		sources: []string{"internal/bundle/bundle.go", "internal/bundle/write.go"},
		tools:   [][]string{goTool, {"gcc", "-dumpfullversion"}, {"pkg-config", "--modversion", "libseccomp"}, {"zstd", "-V"}},
	}
}

// kubectls are other versions of kubectl than the one carried, for tests.
func kubectls() set {
	return set{
		dir: "conformance/kubectls", tools: [][]string{goTool},
		programs: []program{
			goProgram("kubectl-1.36", ".", "osusergo netgo", kubectlVersion("1", "36", "6")),
			nextKubectl(),
			{name: "kubectl-1.20", argv: []string{"./debian", "%OUT%"}},
		},
	}
}

// clients are programs of others that tests run against a cluster. Prometheus
// needs a version of a library that kube-state-metrics cannot have.
func clients() set {
	const helm, tags = "/internal/version.version=", "osusergo netgo"
	prometheus := goProgram("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", tags+" remove_all_sd enable_kubernetes_sd", "")
	prometheus.argv = slices.Insert(prometheus.argv, 2, "-modfile=prometheus.mod")
	return set{
		dir: "conformance/clients", tools: [][]string{goTool},
		programs: []program{
			goProgram("helm-3", "helm.sh/helm/v3/cmd/helm", tags, "-X helm.sh/helm/v3"+helm+"v3.22.0"),
			goProgram("helm-4", "helm.sh/helm/v4/cmd/helm", tags, "-X helm.sh/helm/v4"+helm+"v4.3.2"),
			goProgram("kube-state-metrics", "k8s.io/kube-state-metrics/v2", tags, ""),
			prometheus,
		},
	}
}

// nextKubectl is a version that is not released yet, made by a newer Go, which
// go itself fetches.
func nextKubectl() program {
	p := goProgram("kubectl-1.38", ".", "osusergo netgo", kubectlVersion("1", "38", "0-beta.0"))
	p.env = append(p.env, "GOTOOLCHAIN=go1.27.3")
	p.argv = append([]string{"go", "build", "-modfile=1.38.mod"}, p.argv[2:]...)
	return p
}

// kubectlVersion is the linker's flags by which a kubectl knows its version.
func kubectlVersion(major, minor, patch string) string {
	const pkg = "k8s.io/component-base/version."
	return fmt.Sprintf("-X %[1]sgitVersion=v%[2]s.%[3]s.%[4]s -X %[1]sgitMajor=%[2]s -X %[1]sgitMinor=%[3]s", pkg, major, minor, patch)
}

// goProgram is a row built by go without cgo; runc is the only one with it.
func goProgram(name, pkg, tags, ldflags string) program {
	return program{
		name: name,
		env:  []string{"CGO_ENABLED=0", "GOWORK=off"},
		argv: []string{"go", "build", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", "-s -w " + ldflags, "-o", "%OUT%", pkg},
	}
}

// patched is a row built with a patch.
func patched(p program, name string) program {
	p.argv = slices.Insert(p.argv, 2, "-overlay", "%DIR%/"+overlayDir+"/"+name+".json")
	return p
}

// programs lists what is carried, in the order of the bundle. Without grpcnotrace
// gRPC brings html/template; plugins of NRI and checkpoints are off in containerd's
// configuration.
func programs() []program {
	const containerd = "github.com/containerd/containerd/v2/"
	runc := goProgram("runc", "github.com/opencontainers/runc", "seccomp osusergo netgo urfave_cli_no_docs runc_nocriu",
		// Not independent of its position, as upstream has it: it starts a dozen times
		// for a pod, and relocates itself each time.
		"-linkmode external -extldflags -static")
	// C code joins namespaces before Go's runtime starts, and libseccomp is C.
	runc.env = []string{"CGO_ENABLED=1", "GOWORK=off"}
	return []program{
		patched(goProgram("containerd", "./containerd",
			"no_tracing no_btrfs no_zfs no_devmapper osusergo netgo static_build urfave_cli_no_docs grpcnotrace nri_no_wasm",
			"-X "+containerd+"version.Version=v2.4.2"), "templates"),
		patched(goProgram("containerd-shim-runc-v2", containerd+"cmd/containerd-shim-runc-v2",
			"no_grpc osusergo netgo static_build urfave_cli_no_docs",
			"-X "+containerd+"version.Version=v2.4.2"), "memory"),
		patched(runc, "templates"),
		goProgram("hansa-cni", "./hansa-cni", "osusergo netgo", ""),
		{name: "pause", argv: []string{"pause/build", "%OUT%"}},
		patched(goProgram("kubectl", "./kubectl", "osusergo netgo", kubectlVersion("1", "37", "2")), "templates"),
	}
}

// cached returns the folder below dir that holds the programs of a set and
// their bundle, building what is not there. The link dir/current leads to it.
// Builders of the same checkout wait for each other.
func (s set) cached(ctx context.Context, dir string) (string, error) {
	key, err := s.key(ctx)
	if err != nil {
		return "", fmt.Errorf("cache key of the programs in %s: %w", s.dir, err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	folder := filepath.Join(dir, key)
	if _, err := os.Stat(folder); err == nil {
		return folder, point(dir, key)
	}
	tmp := folder + ".tmp"
	if err := os.RemoveAll(tmp); err != nil { // of a build that was interrupted
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	if err := s.build(ctx, tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, folder); err != nil {
		return "", err
	}
	return folder, point(dir, key)
}

// build builds every program into dir and then the bundle. One after the
// other: go already uses every core.
func (s set) build(ctx context.Context, dir string) error {
	if s.bundled {
		over, err := overlays(ctx, s.dir, dir)
		if err != nil {
			return fmt.Errorf("patch what is carried: %w", err)
		}
		defer os.RemoveAll(over)
	}
	var sources []bundle.Source
	for _, p := range s.programs {
		start := time.Now()
		out := filepath.Join(dir, p.name)
		argv := make([]string, len(p.argv))
		for i, arg := range p.argv {
			argv[i] = strings.NewReplacer("%OUT%", out, "%DIR%", dir).Replace(arg)
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = s.dir
		cmd.Env = append(os.Environ(), p.env...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		logf("%s built in %s", p.name, time.Since(start).Round(100*time.Millisecond))
		sources = append(sources, bundle.Source{Name: p.name, Path: out})
	}
	if !s.bundled {
		return nil
	}
	start := time.Now()
	f, err := os.Create(filepath.Join(dir, bundleFile))
	if err != nil {
		return err
	}
	if err := bundle.Write(f, sources, compress(ctx)); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	logf("bundle compressed in %s", time.Since(start).Round(100*time.Millisecond))
	return nil
}

// compress is zstd's own program at its slowest ordinary level: 13 % of the bundle,
// for a minute and a half once.
func compress(ctx context.Context) bundle.Compressor {
	return func(w io.Writer, r io.Reader) error {
		// The window is bundle.WindowSize, 2 to the power of 23.
		cmd := exec.CommandContext(ctx, "zstd", "-19", "--long=23", "--single-thread", "--no-check", "-q", "-c")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = r, w, os.Stderr
		return cmd.Run()
	}
}

// key hashes all that the programs follow from: the commands, the compilers and
// the C library they are linked with, the code that writes the bundle, and every
// file of the set's folder, among them the pinned versions.
func (s set) key(ctx context.Context) (string, error) {
	h := sha256.New()
	if s.bundled {
		fmt.Fprintf(h, "patches %q\n", patches)
	}
	for _, p := range s.programs {
		fmt.Fprintf(h, "program %q %q %q\n", p.name, p.env, p.argv)
	}
	for _, argv := range s.tools {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = s.dir // whose go.mod may ask for another Go
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s (hack/setup installs what is missing): %w", strings.Join(argv, " "), err)
		}
		fmt.Fprintf(h, "tool %q %q\n", argv, out)
	}
	fmt.Fprintf(h, "os %s\n", runtime.GOOS)
	for _, root := range append([]string{s.dir}, s.sources...) {
		if err := hashTree(h, root); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// hashTree writes the name and content of every file below root but tests to
// h, in a fixed order.
func hashTree(h interface{ Write([]byte) (int, error) }, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "file %q %d\n", path, len(data))
		_, err = h.Write(data)
		return err
	})
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

// point makes dir/current lead to key.
func point(dir, key string) error {
	current := filepath.Join(dir, "current")
	if target, err := os.Readlink(current); err == nil && target == key {
		return nil
	}
	tmp := current + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Symlink(key, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, current)
}
