package agent_test

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/runtime/fake"
)

// Pod lifecycle: a pod is pending, runs and becomes ready, and is gone once it
// was deleted and its containers have ended.
func TestOnePod(t *testing.T) {
	r := newRig(t)
	r.runtime.SetProgram(image, func(p *fake.Process) int {
		p.Log("stdout", "hello")
		return fake.UntilStopped(p)
	})
	p := r.pod("web", nil)
	p = r.wait("web", "Ready", isReady)
	if p.Status.PodIP == "" || p.Status.HostIP != "192.0.2.1" || p.Status.StartTime == nil {
		t.Errorf("addresses or start time are missing: %+v", p.Status)
	}
	r.eventually("the log", func() bool {
		code, body := r.fetch("/containerLogs/default/web/app")
		return code == 200 && body == "hello\n"
	})
	r.delete("web")
	r.wait("web", "deletion", gone)
	r.clean(p)
	for _, call := range r.runtime.Calls() {
		if strings.HasPrefix(call, "StopContainer app") {
			return
		}
	}
	t.Errorf("the container was not stopped: %v", r.runtime.Calls())
}

// Restart of the agent: what runs goes on running, with its history.
func TestAdopt(t *testing.T) {
	r := newRig(t)
	r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	r.runtime.Exit("app", 1, "")
	before := r.wait("web", "a restart", func(p *v1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	calls := len(r.runtime.Calls())
	r.stop()
	r.start()
	r.runtime.Exit("app", 2, "")
	after := r.wait("web", "the crash to be seen", func(p *v1.Pod) bool {
		last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated
		return last != nil && last.ExitCode == 2
	})
	if after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 1 {
		t.Errorf("history is lost: %s", describe(after))
	}
	// Started twice before the restart: the back-off is remembered.
	r.wait("web", "CrashLoopBackOff", func(p *v1.Pod) bool {
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	for _, call := range r.runtime.Calls()[calls:] {
		if strings.HasPrefix(call, "RunSandbox") || strings.HasPrefix(call, "CreateContainer") {
			t.Errorf("after the restart: %s", call)
		}
	}
	r.delete("web")
	r.wait("web", "deletion", gone)
	r.clean(after)
}
