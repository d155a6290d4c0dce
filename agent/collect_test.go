package agent_test

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/runtime/fake"
)

// --maximum-dead-containers: of pods that are over, the oldest containers go
// when there are more on the node; what they show stays.
func TestMaximumDeadContainers(t *testing.T) {
	r := configured(t, nil)
	r.settings.MaxEnded = 1
	r.start()
	r.runtime.SetProgram(image, func(p *fake.Process) int { return 0 })
	for _, name := range []string{"first", "second"} {
		r.pod(name, func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever })
		r.wait(name, "its end", inPhase(v1.PodSucceeded))
	}
	removed := func() int {
		return len(slices.DeleteFunc(slices.Clone(r.runtime.Calls()), func(c string) bool { return !strings.HasPrefix(c, "RemoveContainer") }))
	}
	r.eventually("one container to go", func() bool { r.agent.CollectContainers(); return removed() == 1 })
	for _, name := range []string{"first", "second"} {
		if s := r.get(name).Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 0 {
			t.Errorf("%s: %s", name, describe(r.get(name)))
		}
	}
	if code, _ := r.fetch("/containerLogs/default/second/app"); code != 200 {
		t.Errorf("log of the younger one: %d", code)
	}
}
