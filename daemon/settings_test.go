package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/agent/settings"
)

// protectKernelDefaults, failSwapOn and failCgroupV1 refuse a machine and say
// what to do.
func TestCheckNode(t *testing.T) {
	proc := t.TempDir()
	file := func(name, text string) {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 100 0 -2\n")
	for name, v := range kernelDefaults {
		file("sys/"+name, v+"\n")
	}
	check := func(field, want string) {
		t.Helper()
		s, err := settings.Parse(map[string]any{field: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = checkNode(s, proc, "v1")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", field, err, want)
		}
	}
	check("seccompDefault", "")
	check("failCgroupV1", "control groups of version 1")
	check("failSwapOn", "swaps to /dev/sda2, and failSwapOn of the node's configuration refuses that: swapoff -a")
	check("protectKernelDefaults", "")
	file("swaps", "Filename Type Size Used Priority\n")
	check("failSwapOn", "")
	file("sys/vm/overcommit_memory", "0\n")
	check("protectKernelDefaults", "sysctl -w vm.overcommit_memory=1 (is 0)")
}
