package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What is printed is there to be copied into a shell.
func TestExplanation(t *testing.T) {
	d := &demo{node: "192.0.2.1", cluster: &cluster{
		binary: "/b/hansa", dir: "/tmp/hansa-demo-1/data", log: "/tmp/hansa-demo-1/hansa.log",
		process: &exec.Cmd{Process: &os.Process{Pid: 42}},
	}}
	got := d.explanation()
	for _, want := range []string{
		"(process 42, log /tmp/hansa-demo-1/hansa.log)", "export HANSA_DATA_DIR=/tmp/hansa-demo-1/data\n",
		"  /b/hansa status\n", "  curl http://192.0.2.1:30080/\n", "  /b/hansa down --purge && rm -r /tmp/hansa-demo-1\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}
