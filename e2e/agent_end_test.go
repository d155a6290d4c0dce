package e2e

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

var endRows = []row{
	{"lifecycle hooks, postStart", postStart},
	{"lifecycle hooks, postStart failing", postStartFails},
	{"lifecycle hooks, postStart over HTTP, any answer", postStartHTTP},
	{"lifecycle hooks, sleep", sleepHook},
	{"lifecycle hooks, preStop", preStop},
	{"lifecycle hooks, preStop sleep, within the grace", preStopSleeps},
	{"lifecycle hooks, preStop failing", preStopFails},
	{"lifecycle hooks, preStop over HTTP", preStopHTTP},
	{"termination grace, used", graceUsed},
	{"termination grace, exceeded", graceExceeded},
	{"termination without grace", noGrace},
	{"active deadline", activeDeadline},
	{"active deadline, set on a pod that runs", deadlineSet},
}

func postStart(s *space) {
	s.create("p", `
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "exec sleep 1000"]
  volumeMounts: [{name: work, mountPath: /work}]
  lifecycle: {postStart: {exec: {command: [sh, -c, "sleep 1; echo done > /work/hook"]}}}
`)
	// A container counts as running once its hook has returned.
	s.until("p", "it runs", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	if got := s.exec("p", "cat", "/work/hook"); got != "done\n" {
		s.t.Errorf("got %q", got)
	}
}

func postStartFails(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  lifecycle: {postStart: {exec: {command: [sh, -c, "echo no; exit 5"]}}}
`)
	p := s.finished("p")
	if p.Status.Phase != corev1.PodFailed {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
	s.event("p", "Warning FailedPostStartHook: PostStartHook failed")
}

// What a server answers to a hook is its own affair.
func postStartHTTP(s *space) {
	s.create("server", `
containers:
- name: main
  image: hansa.local/testimage:1
  readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`)
	s.create("calls", fmt.Sprintf(`
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  lifecycle: {postStart: {httpGet: {path: /hook, host: %q, port: 8080}}}
`, s.ready("server").Status.PodIP))
	s.ready("calls")
	if got := s.logs("server", "main"); strings.Count(got, "hook called") != 1 {
		s.t.Errorf("the server's log: %s", got)
	}
	s.create("p", `
containers:
- name: main
  image: hansa.local/testimage:1
  lifecycle: {postStart: {httpGet: {path: /fail, host: `+nodeIP+`, port: 6443, scheme: HTTPS}}}
`)
	if p := s.ready("p"); p.Status.ContainerStatuses[0].RestartCount != 0 {
		s.t.Errorf("it was restarted: %v", s.events("p"))
	}
}

func sleepHook(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 5
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"], lifecycle: {postStart: {sleep: {seconds: 2}}}}
`)
	c := conditionOf(s.ready("p"), corev1.PodReady)
	if p := s.ready("p"); c.LastTransitionTime.Sub(p.Status.ContainerStatuses[0].State.Running.StartedAt.Time) < time.Second {
		s.t.Errorf("ready at %s, started at %s", c.LastTransitionTime, p.Status.ContainerStatuses[0].State.Running.StartedAt)
	}
}

func preStopFails(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 600
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done"]
  lifecycle: {preStop: {exec: {command: [/none]}}}
`)
	s.ready("p")
	// The container is stopped all the same.
	if l := s.end("p", metav1.DeleteOptions{}); l.exit() != 4 {
		s.t.Errorf("exit code %d", l.exit())
	}
	s.event("p", "Warning FailedPreStopHook: PreStopHook failed")
}

// last follows a pod to its end: its log, and the status that it had when it
// was removed.
type last struct {
	log    []byte
	status corev1.PodStatus
}

// end deletes a pod that has logged something and follows it.
func (s *space) end(name string, o metav1.DeleteOptions) last {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	pods := s.client.CoreV1().Pods(s.name)
	log, err := pods.GetLogs(name, &corev1.PodLogOptions{Container: "main", Follow: true}).Stream(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Stop()
	if err := pods.Delete(ctx, name, o); err != nil {
		s.t.Fatal(err)
	}
	var l last
	if l.log, err = io.ReadAll(log); err != nil {
		s.t.Errorf("log of %s: %v", name, err)
	}
	for e := range w.ResultChan() {
		if p, ok := e.Object.(*corev1.Pod); ok {
			l.status = p.Status
		}
		if e.Type == watch.Deleted {
			return l
		}
	}
	s.t.Fatalf("pod %s is not gone after %s", name, patience)
	return l
}

// exit is the exit code of the first container, -1 when it has not ended.
func (l last) exit() int32 {
	if len(l.status.ContainerStatuses) == 0 || l.status.ContainerStatuses[0].State.Terminated == nil {
		return -1
	}
	return l.status.ContainerStatuses[0].State.Terminated.ExitCode
}

func preStop(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 60
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap 'echo signal; exit 4' TERM; echo up; while :; do sleep 0.1; done"]
  lifecycle: {preStop: {exec: {command: [sh, -c, "sleep 1; echo hook > /proc/1/fd/1"]}}}
`)
	s.ready("p")
	if l := s.end("p", metav1.DeleteOptions{}); string(l.log) != "up\nhook\nsignal\n" || l.exit() != 4 {
		s.t.Errorf("log %q, exit code %d", l.log, l.exit())
	}
}

