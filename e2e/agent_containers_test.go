package e2e

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var containerRows = []row{
	{"init containers, in order", initOrder},
	{"init containers, failing for good", initFails},
	{"init containers, tried again", initRetried},
	{"init containers, failing again and again", initCrashLoops},
	{"init containers that go on beside the others", sidecar},
	{"native sidecars: restarted alone, their probes", sidecarsAlone},
	{"several containers", severalContainers},
	{"several containers with one process space", oneProcessSpace},
	{"ephemeral containers", ephemeral},
}

func initOrder(s *space) {
	s.create("p", `
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
initContainers:
- {name: first, image: hansa.local/busybox:1, command: [sh, -c, "sleep 1; echo first >> /work/log"], volumeMounts: [{name: work, mountPath: /work}]}
- {name: second, image: hansa.local/busybox:1, command: [sh, -c, "sleep 1; echo second >> /work/log"], volumeMounts: [{name: work, mountPath: /work}]}
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /work/log], volumeMounts: [{name: work, mountPath: /work}]}
`)
	p := s.until("p", "the second init container runs", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 2 && p.Status.InitContainerStatuses[1].State.Running != nil
	})
	if p.Status.Phase != corev1.PodPending {
		s.t.Errorf("phase %s while it initializes", p.Status.Phase)
	}
	first, main := p.Status.InitContainerStatuses[0], p.Status.ContainerStatuses[0]
	if e := first.State.Terminated; e == nil || e.ExitCode != 0 || e.Reason != "Completed" || !first.Ready {
		s.t.Errorf("first init container: %+v", first)
	}
	if w := main.State.Waiting; w == nil || w.Reason != "PodInitializing" {
		s.t.Errorf("main container: %+v", main.State)
	}
	c := conditionOf(p, corev1.PodInitialized)
	if c.Status != corev1.ConditionFalse || c.Reason != "ContainersNotInitialized" || c.Message != "containers with incomplete status: [second]" {
		s.t.Errorf("condition: %+v", c)
	}
	s.finished("p")
	if got := s.logs("p", "main"); got != "first\nsecond\n" {
		s.t.Errorf("order: %q", got)
	}
}

func initFails(s *space) {
	s.create("p", `
restartPolicy: Never
initContainers:
- {name: first, image: hansa.local/busybox:1, command: [sh, -c, "exit 3"]}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	p := s.finished("p")
	if p.Status.Phase != corev1.PodFailed {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
	if e := p.Status.InitContainerStatuses[0].State.Terminated; e == nil || e.ExitCode != 3 || e.Reason != "Error" {
		s.t.Errorf("init container: %+v", p.Status.InitContainerStatuses[0].State)
	}
	if started := p.Status.ContainerStatuses[0].State; started.Running != nil || started.Terminated != nil && started.Terminated.ContainerID != "" {
		s.t.Errorf("the main container ran: %+v", started)
	}
	if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "Init:Error") {
		s.t.Errorf("kubectl get: %s", got)
	}
}

func initRetried(s *space) {
	s.create("p", `
restartPolicy: OnFailure
volumes: [{name: work, emptyDir: {}}]
initContainers:
- name: first
  image: hansa.local/busybox:1
  command: [sh, -c, "test -e /work/seen && exit 0; touch /work/seen; exit 1"]
  volumeMounts: [{name: work, mountPath: /work}]
containers:
- {name: main, image: hansa.local/busybox:1, command: ["true"]}
`)
	p := s.finished("p")
	first := p.Status.InitContainerStatuses[0]
	if p.Status.Phase != corev1.PodSucceeded || first.RestartCount != 1 || first.LastTerminationState.Terminated == nil || first.LastTerminationState.Terminated.ExitCode != 1 {
		s.t.Errorf("phase %s, init container %+v", p.Status.Phase, first)
	}
}

// Nothing comes after an init container that fails, however often it is tried
// (documentation, "Init Containers").
func initCrashLoops(s *space) {
	s.create("p", `
restartPolicy: Always
initContainers:
- {name: first, image: hansa.local/busybox:1, command: ["false"]}
- {name: second, image: hansa.local/busybox:1, command: ["true"]}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	var count int32
	backsOff := func(p *corev1.Pod) bool {
		c := p.Status.InitContainerStatuses
		return len(c) == 2 && c[0].RestartCount > count && c[0].State.Waiting != nil && c[0].State.Waiting.Reason == "CrashLoopBackOff"
	}
	count = s.until("p", "it backs off", backsOff).Status.InitContainerStatuses[0].RestartCount
	p := s.until("p", "it backs off again, after more restarts", backsOff)
	if e := p.Status.InitContainerStatuses[0].LastTerminationState.Terminated; p.Status.Phase != corev1.PodPending || e == nil || e.ExitCode != 1 {
		s.t.Errorf("phase %s, %+v", p.Status.Phase, p.Status.InitContainerStatuses[0])
	}
	for _, c := range []corev1.ContainerStatus{p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]} {
		if c.State.Waiting == nil || c.State.Waiting.Reason != "PodInitializing" || c.ContainerID != "" || c.RestartCount != 0 {
			s.t.Errorf("container %s: %+v", c.Name, c)
		}
	}
	if c := conditionOf(p, corev1.PodInitialized); c.Status != corev1.ConditionFalse || c.Message != "containers with incomplete status: [first second]" {
		s.t.Errorf("condition: %+v", c)
	}
	s.event("p", "Warning BackOff: Back-off restarting failed container first in pod p_"+s.name)
	// A command takes its time, and meanwhile the container may run again.
	await(s.t, "kubectl shows that it backs off", func() error {
		if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "Init:CrashLoopBackOff") {
			return errors.New(got)
		}
		return nil
	})
}

