package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var restartRows = []row{
	{"restart policy Always, with back-off", restartAlways},
	{"restart policy OnFailure", restartOnFailure},
	{"restart policy Never", restartNever},
	{"restart after the runtime's shim died", shimDies},
}

func restartAlways(s *space) {
	s.create("p", `
restartPolicy: Always
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo run; exit 0"]}
`)
	p := s.until("p", "it backs off", func(p *corev1.Pod) bool { return waiting(p).Reason == "CrashLoopBackOff" })
	c := p.Status.ContainerStatuses[0]
	// Nothing is waited for before the first restart, 10 s before the second,
	// twice as much before each further one. Which one it is that is seen first
	// depends on how long looking takes.
	if c.RestartCount < 1 || c.RestartCount > 4 {
		s.t.Fatalf("it backs off after %d restarts", c.RestartCount)
	}
	delay := 10 * time.Second << (c.RestartCount - 1)
	want := fmt.Sprintf("back-off %s restarting failed container=main pod=p_%s(%s)", delay, s.name, p.UID)
	if w := waiting(p); w.Message != want {
		s.t.Errorf("message %q, want %q", w.Message, want)
	}
	if p.Status.Phase != corev1.PodRunning || c.Ready || c.LastTerminationState.Terminated == nil || c.LastTerminationState.Terminated.Reason != "Completed" {
		s.t.Errorf("phase %s, status %+v", p.Status.Phase, c)
	}
	s.event("p", "Warning BackOff: Back-off restarting failed container main in pod p_"+s.name)
	p = s.until("p", "it is started again", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount > c.RestartCount && waiting(p).Reason == ""
	})
	if waited := startOf(p).Sub(c.LastTerminationState.Terminated.FinishedAt.Time); waited < delay-time.Second { // times have whole seconds
		s.t.Errorf("it was started again after %s of %s", waited, delay)
	}
	// A command takes its time, and meanwhile the container may run again.
	await(s.t, "kubectl shows that it backs off", func() error {
		if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "CrashLoopBackOff") {
			return errors.New(got)
		}
		return nil
	})
}

// startOf is when the newest run of the first container, which has begun, did.
func startOf(p *corev1.Pod) time.Time {
	c := p.Status.ContainerStatuses[0].State
	if c.Running != nil {
		return c.Running.StartedAt.Time
	}
	return c.Terminated.StartedAt.Time
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

// Without its shim nothing of a pod can be watched or stopped any more: it
// begins anew.
func shimDies(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
- {name: other, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	process := s.processOf(s.ready("p"), "main")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		s.t.Fatal(err)
	}
	var shim int
	if _, rest, ok := strings.Cut(string(status), "\nPPid:"); !ok {
		s.t.Fatalf("no parent in %s", status)
	} else if _, err := fmt.Sscan(rest, &shim); err != nil {
		s.t.Fatal(err)
	}
	if err := killHard(shim); err != nil {
		s.t.Fatal(err)
	}
	p := s.until("p", "it runs again", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount > 0 && p.Status.ContainerStatuses[1].RestartCount > 0
	})
	if e := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode == 0 {
		s.t.Errorf("how it ended: %+v", p.Status.ContainerStatuses[0].LastTerminationState)
	}
	if again := s.processOf(p, "main"); again == process {
		s.t.Errorf("process %d runs on", process)
	}
	await(s.t, "the old process is gone", func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", process)); err == nil {
			return fmt.Errorf("process %d is left", process)
		}
		return nil
	})
}