// The signal comes when the hook has slept, or when there is no grace left to
// sleep in (documentation, "Container Lifecycle Hooks").
func preStopSleeps(s *space) {
	grace := map[string]string{"sleeps": "60", "cut": "2"}
	for name, seconds := range map[string]int{"sleeps": 2, "cut": 600} {
		s.create(name, fmt.Sprintf(`
terminationGracePeriodSeconds: 600
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap 'echo signal; exit 4' TERM; while :; do sleep 0.1; done"]
  lifecycle: {preStop: {sleep: {seconds: %d}}}
`, seconds))
	}
	for name := range grace {
		s.ready(name)
		s.exec(name, "sh", "-c", "echo deleted > /proc/1/fd/1")
		s.kubectl("delete", "pod", name, "--wait=false", "--grace-period="+grace[name])
	}
	for name := range grace {
		got := s.stamped(name)
		if len(got) != 2 || got[0].line != "deleted" || got[1].line != "signal" || got[1].at.Sub(got[0].at) < 2*time.Second {
			s.t.Errorf("%s: its log is %v", name, got)
		}
	}
}

func preStopHTTP(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 60
containers:
- name: main
  image: hansa.local/testimage:1
  ports: [{name: web, containerPort: 8080}]
  readinessProbe: {tcpSocket: {port: web}, periodSeconds: 1}
  lifecycle: {preStop: {httpGet: {path: /hook, port: web}}}
`)
	s.ready("p")
	l := s.end("p", metav1.DeleteOptions{})
	hook, signal := strings.Index(string(l.log), "hook called"), strings.Index(string(l.log), "caught terminated")
	if hook < 0 || signal < hook || l.exit() != 0 {
		s.t.Errorf("log %q, exit code %d", l.log, l.exit())
	}
}

func graceUsed(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 600
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "trap 'sleep 1; exit 7' TERM; echo up; while :; do sleep 0.1; done"]}
`)
	s.ready("p")
	// It is gone when it has ended, not when its time is over.
	if l := s.end("p", metav1.DeleteOptions{}); l.exit() != 7 || l.status.Phase != corev1.PodFailed {
		s.t.Errorf("exit code %d, phase %s", l.exit(), l.status.Phase)
	}
}

func graceExceeded(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 600
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "trap 'echo ignored' TERM; echo up; while :; do sleep 0.1; done"]}
`)
	s.ready("p")
	grace := int64(2)
	began := time.Now()
	l := s.end("p", metav1.DeleteOptions{GracePeriodSeconds: &grace})
	if string(l.log) != "up\nignored\n" || l.exit() != 137 {
		s.t.Errorf("log %q, exit code %d", l.log, l.exit())
	}
	if took := time.Since(began); took < 2*time.Second {
		s.t.Errorf("it had %s of 2 s", took)
	}
}

func noGrace(s *space) {
	s.create("p", `
terminationGracePeriodSeconds: 600
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.ready("p")
	s.kubectl("delete", "pod", "p", "--force", "--grace-period=0")
	s.gone("p")
}

func activeDeadline(s *space) {
	s.create("p", `
activeDeadlineSeconds: 2
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.passesDeadline()
}

// A deadline that comes late counts from the pod's start as well, and may be made
// shorter.
func deadlineSet(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	s.kubectl("patch", "pod", "p", "-p", `{"spec":{"activeDeadlineSeconds":1000}}`)
	s.kubectl("patch", "pod", "p", "-p", `{"spec":{"activeDeadlineSeconds":2}}`)
	s.passesDeadline()
}

func (s *space) passesDeadline() {
	s.t.Helper()
	// It is over when its containers are.
	p := s.until("p", "its phase or reason changes", func(p *corev1.Pod) bool {
		return p.Status.Reason != "" || p.Status.Phase == corev1.PodFailed
	})
	s.event("p", "Normal DeadlineExceeded: Pod was active on the node longer than the specified deadline")
	if c := p.Status.ContainerStatuses[0]; c.State.Running != nil {
		s.t.Errorf("the container: %+v", c.State)
	}
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "DeadlineExceeded" || p.Status.Message != "Pod was active on the node longer than the specified deadline" {
		s.t.Errorf("phase %s, reason %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
}