// An init container with restartPolicy Always is started before the next one,
// goes on beside the main ones and is ended after them (documentation, "Sidecar
// Containers").
func sidecar(s *space) {
	s.create("p", `
restartPolicy: Never
initContainers:
- name: helper
  image: hansa.local/testimage:1
  restartPolicy: Always
  startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
containers:
- {name: main, image: hansa.local/busybox:1, command: [wget, -qO-, "http://127.0.0.1:8080/"]}
`)
	p := s.finished("p")
	if got := s.logs("p", "main"); p.Status.Phase != corev1.PodSucceeded || got != "p\n" {
		s.t.Errorf("phase %s, main got %q", p.Status.Phase, got)
	}
	helper := p.Status.InitContainerStatuses[0]
	if e := helper.State.Terminated; e == nil || e.ExitCode != 0 || helper.RestartCount != 0 {
		s.t.Errorf("helper: %+v", helper)
	}
	if got := s.logs("p", "helper"); !strings.Contains(got, "caught terminated") {
		s.t.Errorf("helper's log: %q", got)
	}
}

// A sidecar that ends is started again whatever the pod's policy; its readiness
// is the pod's; what its liveness ends is itself (documentation, "Sidecar
// Containers").
func sidecarsAlone(s *space) {
	const loop = `"trap 'exit 0' TERM; while :; do sleep 0.1; done"`
	s.create("p", `
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
initContainers:
- name: dies
  image: hansa.local/busybox:1
  restartPolicy: Always
  command: [sh, -c, "test -e /work/go && exec sleep 1000; until test -e /work/go; do sleep 0.1; done; exit 3"]
  volumeMounts: [{name: work, mountPath: /work}]
- name: gates
  image: hansa.local/busybox:1
  restartPolicy: Always
  command: [sh, -c, `+loop+`]
  readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
- name: sickens
  image: hansa.local/busybox:1
  restartPolicy: Always
  command: [sh, -c, `+loop+`]
  livenessProbe: {exec: {command: [test, "!", -e, /tmp/sick]}, periodSeconds: 1, failureThreshold: 1}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: work, mountPath: /work}]}
`)
	unready := func(p *corev1.Pod) bool {
		c := conditionOf(p, corev1.PodReady)
		return c.Status == corev1.ConditionFalse && c.Message == "containers with unready status: [gates]" &&
			len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready
	}
	before := s.until("p", "it is unready for a sidecar alone", unready)
	in := func(container, command string) {
		s.t.Helper()
		if out, code, err := s.execIn("p", container, "sh", "-c", command); code != 0 || err != nil {
			s.t.Fatalf("%s in %s: %s %d %v", command, container, out, code, err)
		}
	}
	in("gates", "touch /tmp/ready")
	s.ready("p")
	in("gates", "rm /tmp/ready")
	s.until("p", "it is unready again", unready)
	in("main", "touch /work/go")
	in("sickens", "touch /tmp/sick")
	p := s.until("p", "two sidecars were started again", func(p *corev1.Pod) bool {
		c := p.Status.InitContainerStatuses
		return c[0].RestartCount > 0 && c[0].State.Running != nil && c[2].RestartCount > 0 && c[2].State.Running != nil
	})
	for i, code := range map[int]int32{0: 3, 2: 0} {
		c := p.Status.InitContainerStatuses[i]
		if e := c.LastTerminationState.Terminated; c.RestartCount != 1 || e == nil || e.ExitCode != code {
			s.t.Errorf("sidecar: %+v", c)
		}
	}
	s.event("p", "Normal Killing: Init container sickens failed liveness probe")
	gates, main := p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]
	if gates.ContainerID != before.Status.InitContainerStatuses[1].ContainerID || main.ContainerID != before.Status.ContainerStatuses[0].ContainerID || p.Status.Phase != corev1.PodRunning {
		s.t.Errorf("the others: phase %s, %+v, %+v", p.Status.Phase, gates, main)
	}
}

