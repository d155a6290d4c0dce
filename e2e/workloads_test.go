package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWorkloads is about the loops, as far as real containers tell more of
// them than their own tests do.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"a Deployment rolls without a failed request", rollout},
		{"a Deployment is undone", undo},
		{"a ReplicaSet heals", heals},
		{"a Job completes", jobCompletes},
		{"a Job fails", jobFails},
		{"a namespace goes with all that is in it", namespaceGoes},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// deployment is one of the test image whose templates differ by a word. A server
// that is told to end goes on for a while: callers hear of it when it does.
func deployment(name, word string, replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: hansa.local/testimage:1
        args: [serve, -drain=3s]
        env: [{name: WORD, value: %[2]s}]
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1}
`, name, word, replicas)
}

func rollout(s *space) {
	s.apply(deployment("web", "one", 3))
	v := s.service("web", "type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: web}]")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	url := fmt.Sprintf("http://%s:%d/", nodeIP, v.Spec.Ports[0].NodePort)
	s.answers(fetchWord(fetchFromOutside), url+"word", "one")

	ctx, cancel := context.WithCancel(s.t.Context())
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	for _, keepAlive := range []bool{false, true} {
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: !keepAlive,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialWithin(ctx, outsideNS, network, address)
			},
		}}
		load.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for ; ctx.Err() == nil; <-pace.C {
				if _, err := answerOf(client.Get(url)); err != nil {
					failed.Add(1)
					s.t.Errorf("keep-alive %t, request %d: %v", keepAlive, asked.Load(), err)
				}
				asked.Add(1)
			}
		})
	}
	s.kubectl("set", "env", "deployment/web", "WORD=two")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	cancel()
	load.Wait()
	s.answers(fetchWord(fetchFromOutside), url+"word", "two")
	if asked.Load() < 100 || failed.Load() > 0 {
		s.t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
}

// fetchWord trims what is answered.
func fetchWord(f func(string) (string, error)) func(string) (string, error) {
	return func(url string) (string, error) {
		got, err := f(url)
		return strings.TrimSpace(got), err
	}
}

func undo(s *space) {
	word := func() string {
		return s.kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}")
	}
	s.apply(deployment("web", "one", 1))
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.apply(deployment("web", "two", 1))
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	if got := s.kubectl("rollout", "history", "deployment/web"); !strings.Contains(got, "\n1 ") || !strings.Contains(got, "\n2 ") {
		s.t.Errorf("history:\n%s", got)
	}
	s.kubectl("rollout", "undo", "deployment/web")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	if got := word(); got != "one" {
		s.t.Errorf("undone: %q", got)
	}
	// A rollout that cannot succeed leaves what works alone.
	s.kubectl("set", "image", "deployment/web", "main=hansa.local/none:1")
	await(s.t, "the new pod cannot start", func() error {
		got := s.kubectl("get", "pods", "-l", "app=web")
		if !strings.Contains(got, "ErrImagePull") && !strings.Contains(got, "ImagePullBackOff") {
			return errors.New(got)
		}
		return nil
	})
	if got := s.kubectl("get", "deployment", "web", "-o", "jsonpath={.status.availableReplicas}"); got != "1" {
		s.t.Errorf("available: %s", got)
	}
	s.kubectl("rollout", "undo", "deployment/web")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
}

// podsOf are the ready pods of an app, by name.
func (s *space) podsOf(app string) map[string]corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]corev1.Pod{}
	for _, p := range list.Items {
		if condition(&p, corev1.PodReady) == corev1.ConditionTrue && p.DeletionTimestamp == nil {
			out[p.Name] = p
		}
	}
	return out
}

func heals(s *space) {
	s.apply(deployment("web", "one", 2))
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	before := s.podsOf("web")
	var victim, killed string
	for name := range before {
		victim, killed = killed, name
	}
	s.kubectl("delete", "pod", victim, "--wait=false")
	await(s.t, "another pod is in its place", func() error {
		now := s.podsOf("web")
		if _, there := now[victim]; there || len(now) != 2 {
			return fmt.Errorf("there are %d", len(now))
		}
		return nil
	})
	// The process of the other one dies; its container is started again.
	p := before[killed]
	pid := s.processOf(&p, "main")
	if err := killHard(pid); err != nil {
		s.t.Fatal(err)
	}
	s.until(killed, "its container was started again", func(p *corev1.Pod) bool {
		c := p.Status.ContainerStatuses[0]
		return c.RestartCount == 1 && c.Ready && c.LastTerminationState.Terminated != nil && c.LastTerminationState.Terminated.ExitCode == 137
	})
	s.kubectl("scale", "deployment/web", "--replicas=4")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.kubectl("scale", "deployment/web", "--replicas=1")
	await(s.t, "one is left", func() error {
		if n := len(s.podsOf("web")); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}

// processOf is the process of a container on the machine.
func (s *space) processOf(p *corev1.Pod, container string) int {
	s.t.Helper()
	for _, c := range p.Status.ContainerStatuses {
		if c.Name != container {
			continue
		}
		id := strings.TrimPrefix(c.ContainerID, "containerd://")
		if pid, err := processInGroup(id); err == nil {
			return pid
		}
	}
	s.t.Fatalf("container %s of pod %s has no process", container, p.Name)
	return 0
}

// processInGroup finds the oldest process in a control group of that name.
func processInGroup(name string) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	first := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || first > 0 && pid > first {
			continue
		}
		groups, err := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		if err == nil && strings.Contains(string(groups), "/"+name) {
			first = pid
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("no process is in a control group %s", name)
	}
	return first, nil
}

// killHard ends a process at once.
func killHard(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

func jobCompletes(s *space) {
	s.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo part $JOB_COMPLETION_INDEX"]}
`)
	s.kubectl("wait", "--for=condition=complete", "job/work", "--timeout=120s")
	var out strings.Builder
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=work"})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range list.Items {
		out.WriteString(s.logs(p.Name, "main"))
	}
	for i := range 3 {
		if part := fmt.Sprintf("part %d\n", i); strings.Count(out.String(), part) != 1 {
			s.t.Errorf("%q is not once in %q", part, out.String())
		}
	}
	if got := s.kubectl("get", "job", "work", "--no-headers"); !strings.Contains(got, "Complete") || !strings.Contains(got, "3/3") {
		s.t.Errorf("kubectl get: %s", got)
	}
	s.kubectl("delete", "job", "work")
	await(s.t, "its pods go with it", func() error {
		if got := s.kubectl("get", "pods", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

func jobFails(s *space) {
	s.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sh, -c, "exit 3"]}
`)
	s.kubectl("wait", "--for=condition=failed", "job/work", "--timeout=120s")
	if got := s.kubectl("get", "job", "work", "-o", "jsonpath={.status.conditions[?(@.type=='Failed')].reason}"); got != "BackoffLimitExceeded" {
		s.t.Errorf("reason %q", got)
	}
}

func namespaceGoes(s *space) {
	inner := s.name + "-inner"
	s.kubectl("create", "namespace", inner)
	in := &space{cluster: s.cluster, t: s.t, name: inner}
	in.apply(deployment("web", "one", 1) + `
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
`)
	in.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.kubectl("delete", "namespace", inner, "--timeout=120s")
	if out, err := s.cluster.kubectl("-n", inner, "get", "pods,configmaps,deployments,serviceaccounts", "-o", "name"); out != "" {
		s.t.Errorf("left: %s, %v", out, err)
	}
}
