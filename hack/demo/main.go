// Command demo shows a whole cluster at work, as `make demo` runs it after
// building: nginx in front of a Go backend (examples/web), scaled, updated
// three times under load without a failed request, healed after a killed
// process, and taken down without a trace.
//
// Everything happens in a temporary data directory and in the root network
// namespace, so it needs root and free ports. -keep leaves the cluster up and
// prints how to use it. Whatever fails or is interrupted is taken down too.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"hansa.dev/hansa/internal/ocibuild"
)

func main() {
	keep := flag.Bool("keep", false, "leave the cluster running")
	binary := flag.String("hansa", "bin/hansa", "`path` of the binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

// demo is one run: a cluster and what was found out about it.
type demo struct {
	*cluster
	node   string            // address of the node
	start  time.Time         // of the run
	images map[string]string // files by image name
}

const (
	nodePort = "30080"
	// pace is what the load asks for; least is what has to come through for
	// the result to mean anything. Requests a second.
	pace, least = 400, 200
)

func run(ctx context.Context, binary string, keep bool) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a cluster makes namespaces, mounts and links: run make demo as root")
	}
	c, err := newCluster(binary)
	if err != nil {
		return err
	}
	d := &demo{cluster: c, start: time.Now()}
	defer func() {
		if keep && err == nil {
			fmt.Print(d.explanation())
			return
		}
		// Also after Ctrl-C: taking down has a context of its own.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		} else if err != nil {
			fmt.Fprintf(os.Stderr, "\nlast lines of the cluster's log:\n%s\n", c.logTail(30))
		}
		if downErr := d.step(down, "take everything down", d.takeDown); downErr != nil {
			err = errors.Join(err, downErr)
		}
		if err == nil {
			fmt.Printf("\ndone in %.1fs\n", time.Since(d.start).Seconds())
		}
	}()
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"build the images", d.buildImages},
		{"start a cluster", d.startCluster},
		{"import the images", d.importImages},
		{"apply examples/web", d.apply},
		{"ask nginx through the NodePort", d.ask},
		{"scale the backend from 2 to 5", d.scale},
		{"three rolling updates under load", d.roll},
		{"kill a backend process", d.kill},
	} {
		if err := d.step(ctx, s.name, s.do); err != nil {
			return err
		}
	}
	return nil
}

// step runs one step and shows its name, what it found and its time.
func (d *demo) step(ctx context.Context, name string, do func(context.Context) error) error {
	fmt.Printf("\n%s\n", name)
	start := time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("  %.1fs\n", time.Since(start).Seconds())
	return nil
}

// say shows a line of the running step.
func say(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) }

func (d *demo) buildImages(ctx context.Context) error {
	b, err := ocibuild.New(ctx)
	if err != nil {
		return err
	}
	d.images = map[string]string{}
	for name, spec := range ocibuild.Catalogue() {
		if name == ocibuild.Busybox {
			continue
		}
		if d.images[name], err = b.Build(ctx, name, spec); err != nil {
			return err
		}
	}
	say("%s", strings.Join(slices.Sorted(maps.Keys(d.images)), " "))
	return nil
}