func severalContainers(s *space) {
	s.create("p", `
containers:
- {name: server, image: hansa.local/testimage:1}
- {name: client, image: hansa.local/busybox:1, command: [sh, -c, "touch /mine; exec sleep 1000"]}
- {name: third, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	p := s.ready("p")
	if len(p.Status.ContainerStatuses) != 3 {
		s.t.Fatalf("statuses: %+v", p.Status.ContainerStatuses)
	}
	out, code, err := s.execIn("p", "client", "wget", "-qO-", "http://127.0.0.1:8080/")
	if out != "p\n" || code != 0 || err != nil {
		s.t.Errorf("through the shared network: %q, exit code %d, %v", out, code, err)
	}
	if out, code, _ := s.execIn("p", "third", "ls", "/mine"); code == 0 {
		s.t.Errorf("a container sees another's files: %s", out)
	}
	if out, _, _ := s.execIn("p", "third", "hostname"); out != "p\n" {
		s.t.Errorf("hostname %q", out)
	}
}

func oneProcessSpace(s *space) {
	s.create("p", `
shareProcessNamespace: true
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
- {name: other, image: hansa.local/busybox:1, command: [sleep, "2000"]}
`)
	s.ready("p")
	if out := s.exec("p", "ps"); !strings.Contains(out, "sleep 2000") || !strings.Contains(out, "pause") {
		s.t.Errorf("processes:\n%s", out)
	}
}

// kubectl debug adds a container to a pod that runs, and one more beside it.
func ephemeral(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/testimage:1}
`)
	s.ready("p")
	s.kubectl("debug", "p", "--image="+shell, "--target=main", "--container=look", "--profile=general", "--", "sh", "-c", "ps; echo looked; sleep 1000")
	s.until("p", "the added container runs", func(p *corev1.Pod) bool {
		return len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Running != nil
	})
	await(s.t, "it sees the other's process", func() error {
		if got := s.logs("p", "look"); !strings.Contains(got, "/testimage serve") || !strings.Contains(got, "looked") {
			return errors.New(got)
		}
		return nil
	})
	before := s.ready("p")
	if before.Status.ContainerStatuses[0].RestartCount != 0 {
		s.t.Error("the other was restarted")
	}
	s.kubectl("debug", "p", "--image="+shell, "--container=second", "--profile=general", "--", "sleep", "1000")
	p := s.until("p", "the second one runs beside it", func(p *corev1.Pod) bool {
		c := p.Status.EphemeralContainerStatuses
		return len(c) == 2 && c[0].State.Running != nil && c[1].State.Running != nil
	})
	if got, want := p.Status.EphemeralContainerStatuses[0].ContainerID, before.Status.EphemeralContainerStatuses[0].ContainerID; got != want {
		s.t.Errorf("the first one is %s, and was %s", got, want)
	}
	if got := s.kubectl("get", "pod", "p", "--subresource=ephemeralcontainers", "-o", "jsonpath={.spec.ephemeralContainers[*].name}"); got != "look second" {
		s.t.Errorf("the subresource lists %q", got)
	}
}

func conditionOf(p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}
