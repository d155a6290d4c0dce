package cri_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Help is made by templates that call methods, and the carried programs have only
// the methods that are known to be called so (hack/build/patches.go).
func TestHelpOfCarriedPrograms(t *testing.T) {
	for _, c := range []struct {
		command string
		wants   []string
	}{
		{"containerd --help", []string{"containerd - \n", "COMMANDS:\n", "config ", "GLOBAL OPTIONS:\n", "--log-level"}},
		{"containerd config --help", []string{"USAGE:\n", "COMMANDS:\n", "dump "}},
		{"runc --help", []string{"runc - Open Container Initiative runtime\n", "COMMANDS:\n", "create ", "GLOBAL OPTIONS:\n"}},
		{"runc run --help", []string{"run - create and run a container\n", "OPTIONS:\n", "--bundle"}},
		{"kubectl --help", []string{"Basic Commands (Beginner):\n", "\n  create ", "\nUsage:\n  kubectl [flags] [options]\n", `Use "kubectl options"`}},
		{"kubectl get --help", []string{"Examples:\n", "Options:\n", "--all-namespaces=false", "Usage:\n  kubectl get "}},
		{"kubectl api-resources --help", []string{"Options:\n", "--namespaced=true"}},
		{"kubectl options", []string{"The following options can be passed to any command:\n", "--kubeconfig=''"}},
		{"kubectl config view -o go-template={{.kind}}", []string{"Config"}},
	} {
		args := strings.Fields(c.command)
		out, err := exec.CommandContext(t.Context(), filepath.Join(binDir(t), args[0]), args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.command, err, out)
		}
		for _, want := range c.wants {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in\n%s", c.command, want, out)
			}
		}
	}
}
