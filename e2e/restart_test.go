package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A restart of Hansa, in order or not, finds every container as it was.
//
//lint:long one story: what stands before, the restarts, what stands after
func TestRestartAdopts(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("restart"))
	s := newSpace(t, c)
	s.server("server", "server", "")
	v := s.service("server", "type: NodePort, selector: {app: server}, ports: [{port: 80, targetPort: web}]")
	s.create("counter", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done"]}
`)
	s.create("restarted", `
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "test -e /work/seen && exec sleep 1000; touch /work/seen; exit 3"]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	s.create("ends", endsWith5)
	s.create("dies", strings.TrimPrefix(sleeper, "\n"))
	s.output("done", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [echo, before]}
`)
	for _, name := range []string{"counter", "ends", "dies"} {
		s.ready(name)
	}
	s.until("restarted", "it was restarted", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	running := []string{"server", "counter", "restarted"}
	url := fmt.Sprintf("http://%s:%d/", nodeIP, v.Spec.Ports[0].NodePort)
	s.answers(fetchFromOutside, url, "server\n")

	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		before := s.histories(running)
		if err := c.stop(how); err != nil {
			t.Fatal(err)
		}
		s.sameProcesses(before)
		// What is served goes on being served.
		s.answers(fetchFromOutside, url, "server\n")
		if err := c.up(); err != nil {
			t.Fatal(err)
		}
		after := s.histories(running)
		if !maps.Equal(before, after) {
			t.Errorf("after %s:\n%v\nbefore:\n%v", how, after, before)
		}
		s.countsOn("counter")
		if got := s.exec("counter", "echo", "there"); got != "there\n" {
			t.Errorf("exec: %q", got)
		}
		if got := s.logs("done", ""); got != "before\n" {
			t.Errorf("log of a pod that ended before: %q", got)
		}
		s.answers(fetchFromOutside, url, "server\n")
		s.create("new-"+fmt.Sprint(int(how)), strings.TrimPrefix(sleeper, "\n"))
		s.ready("new-" + fmt.Sprint(int(how)))
	}

	// What happens while nobody looks is found out afterwards.
	dies := s.processOf(s.ready("dies"), "main")
	end := s.ender("ends")
	if err := c.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := killHard(dies); err != nil {
		t.Fatal(err)
	}
	end()
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	if p := s.finished("ends"); p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 5 {
		t.Errorf("state %+v", p.Status.ContainerStatuses[0].State)
	}
	s.until("dies", "it was restarted", func(p *corev1.Pod) bool {
		c := p.Status.ContainerStatuses[0]
		return c.RestartCount == 1 && c.Ready && c.LastTerminationState.Terminated.ExitCode == 137
	})
}

// endsWith5 is a pod that its ender ends.
const endsWith5 = `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 5"]}
`

// ender returns what ends the container of an endsWith5 while nobody else looks:
// without the API, the node or the runtime.
func (s *space) ender(name string) func() {
	s.t.Helper()
	s.exec(name, "touch", "/tmp/hold")
	pid, err := s.podProcess(name)
	if err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.t.Helper()
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", pid), nil, 0o644); err != nil {
			s.t.Fatal(err)
		}
		await(s.t, "the container has ended", func() error {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/tmp", pid)); err == nil {
				return fmt.Errorf("process %d is there", pid)
			}
			return nil
		})
	}
}

// history is what must not change of a pod's container.
type history struct {
	pod, container, started, address string
	restarts                         int32
	process                          int
}

func (s *space) histories(names []string) map[string]history {
	s.t.Helper()
	out := map[string]history{}
	for _, name := range names {
		p := s.ready(name)
		c := p.Status.ContainerStatuses[0]
		out[name] = history{
			pod: string(p.UID), container: c.ContainerID, started: c.State.Running.StartedAt.String(), address: p.Status.PodIP,
			restarts: c.RestartCount, process: s.processOf(p, "main"),
		}
	}
	return out
}

// sameProcesses looks on the machine, not at the API.
func (s *space) sameProcesses(before map[string]history) {
	s.t.Helper()
	for name, h := range before {
		if pid, err := processInGroup(strings.TrimPrefix(h.container, "containerd://")); err != nil || pid != h.process {
			s.t.Errorf("process of %s is %d (%v), was %d", name, pid, err, h.process)
		}
	}
}

// podProcess is the process of a pod's container main.
func (s *space) podProcess(name string) (int, error) {
	p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	return processInGroup(strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://"))
}

// countsOn checks that a log of numbers has all of them, and awaits the next.
func (s *space) countsOn(name string) {
	s.t.Helper()
	read := func() int {
		lines := strings.Split(strings.TrimSpace(s.logs(name, "")), "\n")
		for i, l := range lines {
			if l != fmt.Sprint(i) {
				s.t.Fatalf("line %d of the log is %q", i, l)
			}
		}
		return len(lines)
	}
	first := read()
	await(s.t, "the log goes on", func() error {
		if n := read(); n <= first {
			return fmt.Errorf("it has %d lines", n)
		}
		return nil
	})
}

// containerd is supervised: when it dies, containers go on and it comes back,
// and knows how those ended that did while it heard nothing.
func TestContainerdDies(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("runtime"))
	s := newSpace(t, c)
	s.create("p", strings.TrimPrefix(sleeper, "\n"))
	s.create("ends", endsWith5)
	s.ready("p")
	s.ready("ends")
	before := s.histories([]string{"p"})
	end := s.ender("ends")
	was := c.readiness(t)
	daemons := c.processesOf("containerd")
	if len(daemons) != 1 {
		t.Fatalf("there are %d containerd", len(daemons))
	}
	if err := syscall.Kill(daemons[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	end()
	if err := killHard(daemons[0]); err != nil {
		t.Fatal(err)
	}
	c.nodeEvent(t, "ContainerRuntimeDied", "Containers run on")
	await(t, "another containerd runs", func() error {
		if now := c.processesOf("containerd"); len(now) != 1 || now[0] == daemons[0] {
			return fmt.Errorf("there are %v", now)
		}
		return nil
	})
	c.nodeEvent(t, "ContainerRuntimeStarted", "The container runtime serves again after ")
	if p := s.finished("ends"); p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 5 {
		t.Errorf("how a container ended meanwhile: %+v", p.Status.ContainerStatuses[0].State)
	}
	s.create("q", strings.TrimPrefix(sleeper, "\n"))
	s.ready("q")
	if now := c.readiness(t); now != was {
		t.Errorf("the node's readiness changed for a moment: %+v, it was %+v", now, was)
	}
	if after := s.histories([]string{"p"}); !maps.Equal(before, after) {
		t.Errorf("after:\n%v\nbefore:\n%v", after, before)
	}
	await(t, "exec works", func() error {
		out, _, err := s.execIn("p", "main", "echo", "there")
		if err == nil && out != "there\n" {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
}

// readiness is the node's condition Ready, without the time when it was looked at.
func (c *cluster) readiness(t testing.TB) corev1.NodeCondition {
	t.Helper()
	n, err := c.client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			condition.LastHeartbeatTime = metav1.Time{}
			return condition
		}
	}
	return corev1.NodeCondition{}
}

// processesOf are the processes of a carried program of the cluster.
func (c *cluster) processesOf(program string) []int {
	var found []int
	files, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil
	}
	for _, f := range files {
		target, err := os.Readlink(f)
		if err != nil || !strings.HasPrefix(target, c.dir+"/") || filepath.Base(target) != program {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(f, "/proc/%d/exe", &pid); err == nil {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found
}

// One acknowledged write after another, and kill -9: all of them are there.
func TestKillLosesNothing(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("kill"))
	for round := range 3 {
		acknowledged := 0
		done := make(chan struct{})
		enough := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r%d-%d", round, n)}}
				if _, err := c.client.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
					return
				}
				if acknowledged = n + 1; acknowledged == 50 {
					close(enough)
				}
			}
		}()
		<-enough
		if err := c.stop(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-done
		if err := c.up(); err != nil {
			t.Fatal(err)
		}
		for n := range acknowledged {
			if _, err := c.client.CoreV1().ConfigMaps("default").Get(t.Context(), fmt.Sprintf("r%d-%d", round, n), metav1.GetOptions{}); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
}

// A follower of a log and a shell end when Hansa does, instead of hanging.
func TestRestartEndsStreams(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("streams"))
	s := newSpace(t, c)
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo up; exec sleep 1000"]}
`)
	s.ready("p")
	log, err := c.client.CoreV1().Pods(s.name).GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(&out, log)
		ended <- err
	}()
	if err := c.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
	if out.String() != "up\n" {
		t.Errorf("the follower got %q", out.String())
	}
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
}
