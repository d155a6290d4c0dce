package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// handlers are the ways to probe, and what an event says when they fail.
var handlers = []struct{ name, yaml, failure string }{
	{"exec", `exec: {command: [/testimage, check, "http://127.0.0.1:8080/healthz"]}`, "testimage: 503 Service Unavailable"},
	{"HTTP", `httpGet: {path: /healthz, port: web}`, "HTTP probe failed with statuscode: 503"},
	{"TCP", `tcpSocket: {port: 7000}`, "connect: connection refused"},
	{"gRPC", `grpc: {port: 9000}`, "service unhealthy (responded with \"NOT_SERVING\")"},
}

// probeRows are all handlers with all kinds of probes.
func probeRows() []row {
	kinds := []struct {
		name  string
		check func(s *space, handler, failure string)
	}{{"liveness", liveness}, {"readiness", readiness}, {"startup", startup}}
	rows := []row{{"probes, startup never succeeding", startupFails}, {"probes, their own grace, again and again", probeGrace}, {"probes, delay, timeout, thresholds, and none without need", probeSettings}, {"probes, headers and redirects", probeHeaders}}
	for _, h := range handlers {
		for _, k := range kinds {
			rows = append(rows, row{h.name + " probe, " + k.name, func(s *space) { k.check(s, h.yaml, h.failure) }})
		}
	}
	return rows
}

// probed is a server with a probe; args are the server's. Liveness, where one
// failure is enough, is asked once the server listens.
func (s *space) probed(kind, handler, args string) {
	s.t.Helper()
	s.create("p", fmt.Sprintf(`
terminationGracePeriodSeconds: 30
containers:
- name: main
  image: hansa.local/testimage:1
  args: [serve%s]
  ports: [{name: web, containerPort: 8080}]
%s
  %s: {%s, periodSeconds: 1, failureThreshold: %d, timeoutSeconds: 5}
`, args, map[bool]string{true: "  startupProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1, failureThreshold: 1000}"}[kind == "livenessProbe"],
		kind, handler, map[string]int{"livenessProbe": 1, "readinessProbe": 1, "startupProbe": 1000}[kind]))
}

// turn tells the server to seem sick or healthy.
func (s *space) turn(p *corev1.Pod, to string) {
	s.t.Helper()
	await(s.t, "the server hears that it is "+to, func() error {
		answer, err := http.Post("http://"+p.Status.PodIP+":8080/"+to, "", nil)
		if err == nil {
			err = answer.Body.Close()
		}
		return err
	})
}

func liveness(s *space, handler, failure string) {
	s.probed("livenessProbe", handler, "")
	s.turn(s.ready("p"), "sick")
	p := s.until("p", "it is started again", func(p *corev1.Pod) bool {
		c := p.Status.ContainerStatuses[0]
		return c.RestartCount >= 1 && c.State.Running != nil
	})
	if e := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode != 0 || e.Reason != "Completed" {
		s.t.Errorf("how the first run ended: %+v", p.Status.ContainerStatuses[0].LastTerminationState)
	}
	s.event("p", "Warning Unhealthy: Liveness probe failed: ")
	s.event("p", failure)
	s.event("p", "Normal Killing: Container main failed liveness probe, will be restarted")
}

func readiness(s *space, handler, failure string) {
	s.probed("readinessProbe", handler, "")
	p := s.ready("p")
	s.turn(p, "sick")
	s.until("p", "it is not ready", func(p *corev1.Pod) bool {
		c := conditionOf(p, corev1.PodReady)
		return c.Status == corev1.ConditionFalse && c.Reason == "ContainersNotReady" && c.Message == "containers with unready status: [main]"
	})
	s.event("p", "Warning Unhealthy: Readiness probe failed: ")
	s.event("p", failure)
	s.turn(p, "healthy")
	if p := s.ready("p"); p.Status.ContainerStatuses[0].RestartCount != 0 {
		s.t.Error("it was restarted")
	}
}

