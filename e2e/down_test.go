package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// busyCluster starts a cluster with a bit of everything that leaves traces on a
// host, in the namespace default, which nobody tidies up.
func busyCluster(t *testing.T, name string) (*cluster, *space) {
	t.Helper()
	c := newCluster(name)
	forgotten = append(forgotten, c.id())
	started(t, c)
	s := &space{cluster: c, t: t, name: "default"}
	await(t, "the default service account", func() error {
		_, err := c.kubectl("get", "serviceaccount", "default")
		return err
	})
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=value")
	s.apply(deployment("web", "one", 2))
	s.service("web", "type: NodePort, sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: web}]")
	s.create("p", `
shareProcessNamespace: true
volumes:
- {name: secret, secret: {secretName: secret}}
- {name: memory, emptyDir: {medium: Memory}}
- {name: work, emptyDir: {}}
initContainers:
- {name: make, image: hansa.local/busybox:1, command: [mkdir, -p, /work/sub], volumeMounts: [{name: work, mountPath: /work}]}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap '' TERM; sleep 1000 & while :; do wait; done"]
  resources: {limits: {cpu: 100m, memory: 32Mi}}
  ports: [{containerPort: 80, hostPort: 18282}]
  volumeMounts: [{name: secret, mountPath: /secret}, {name: memory, mountPath: /memory}, {name: work, mountPath: /work, subPath: sub}]
`)
	s.create("host", "hostNetwork: true\n"+strings.TrimPrefix(sleeper, "\n"))
	s.create("crashes", `
containers:
- {name: main, image: hansa.local/busybox:1, command: ["false"]}
`)
	for _, name := range []string{"p", "host"} {
		s.ready(name)
	}
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	return c, s
}

func TestTakenDown(t *testing.T) {
	if !alone(t) {
		return
	}
	before := takeSnapshot(t)
	c, s := busyCluster(t, "down")
	old := s.ready("p")
	running := takeSnapshot(t)
	for _, kind := range []string{"links", "routes", "ruleset", "mounts", "processes", "groups", "/run"} {
		if len(running.differences(before)) == 0 || strings.Join(running[kind], "\n") == strings.Join(before[kind], "\n") {
			t.Errorf("a running cluster does not show among the %s: the comparison proves nothing", kind)
		}
	}
	// Down stops the daemon too. Two at once do not disturb each other.
	other := make(chan error, 1)
	go func() {
		_, err := c.hansa("down", "--data-dir", c.dir)
		other <- err
	}()
	if _, err := c.hansa("down", "--data-dir", c.dir); err != nil {
		t.Fatal(err)
	}
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	if err := <-c.ended; err != nil {
		t.Errorf("hansa up ended with %v", err)
	}
	c.process = nil
	takeSnapshot(t).same(t, before, c.dir)
	if _, err := os.Stat(c.dir); err != nil {
		t.Errorf("the data: %v", err)
	}
	if _, err := c.hansa("down", "--data-dir", c.dir); err != nil {
		t.Errorf("taken down a second time: %v", err)
	}

	// The same cluster comes back, with new containers for what it knows.
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	s.until("p", "another container runs", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].ContainerID != old.Status.ContainerStatuses[0].ContainerID
	})
	if got := s.exec("p", "cat", "/secret/key"); got != "value" {
		t.Errorf("its secret is %q", got)
	}
	if err := c.purge(); err != nil {
		t.Fatal(err)
	}
	takeSnapshot(t).same(t, before, "")
}

// Ctrl-C in the middle of a start ends it without complaint, and killing it
// leaves nothing that down does not find. What is there by then is told by the
// files that come one after the other.
func TestInterruptedStart(t *testing.T) {
	if !alone(t) {
		return
	}
	before := takeSnapshot(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		for _, stage := range []string{"lock", "etcd", "bin", "containerd/config.toml", "logs/containerd.log", "pki", "kubeconfig", "cni/attached"} {
			c := newCluster("interrupted")
			forgotten = append(forgotten, c.id())
			var out, errOut bytes.Buffer
			cmd := c.program("up", "--data-dir", c.dir)
			cmd.Stdout, cmd.Stderr = &out, &errOut
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, stage+" is there", func() error {
				_, err := os.Stat(filepath.Join(c.dir, stage))
				return err
			})
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); signal == syscall.SIGINT && (err != nil || errOut.Len() > 0) {
				t.Errorf("interrupted when %s was there: %v\n%s", stage, err, errOut.Bytes())
			}
			if _, err := c.hansa("down", "--data-dir", c.dir, "--purge"); err != nil {
				t.Errorf("%s when %s was there: %v", signal, stage, err)
			}
			takeSnapshot(t).same(t, before, "")
			if t.Failed() {
				t.Fatalf("after %s when %s was there", signal, stage)
			}
		}
	}
}

func TestTakenDownAfterCrash(t *testing.T) {
	if !alone(t) {
		return
	}
	before := takeSnapshot(t)
	c, _ := busyCluster(t, "crash")
	if err := c.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Everything that works from the data directory dies: containerd, shims.
	// What they ran is left to itself.
	files, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, f := range files {
		var pid int
		if target, err := os.Readlink(f); err != nil || !strings.HasPrefix(target, c.dir+"/bin/") {
			continue
		}
		if _, err := fmt.Sscanf(f, "/proc/%d/exe", &pid); err != nil {
			continue
		}
		if err := killHard(pid); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed < 3 {
		t.Errorf("only %d processes were there to be killed", killed)
	}
	if _, err := c.hansa("down", "--data-dir", c.dir); err != nil {
		t.Fatal(err)
	}
	takeSnapshot(t).same(t, before, c.dir)
	if err := c.purge(); err != nil {
		t.Fatal(err)
	}
	takeSnapshot(t).same(t, before, "")
}
