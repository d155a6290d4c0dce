// Command build makes bin/hansa: it builds the carried programs unless the
// cache has them, links ./cmd/hansa and appends the bundle. `make build` runs
// it from the root of the checkout.
//
//	go run ./hack/build            bin/hansa
//	go run ./hack/build -carried   only the carried programs, in .cache/carried/current
//	go run ./hack/build -kubectls  other versions of kubectl, in .cache/kubectls/current
//	go run ./hack/build -clients   other programs that tests run against a cluster, in .cache/clients/current
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	others := flag.Bool("kubectls", false, "build only the versions of kubectl that conformance tests run beside the carried one")
	programs := flag.Bool("clients", false, "build only the programs of others that tests run against a cluster: Helm, kube-state-metrics, Prometheus")
	carriedOnly := flag.Bool("carried", false, "build only the carried programs and print their folder")
	out := flag.String("o", "bin/hansa", "`path` of the binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *others:
		_, err = kubectls().cached(ctx, ".cache/kubectls")
	case *programs:
		_, err = clients().cached(ctx, ".cache/clients")
	default:
		err = run(ctx, *carriedOnly, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		stop()
		os.Exit(1)
	}
}

// most is the size that the program may have, in bytes.
const most = 100 << 20

func run(ctx context.Context, carriedOnly bool, out string) error {
	cache, err := carried().cached(ctx, ".cache/carried")
	if err != nil {
		return err
	}
	if carriedOnly {
		fmt.Println(cache)
		return nil
	}
	linked := filepath.Join(".cache", "linked", "hansa")
	start := time.Now()
	if err := link(ctx, linked); err != nil {
		return err
	}
	size, err := concatenate(out, linked, filepath.Join(cache, bundleFile))
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if size > most {
		return fmt.Errorf("%s has %.1f MiB, more than %d: `go build -ldflags=-dumpdep ./cmd/hansa 2>&1 | grep ReflectMethod` tells who keeps unused methods", out, float64(size)/(1<<20), most>>20)
	}
	logf("%s: %.1f MiB, linked in %s", out, float64(size)/(1<<20), time.Since(start).Round(100*time.Millisecond))
	return nil
}

// link builds the daemon and the command line, statically and reproducibly.
func link(ctx context.Context, out string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	modules, err := leanModules(filepath.Dir(out))
	if err != nil {
		return err
	}
	flags, err := versionFlags(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-modfile", modules,
		"-tags", "grpcnotrace", "-ldflags", "-s -w "+flags, "-o", out, "./cmd/hansa")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("link ./cmd/hansa: %w", err)
	}
	return nil
}

// leanModules writes a go.mod into a folder, with ours and what bin/hansa has
// instead of modules of which it has no use: see gocmp. grpcnotrace leaves out what
// else would bring html/template.
func leanModules(dir string) (string, error) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile("go.sum")
	if err != nil {
		return "", err
	}
	mod = append(mod, "\nreplace github.com/google/go-cmp => ./hack/build/gocmp\n"...)
	file := filepath.Join(dir, "go.mod")
	return file, errors.Join(os.WriteFile(file, mod, 0o644), os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644))
}

// versionFlags returns the linker flags that put the commit into
// internal/version. They follow from the commit alone, and from whether the
// tree differs from it, never from the time of the build.
func versionFlags(ctx context.Context) (string, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = append(os.Environ(), "TZ=UTC")
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--verify", "HEAD")
	if err != nil {
		return "", nil // a source archive: internal/version says "unknown"
	}
	date, err := git("log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ")
	if err != nil {
		return "", fmt.Errorf("date of commit %s: %w", commit, err)
	}
	changes, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return "", fmt.Errorf("state of the tree: %w", err)
	}
	state := "clean"
	if changes != "" {
		state = "dirty"
	}
	const pkg = "hansa.dev/hansa/internal/version."
	return fmt.Sprintf("-X %[1]sgitCommit=%[2]s -X %[1]sgitTreeState=%[3]s -X %[1]sbuildDate=%[4]s", pkg, commit, state, date), nil
}

// concatenate writes the parts one after the other to an executable at out,
// which is complete when it appears and may be running meanwhile.
func concatenate(out string, parts ...string) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return 0, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".hansa-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	defer tmp.Close()
	var size int64
	for _, part := range parts {
		f, err := os.Open(part)
		if err != nil {
			return 0, err
		}
		n, err := io.Copy(tmp, f)
		f.Close()
		if err != nil {
			return 0, err
		}
		size += n
	}
	if err := tmp.Chmod(0o755); err != nil {
		return 0, err
	}
	if err := tmp.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(tmp.Name(), out)
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "build: "+format+"\n", args...)
}
