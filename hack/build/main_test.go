package main

import (
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes a file and the folders above it.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConcatenate(t *testing.T) {
	dir := t.TempDir()
	x, y, out := filepath.Join(dir, "x"), filepath.Join(dir, "y"), filepath.Join(dir, "bin", "out")
	write(t, x, "linked")
	write(t, y, "+bundle")
	write(t, out, "an older one")
	size, err := concatenate(out, x, y)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil || string(data) != "linked+bundle" || size != int64(len(data)) {
		t.Errorf("wrote %q, size %d, error %v", data, size, err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if _, err := concatenate(out, x, filepath.Join(dir, "absent")); err == nil {
		t.Error("a missing part gave no error")
	}
	if list, err := os.ReadDir(filepath.Join(dir, "bin")); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

// The hash of a tree follows names and content, and not the tests in it.
func TestHashTree(t *testing.T) {
	t.Chdir(t.TempDir())
	sum := func() string {
		h := sha256.New()
		if err := hashTree(h, "carried"); err != nil {
			t.Fatal(err)
		}
		return string(h.Sum(nil))
	}
	write(t, "carried/go.mod", "v1")
	write(t, "carried/a/main.go", "x")
	first := sum()
	write(t, "carried/a/main_test.go", "test")
	if sum() != first {
		t.Error("a test changed the hash")
	}
	write(t, "carried/go.mod", "v2")
	second := sum()
	if second == first {
		t.Error("another version, and the same hash")
	}
	if err := os.Rename("carried/a", "carried/b"); err != nil {
		t.Fatal(err)
	}
	if sum() == second {
		t.Error("another name, and the same hash")
	}
}

// A path of the table must exist, else a program is left out of the cache key
// and of the bundle.
func TestProgramsAreThere(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range slices.Concat(programs(), kubectls().programs, clients().programs) {
		if seen[p.name] {
			t.Errorf("%s is there twice", p.name)
		}
		seen[p.name] = true
		if !strings.Contains(strings.Join(p.argv, " "), "%OUT%") {
			t.Errorf("%s is built to nowhere: %q", p.name, p.argv)
		}
		if local, ok := strings.CutPrefix(p.argv[len(p.argv)-1], "./"); ok {
			if _, err := os.Stat(filepath.Join("..", "..", "carried", local)); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "kubectl", "hansa-cni", "pause", "kubectl-1.36", "kubectl-1.38", "kubectl-1.20", "helm-3", "helm-4", "kube-state-metrics", "prometheus"} {
		if !seen[name] {
			t.Errorf("%s is not carried", name)
		}
	}
}

// patchedProgram builds a program of one file with a patch.
func patchedProgram(t *testing.T, name, source string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module x\ngo 1.26\n")
	write(t, filepath.Join(dir, "main.go"), source)
	over, err := overlays(t.Context(), dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(over, name+".json"), "-o", program, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// Templates call the methods that are named and no other, and look at fields as ever.
func TestTemplatesPatch(t *testing.T) {
	program := patchedProgram(t, "templates", `package main

import (
	"os"
	"text/template"
)

type command struct{ Field string }

func (command) UseLine() string { return "called" }
func (command) Unnamed() string { return "called" }

func main() {
	err := template.Must(template.New("").Parse(os.Args[1])).Execute(os.Stdout, command{"seen"})
	if err != nil {
		os.Stdout.WriteString(err.Error())
	}
}
`)
	for text, want := range map[string]string{"{{.UseLine}} {{.Field}}": "called seen", "{{.Unnamed}}": "can't evaluate field Unnamed"} {
		out, err := exec.CommandContext(t.Context(), program, text).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, error %v; want %q", text, out, err, want)
		}
	}
}

// Memory is given back after something was allocated, and not again without that.
func TestMemoryPatch(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), patchedProgram(t, "memory", `package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

var sink []byte

func collections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumGC
}

func main() {
	for range 2 {
		sink = make([]byte, 1<<20)
		for range 3 {
			before := collections()
			debug.FreeOSMemory()
			fmt.Print(collections() > before, " ")
		}
	}
}
`)).Output()
	if want := "true false false true false false "; err != nil || string(out) != want {
		t.Errorf("collected %q, error %v; want %q", out, err, want)
	}
}

// A change of the standard library is seen.
func TestPatchesApply(t *testing.T) {
	for _, p := range patches {
		if _, err := p.apply("another way"); err == nil {
			t.Errorf("%s: nothing was replaced, and no error", p.file)
		}
	}
}

func TestVersionFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	if flags, err := versionFlags(t.Context()); err != nil || flags != "" {
		t.Errorf("outside of a repository: %q, %v", flags, err)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-02-03T05:06:07+01:00",
			"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	git("init", "-q")
	write(t, "file", "one")
	git("add", "file")
	git("commit", "-q", "-m", "one")
	for content, state := range map[string]string{"one": "clean", "two": "dirty"} {
		write(t, "file", content)
		flags, err := versionFlags(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"gitTreeState=" + state, "buildDate=2026-02-03T04:06:07Z", "gitCommit="} {
			if !strings.Contains(flags, "internal/version."+want) {
				t.Errorf("%s: flags %q lack %s", state, flags, want)
			}
		}
	}
}

// Two holders of the lock exclude each other; closing frees it.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("flock", "--nonblock", path, "true").Run(); err == nil {
		t.Error("a second holder got the lock")
	}
	unlock()
	if err := exec.Command("flock", "--nonblock", path, "true").Run(); err != nil {
		t.Errorf("the lock is not free again: %v", err)
	}
}
