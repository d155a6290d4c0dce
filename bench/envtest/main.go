// Command envtest measures the control plane of operators' tests: how long
// controller-runtime's envtest takes to start etcd and the API, by itself, and to
// stop them. The program that it runs for that is a part of examples/operator,
// which has controller-runtime.
//
//	envtest_ready  from the call of Start to its return, median of -n
//	envtest_stop   from the call of Stop to its return, median of -n
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"hansa.dev/hansa/bench/internal/rig"
)

var starts = flag.Int("n", 10, "`number` of starts")

func main() {
	rig.Main(rig.Program{
		Doc: "envtest measures how long envtest takes to start and to stop a control plane on Hansa.",
		Run: run,
	})
}

func run(ctx context.Context, r *rig.Rig) (err error) {
	dir, err := os.MkdirTemp("", "hansa-envtest-")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
	}()
	if out, err := exec.CommandContext(ctx, r.Binary, "envtest", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("lay out envtest: %w: %s", err, out)
	}
	program := filepath.Join(dir, "startstop")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./startstop")
	build.Dir, build.Stderr = filepath.Join("examples", "operator"), os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the program that starts envtest: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, "-n", fmt.Sprint(*starts))
	cmd.Env, cmd.Stderr = append(os.Environ(), "KUBEBUILDER_ASSETS="+dir), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("start envtest: %w", err)
	}
	var ready, stop []time.Duration
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var a, b string
		if _, err := fmt.Sscan(lines.Text(), &a, &b); err != nil {
			return fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		for _, f := range []struct {
			text string
			to   *[]time.Duration
		}{{a, &ready}, {b, &stop}} {
			d, err := time.ParseDuration(f.text)
			if err != nil {
				return err
			}
			*f.to = append(*f.to, d)
		}
	}
	r.Spread("envtest_ready", ready)
	r.Spread("envtest_stop", stop)
	return nil
}
