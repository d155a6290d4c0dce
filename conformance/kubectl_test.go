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
	bin := t.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s kubectl --data-dir %s \"$@\"\n", binary, shared.dir)
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("testdata/kubectl/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := &script{t: t, bin: bin, ns: namespace(t), dir: t.TempDir()}
			eventually(t, "the namespace is complete", func() bool {
				return !gone(t, "configmaps", s.ns, "kube-root-ca.crt") && !gone(t, "serviceaccounts", s.ns, "default")
			})
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "kubectl/"+filepath.Base(file), s.run(string(data)))
		})
	}
}

type script struct {
	t            *testing.T
	bin, ns, dir string
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
