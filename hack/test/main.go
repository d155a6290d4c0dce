// Command test runs the tests in stages and says how long each took.
//
//	go run ./hack/test              every stage, as `make test` does
//	go run ./hack/test unit race    the stages named
//
// A stage fails with the first kind of: a test fails, a package does not build,
// a test skips itself (what is skipped is not tested, and here everything can
// run). The remaining stages run all the same, unless what they need was not
// built. It must run as root on Linux: tests make links, mounts and containers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stage is one step of the whole run.
type stage struct {
	name string
	// needs is a folder: without it there is nothing to run yet.
	needs string
	// command builds something; a stage has either a command or test arguments.
	command []string
	// dir is where the tests run, the root of a module.
	dir string
	// assets lays out what envtest runs, and tells the tests where.
	assets bool
	// args are those of `go test`.
	args []string
	// packages are patterns of `go list`; those in or under a folder of except
	// stay out. Patterns of folders that are not there are dropped.
	packages []string
	except   []string
}

// stages in their order: what fails fast first.
var stages = []stage{
	{name: "unit", packages: []string{"./..."}, except: []string{"conformance", "e2e", "runtime/cri"}, args: []string{"-timeout=10m"}},
	{name: "carried", dir: "carried", packages: []string{"./containerd/ends", "./hansa-cni", "./kubectl", "./pause"}},
	{name: "race", packages: []string{"./store/...", "./apiserver/...", "./client/...", "./controller/...", "./agent/work"}, args: []string{"-race", "-timeout=15m"}},
	{name: "build", needs: "cmd/hansa", command: []string{"go", "run", "./hack/build"}},
	{name: "kubectls", needs: "conformance/kubectls", command: []string{"go", "run", "./hack/build", "-kubectls"}},
	{name: "clients", needs: "conformance/clients", command: []string{"go", "run", "./hack/build", "-clients"}},
	// What was built is no input that go test knows of, so nothing is cached.
	{name: "runtime", needs: "runtime/cri", packages: []string{"./runtime/cri"}, args: []string{"-count=1", "-timeout=10m"}},
	{name: "conformance", needs: "conformance", packages: []string{"./conformance/..."}, args: []string{"-count=1", "-timeout=20m"}},
	{name: "operator", needs: "examples/operator", dir: "examples/operator", packages: []string{"./..."}, args: []string{"-count=1", "-timeout=5m"}, assets: true},
	{name: "e2e", needs: "e2e", packages: []string{"./e2e/..."}, args: []string{"-count=1", "-timeout=25m"}},
}

// afterBuild are the stages that test bin/hansa and the programs it carries.
var afterBuild = []string{"runtime", "conformance", "operator", "e2e"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		stop()
		os.Exit(1)
	}
}

// outcome is what the closing table shows of a stage.
type outcome struct {
	name string
	took time.Duration
	tally
	err error
}

func run(ctx context.Context, names []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the tests make links, mounts and containers: run them as root")
	}
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	var done []outcome
	built := true
	for _, s := range chosen {
		if !built && slices.Contains(afterBuild, s.name) {
			done = append(done, outcome{name: s.name, err: fmt.Errorf("not run: the build failed")})
			continue
		}
		if _, err := os.Stat(s.needs); s.needs != "" && err != nil {
			fmt.Printf("stage %s: there is no %s, nothing to run\n", s.name, s.needs)
			continue
		}
		fmt.Printf("stage %s\n", s.name)
		start := time.Now()
		o := outcome{name: s.name}
		o.tally, o.err = s.run(ctx)
		o.took = time.Since(start)
		fmt.Printf("stage %s: %.1fs\n", s.name, o.took.Seconds())
		if s.command != nil && o.err != nil {
			built = false
		}
		done = append(done, o)
	}
	return report(done)
}

// choose returns the stages named, all when none is. The order stays ours.
func choose(names []string) ([]stage, error) {
	if len(names) == 0 {
		return stages, nil
	}
	var chosen, known = []stage(nil), []string(nil)
	for _, s := range stages {
		known = append(known, s.name)
		if slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no stage %q, only %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// run runs the stage and returns the tally of its tests. The error says what
// is wrong with the stage as a whole.
func (s stage) run(ctx context.Context) (tally, error) {
	if s.command != nil {
		cmd := exec.CommandContext(ctx, s.command[0], s.command[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return tally{}, cmd.Run()
	}
	packages, err := s.list(ctx)
	if err != nil {
		return tally{}, err
	}
	if len(packages) == 0 {
		return tally{}, fmt.Errorf("there are no packages in %s", strings.Join(s.packages, " "))
	}
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-json"}, s.args, packages)...)
	cmd.Dir = s.dir
	cmd.Stderr = os.Stderr
	if s.assets {
		if cmd.Env, err = envtest(ctx); err != nil {
			return tally{}, err
		}
	}
	events, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}
	if err := cmd.Start(); err != nil {
		return tally{}, fmt.Errorf("run go test: %w", err)
	}
	counted, readErr := follow(events, os.Stdout)
	// Wait comes after the last event: it closes the pipe. A failed test makes
	// its error, and is told by the tally already.
	err = cmd.Wait()
	switch {
	case readErr != nil:
		return counted, readErr
	case counted.passed+counted.failed == 0 && err == nil:
		return counted, errors.New("no test ran")
	case counted.failed > 0:
		return counted, fmt.Errorf("%d failed", counted.failed)
	case err != nil:
		return counted, fmt.Errorf("go test: %w", err)
	case len(counted.skipped) > 0:
		return counted, fmt.Errorf("skipped, and nothing may skip: %s", strings.Join(counted.skipped, ", "))
	}
	return counted, nil
}

// envtest lays out the programs that envtest runs, and gives the environment in
// which it finds them.
func envtest(ctx context.Context) ([]string, error) {
	dir, err := filepath.Abs(filepath.Join(".cache", "envtest"))
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "bin/hansa", "envtest", dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lay out envtest: %w: %s", err, out)
	}
	// As images and bin/hansa are built, so that nothing is compiled twice.
	return append(os.Environ(), "KUBEBUILDER_ASSETS="+dir, "CGO_ENABLED=0"), nil
}

// list resolves the stage's patterns to packages.
func (s stage) list(ctx context.Context) ([]string, error) {
	var patterns []string
	for _, p := range s.packages {
		folder := strings.TrimSuffix(p, "/...")
		if _, err := os.Stat(filepath.Join(s.dir, folder)); err == nil {
			patterns = append(patterns, p)
		}
	}
	if s.dir != "" || len(patterns) == 0 {
		return patterns, nil
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"list"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	const module = "hansa.dev/hansa/"
	return slices.DeleteFunc(strings.Fields(string(out)), func(path string) bool {
		folder := strings.TrimPrefix(path, module) + "/"
		return slices.ContainsFunc(s.except, func(except string) bool { return strings.HasPrefix(folder, except+"/") })
	}), nil
}

// report prints the closing table and the one line that counts all tests.
func report(done []outcome) error {
	var all tally
	var failures []string
	fmt.Println()
	for _, o := range done {
		verdict := "ok"
		if o.err != nil {
			verdict = o.err.Error()
			failures = append(failures, o.name)
		}
		fmt.Printf("%-12s %7.1fs  %s\n", o.name, o.took.Seconds(), verdict)
		all.passed += o.passed
		all.failed += o.failed
		all.skipped = append(all.skipped, o.skipped...)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", all.passed, all.failed, len(all.skipped))
	if len(failures) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failures, ", "))
	}
	return nil
}
