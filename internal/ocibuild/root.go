package ocibuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// programs builds the spec's programs into dir and returns the files by their
// path in the image.
func (b *Builder) programs(ctx context.Context, spec Spec, dir string) (map[string]string, error) {
	built := map[string]string{}
	for i, path := range slices.Sorted(maps.Keys(spec.Programs)) {
		p := spec.Programs[path]
		file := filepath.Join(dir, fmt.Sprint(i))
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+p.LDFlags, "-o", file, p.Package)
		cmd.Dir = filepath.Join(b.Root, p.Dir)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := run(cmd); err != nil {
			return nil, fmt.Errorf("build %s: %w", p.Package, err)
		}
		built[path] = file
	}
	return built, nil
}

// populate makes the image's root file system at root.
func (b *Builder) populate(ctx context.Context, root string, spec Spec, programs map[string]string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if len(spec.Packages) > 0 {
		if err := b.unpackPackages(ctx, root, spec.Packages); err != nil {
			return err
		}
	}
	for path, file := range programs {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(root, path), data, 0o755); err != nil {
			return err
		}
	}
	for path, f := range spec.Files {
		mode := f.Mode
		if mode == 0 {
			mode = 0o644
		}
		if err := writeFile(filepath.Join(root, path), []byte(f.Content), mode); err != nil {
			return err
		}
	}
	for path, mode := range spec.Dirs {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			return err
		}
		// Set apart from making it: the umask must not take part.
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			return err
		}
	}
	if spec.Applets != "" {
		return linkApplets(ctx, root, spec.Applets)
	}
	return nil
}

func writeFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// unpackPackages fetches the packages with all that they depend on and unpacks
// them into root.
func (b *Builder) unpackPackages(ctx context.Context, root string, packages []string) error {
	archives, err := os.MkdirTemp(b.Cache, "work-debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(archives)
	if err := os.Mkdir(filepath.Join(archives, "partial"), 0o755); err != nil {
		return err
	}
	// A list of what is installed that is empty: apt then takes nothing for
	// granted, libc neither, and the host's own packages are not looked at.
	status := filepath.Join(archives, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return err
	}
	fetch := func() error {
		args := append([]string{"install", "--yes", "--quiet=2", "--no-install-recommends", "--download-only",
			"-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + archives + "/",
			"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"}, packages...)
		return run(exec.CommandContext(ctx, "apt-get", args...))
	}
	if err := fetch(); err != nil {
		// The index is missing, or older than what the archive has now.
		if err := run(exec.CommandContext(ctx, "apt-get", "update", "--quiet=2")); err != nil {
			return fmt.Errorf("fetch the package index: %w", err)
		}
		if err := fetch(); err != nil {
			return fmt.Errorf("fetch packages %s: %w", strings.Join(packages, " "), err)
		}
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := run(exec.CommandContext(ctx, "dpkg-deb", "--extract", deb, root)); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

// linkApplets makes a link to the program at path for each of its names.
func linkApplets(ctx context.Context, root, path string) error {
	out, err := exec.CommandContext(ctx, filepath.Join(root, path), "--list").Output()
	if err != nil {
		return fmt.Errorf("list the applets of %s: %w", path, err)
	}
	dir := filepath.Join(root, filepath.Dir(path))
	for _, applet := range strings.Fields(string(out)) {
		err := os.Symlink(filepath.Base(path), filepath.Join(dir, applet))
		if err != nil && !errors.Is(err, fs.ErrExist) { // its own name is one of them
			return err
		}
	}
	return nil
}

// run runs a command whose output matters only when it fails.
func run(cmd *exec.Cmd) error {
	// Whoever is killed leaves its temporary folders.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
