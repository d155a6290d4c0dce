package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKubectl runs the scripts of testdata/kubectl with the carried kubectl.
// A script is commands ("$ "), lines for their standard input ("> ") and what
// they print; `go test -update` rewrites the latter. Both outputs are shown,
// and the exit status unless it is 0. A script has a namespace of its own, which
// it calls NAMESPACE.
func TestKubectl(t *testing.T) {
	bin := kubectlAs(t, carriedKubectl())
	scripts, err := filepath.Glob("testdata/kubectl/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := newScript(t, bin)
			golden(t, "kubectl/"+filepath.Base(file), s.runFile(file))
		})
	}
}

// TestKubectlVersions runs one script with the carried kubectl, those of the
// minor versions before and after it (of which there is a beta), and Debian's of
// 2020: what they know works ("Version Skew Policy"; nothing that an old client
// sends may be misunderstood). Each has its own output, in testdata/kubectls;
// what is a difference there is kubectl's.
func TestKubectlVersions(t *testing.T) {
	others, err := filepath.Abs("../.cache/kubectls/current")
	if err != nil {
		t.Fatal(err)
	}
	other := func(version string) string {
		path := filepath.Join(others, "kubectl-"+version)
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v: go run ./hack/build -kubectls makes it", err)
		}
		return fmt.Sprintf("KUBECONFIG=%s/kubeconfig exec %s", shared.dir, path)
	}
	for version, kubectl := range map[string]string{"1.20": other("1.20"), "1.36": other("1.36"), "1.37": carriedKubectl(), "1.38": other("1.38")} {
		bin := kubectlAs(t, kubectl)
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newScript(t, bin)
			golden(t, "kubectls/"+version+".txt", s.runFile("testdata/kubectls/script.txt"))
		})
	}
}

// carriedKubectl is how a shell runs the kubectl that hansa carries.
func carriedKubectl() string {
	return fmt.Sprintf("exec %s kubectl --data-dir %s", binary, shared.dir)
}

// kubectlAs is a folder whose kubectl is a command of a shell. Make it while
// nothing is started: a process that begins meanwhile has the file open for
// writing, too, and such a file cannot be run ("text file busy").
func kubectlAs(t *testing.T, command string) string {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte("#!/bin/sh\n"+command+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

// newScript prepares a namespace, complete, for a script whose kubectl is in the
// folder bin.
func newScript(t *testing.T, bin string) *script {
	t.Helper()
	s := &script{t: t, bin: bin, ns: namespace(t), dir: t.TempDir()}
	eventually(t, "the namespace is complete", func() bool {
		return !gone(t, "configmaps", s.ns, "kube-root-ca.crt") && !gone(t, "serviceaccounts", s.ns, "default")
	})
	return s
}

type script struct {
	t            *testing.T
	bin, ns, dir string
}

// runFile runs the script in a file.
func (s *script) runFile(path string) string {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.run(string(data))
}

// run runs the script and writes it anew with what its commands print.
func (s *script) run(text string) string {
	var out strings.Builder
	var command string
	var input []string
	flush := func() {
		if command != "" {
			out.WriteString(s.step(command, strings.Join(input, "\n")))
		}
		command, input = "", nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "# "):
			flush()
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "$ "):
			flush()
			command = line[2:]
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "> "), line == ">":
			input = append(input, strings.TrimPrefix(line[1:], " "))
			fmt.Fprintln(&out, line)
		}
	}
	flush()
	return out.String()
}

func (s *script) step(command, input string) string {
	cmd := shared.hansa(s.t.Context(), []string{"NAMESPACE=" + s.ns, "KUBECTL_NAMESPACE=" + s.ns, "LC_ALL=C", "TMPDIR=" + s.dir}, "unused")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "exec 2>&1; " + strings.ReplaceAll(command, "kubectl ", "kubectl -n $NAMESPACE ")}
	cmd.Env = append(cmd.Env, "PATH="+s.bin+":"+os.Getenv("PATH"))
	cmd.Dir = s.dir
	cmd.Stdin = strings.NewReader(input + "\n")
	r := shared.finish(s.t, cmd)
	out := steady(r.out, s.ns, "NAMESPACE", s.dir, "DIR", shared.address.String(), "ADDRESS")
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	if r.code != 0 {
		out += fmt.Sprintf("[exit status %d]\n", r.code)
	}
	return out
}