func startup(s *space, handler, failure string) {
	s.probed("startupProbe", handler, ", -sick")
	p := s.until("p", "it runs", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	s.event("p", "Warning Unhealthy: Startup probe failed: ")
	s.event("p", failure)
	if c := p.Status.ContainerStatuses[0]; c.Started == nil || *c.Started || c.Ready {
		s.t.Errorf("before it has started: %+v", c)
	}
	s.turn(p, "healthy")
	p = s.ready("p")
	if c := p.Status.ContainerStatuses[0]; c.Started == nil || !*c.Started || c.RestartCount != 0 {
		s.t.Errorf("after it has started: %+v", c)
	}
}

// A startup probe that fails too often ends the container; until it has
// succeeded the other probes wait.
func startupFails(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- name: main
  image: hansa.local/testimage:1
  args: [serve, -sick]
  startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
  livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
`)
	p := s.finished("p")
	if got := s.logs("p", "main"); p.Status.Phase != corev1.PodSucceeded || !strings.Contains(got, "caught terminated") {
		s.t.Errorf("phase %s, log %q", p.Status.Phase, got)
	}
	s.event("p", "Normal Killing: Container main failed startup probe")
	for _, e := range s.events("p") {
		if strings.Contains(e, "Liveness") {
			s.t.Errorf("liveness was probed before the start: %s", e)
		}
		if strings.Contains(e, "will be restarted") {
			s.t.Errorf("it never is: %s", e)
		}
	}
}

// The grace period of a probe goes before the pod's.
func probeGrace(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 3600
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]
  livenessProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1}
`)
	for restarts := range int32(2) {
		p := s.until("p", "it is started again", func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount > restarts
		})
		c := p.Status.ContainerStatuses[0]
		if e := c.LastTerminationState.Terminated; c.RestartCount != restarts+1 || e == nil || e.ExitCode != 137 {
			s.t.Errorf("after %d restarts: %+v", restarts, c)
		}
	}
	s.kubectl("delete", "pod", "p", "--grace-period=1", "--wait=false")
}

// What the fields of a probe say ("Configure Liveness, Readiness and Startup
// Probes").
func probeSettings(s *space) {
	for name, probe := range map[string]string{
		"passes":   `livenessProbe: {exec: {command: [sh, -c, "echo asked >> /tmp/asked"]}, periodSeconds: 1, failureThreshold: 1}`,
		"delayed":  `readinessProbe: {exec: {command: ["true"]}, initialDelaySeconds: 3}`,
		"slow":     `readinessProbe: {exec: {command: [sleep, "1000"]}, periodSeconds: 1, timeoutSeconds: 2}`,
		"repeated": `readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1, successThreshold: 4}`,
	} {
		s.create(name, strings.TrimSuffix(sleeper, "}\n")+", "+probe+"}\n")
	}
	for _, name := range []string{"delayed", "repeated"} { // both times have whole seconds
		p := s.ready(name)
		if after := conditionOf(p, corev1.PodReady).LastTransitionTime.Sub(startOf(p)); after < 3*time.Second {
			s.t.Errorf("%s: ready %s after the start", name, after)
		}
	}
	s.event("slow", `Warning Unhealthy: Readiness probe failed: command timed out: "sleep 1000" timed out after 2s`)
	was := s.ready("passes").Status.ContainerStatuses[0]
	await(s.t, "a healthy container is asked several times", func() error {
		if n := strings.Count(s.exec("passes", "cat", "/tmp/asked"), "asked\n"); n < 4 {
			return fmt.Errorf("it was %d times", n)
		}
		return nil
	})
	if c := s.ready("passes").Status.ContainerStatuses[0]; c.RestartCount != 0 || c.ContainerID != was.ContainerID {
		s.t.Errorf("a container whose probes succeed: %+v", c)
	}
}

// A probe carries its headers; one that is sent elsewhere succeeds with a warning.
func probeHeaders(s *space) {
	s.create("p", `
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "while :; do printf 'HTTP/1.1 302 Found\\r\\nLocation: http://192.0.2.1/\\r\\nContent-Length: 0\\r\\n\\r\\n' | nc -l -p 8080 > /asked; cp /asked /seen; done"]
  readinessProbe: {httpGet: {path: /x, port: 8080, httpHeaders: [{name: X-Own, value: word}]}, periodSeconds: 1}
`)
	s.ready("p")
	s.event("p", "Warning ProbeWarning: Readiness probe warning: Probe terminated redirects")
	await(s.t, "the request is seen", func() error {
		out, _, err := s.execIn("p", "main", "cat", "/seen")
		if err == nil && !(strings.Contains(out, "GET /x HTTP/1.1") && strings.Contains(out, "X-Own: word") && strings.Contains(out, "User-Agent: kube-probe/1.37")) {
			err = errors.New(out)
		}
		return err
	})
}