func (d *demo) startCluster(ctx context.Context) error {
	line, err := d.up(ctx)
	if err != nil {
		return err
	}
	say("%s", line)
	d.node, err = d.kubectl(ctx, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	return err
}

func (d *demo) importImages(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.images)) {
		if _, err := d.hansa(ctx, "image", "import", "--data-dir", d.dir, d.images[name]); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) apply(ctx context.Context) error {
	out, err := d.kubectl(ctx, "apply", "-f", filepath.Join("examples", "web", "manifests"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		say("%s", strings.TrimSpace(line))
	}
	return d.rolledOut(ctx, "backend", "web")
}

// rolledOut waits until the Deployments are what they are to be.
func (d *demo) rolledOut(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := d.kubectl(ctx, "rollout", "status", "deployment/"+name, "--timeout=2m"); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) address() string { return d.node + ":" + nodePort }

// ask waits for the first answer and shows it.
func (d *demo) ask(ctx context.Context) error {
	var body string
	err := poll(ctx, 30*time.Second, "an answer from "+d.address(), func() (err error) {
		body, err = get(ctx, d.address())
		return err
	})
	if err != nil {
		return err
	}
	say("GET http://%s/: %s", d.address(), strings.TrimSpace(body))
	return nil
}

func (d *demo) scale(ctx context.Context) error {
	if _, err := d.kubectl(ctx, "scale", "deployment/backend", "--replicas=5"); err != nil {
		return err
	}
	if err := d.rolledOut(ctx, "backend"); err != nil {
		return err
	}
	seen := map[string]bool{}
	err := poll(ctx, 30*time.Second, "answers from 5 pods", func() error {
		body, err := get(ctx, d.address())
		if err != nil {
			return err
		}
		if host, ok := answeredBy(body); ok {
			seen[host] = true
		}
		if len(seen) < 5 {
			return fmt.Errorf("%d have answered", len(seen))
		}
		return nil
	})
	if err != nil {
		return err
	}
	say("answers come from %s", strings.Join(slices.Sorted(maps.Keys(seen)), " "))
	return nil
}

// roll updates the backend version by version while the load goes on. The load
// ends only when the last old pod is gone: how a pod leaves is the point.
func (d *demo) roll(ctx context.Context) error {
	load := startLoad(ctx, d.address(), pace)
	defer load.stop()
	for version := 2; version <= ocibuild.Backends; version++ {
		start := time.Now()
		if _, err := d.kubectl(ctx, "set", "image", "deployment/backend", "backend="+ocibuild.Backend(version)); err != nil {
			return err
		}
		if err := d.rolledOut(ctx, "backend"); err != nil {
			return err
		}
		if err := d.podsLeft(ctx, 5); err != nil {
			return err
		}
		say("version %d everywhere after %.1fs", version, time.Since(start).Seconds())
	}
	result := load.stop()
	for line := range strings.Lines(result.String()) {
		say("%s", strings.TrimRight(line, "\n"))
	}
	return result.verdict(least, ocibuild.Backends)
}

// podsLeft waits until the backend has n pods, those on their way out counted.
func (d *demo) podsLeft(ctx context.Context, n int) error {
	return poll(ctx, time.Minute, fmt.Sprintf("%d backend pods", n), func() error {
		out, err := d.kubectl(ctx, "get", "pods", "-l", "app=backend", "-o", "name")
		if err != nil {
			return err
		}
		if got := len(strings.Fields(out)); got != n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// kill ends a backend's process behind the cluster's back and waits until its
// container runs and answers again.
func (d *demo) kill(ctx context.Context) error {
	out, err := d.kubectl(ctx, "get", "pods", "-l", "app=backend", "-o",
		"jsonpath={.items[0].metadata.name} {.items[0].status.containerStatuses[0].containerID}")
	if err != nil {
		return err
	}
	pod, id, ok := strings.Cut(out, " ")
	_, id, ok2 := strings.Cut(id, "://")
	if !ok || !ok2 {
		return fmt.Errorf("no container in %q", out)
	}
	pid, err := processOf(id)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	say("killed process %d of pod %s", pid, pod)
	err = poll(ctx, time.Minute, "pod "+pod+" to heal", func() error {
		out, err := d.kubectl(ctx, "get", "pod", pod, "-o",
			"jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		if err == nil && out != "1 true" {
			err = fmt.Errorf("restarts and readiness are %q", out)
		}
		return err
	})
	if err != nil {
		return err
	}
	say("restarted and ready after %.1fs", time.Since(start).Seconds())
	return nil
}

// explanation says how to use the cluster that stays.
func (d *demo) explanation() string {
	return fmt.Sprintf(`
The cluster stays up (process %[1]d, log %[2]s):

  export HANSA_DATA_DIR=%[3]s
  %[4]s kubectl get pods -o wide
  %[4]s status
  curl http://%[5]s/

Take it down with

  %[4]s down --purge && rm -r %[6]s
`, d.process.Process.Pid, d.log, d.dir, d.binary, d.address(), filepath.Dir(d.dir))
}

// processOf finds the process of a container by its cgroup.
func processOf(container string) (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(data, []byte(container)) {
			continue // also a process that ended meanwhile
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/cgroup", &pid); err != nil {
			return 0, err
		}
		return pid, nil
	}
	return 0, fmt.Errorf("no process is in container %s", container)
}

// poll tries until try succeeds, at most for the time given; the error then is
// the last one.
func poll(ctx context.Context, limit time.Duration, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %w", limit, what, err)
		case <-tick.C:
		}
	}
}
