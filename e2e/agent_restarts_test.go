package e2e

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var restartRows = []row{
	{"restart policy Always, with back-off", restartAlways},
	{"restart policy OnFailure", restartOnFailure},
	{"restart policy Never", restartNever},
}

func restartAlways(s *space) {
	s.create("p", `
restartPolicy: Always
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo run; exit 0"]}
`)
	p := s.until("p", "it backs off", func(p *corev1.Pod) bool { return waiting(p).Reason == "CrashLoopBackOff" })
	c := p.Status.ContainerStatuses[0]
	want := fmt.Sprintf("back-off 10s restarting failed container=main pod=p_%s(%s)", s.name, p.UID)
	if w := waiting(p); w.Message != want {
		s.t.Errorf("message %q, want %q", w.Message, want)
	}
	if p.Status.Phase != corev1.PodRunning || c.Ready || c.RestartCount != 1 || c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.Reason != "Completed" {
		s.t.Errorf("phase %s, status %+v", p.Status.Phase, c)
	}
	if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "CrashLoopBackOff") {
		s.t.Errorf("kubectl get: %s", got)
	}
	s.event("p", "Warning BackOff: Back-off restarting failed container main in pod p_"+s.name)
	// Ten seconds after the first restart the second one comes.
	s.until("p", "it is started again", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 2 })
}

func restartOnFailure(s *space) {
	s.create("p", `
restartPolicy: OnFailure
volumes: [{name: work, emptyDir: {}}]
containers:
- name: fails
  image: hansa.local/busybox:1
  command: [sh, -c, "test -e /work/seen && exit 0; touch /work/seen; exit 9"]
  volumeMounts: [{name: work, mountPath: /work}]
- {name: succeeds, image: hansa.local/busybox:1, command: ["true"]}
`)
	p := s.finished("p")
	fails, succeeds := p.Status.ContainerStatuses[0], p.Status.ContainerStatuses[1]
	if p.Status.Phase != corev1.PodSucceeded || fails.RestartCount != 1 || succeeds.RestartCount != 0 {
		s.t.Errorf("phase %s, restarts %d and %d", p.Status.Phase, fails.RestartCount, succeeds.RestartCount)
	}
	if e := fails.LastTerminationState.Terminated; e == nil || e.ExitCode != 9 {
		s.t.Errorf("how the first run ended: %+v", fails.LastTerminationState)
	}
}

func restartNever(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: fails, image: hansa.local/busybox:1, command: [sh, -c, "exit 9"]}
- {name: succeeds, image: hansa.local/busybox:1, command: [sh, -c, "sleep 1"]}
`)
	p := s.finished("p")
	for i, want := range []int32{9, 0} {
		c := p.Status.ContainerStatuses[i]
		if e := c.State.Terminated; e == nil || e.ExitCode != want || c.RestartCount != 0 {
			s.t.Errorf("container %s: %+v", c.Name, c)
		}
	}
	if p.Status.Phase != corev1.PodFailed {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
}
