package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

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

// "Container image lifecycle": above the high threshold images go that nobody uses
// and that are not young. Those of containers and imported ones
// stay.
func TestImageCollection(t *testing.T) {
	r := configured(t, map[string]any{"imageGCHighThresholdPercent": 1, "imageGCLowThresholdPercent": 0})
	r.runtime.AddImage("unused", nil)
	if _, err := r.runtime.ImportImage(t.Context(), fake.Archive("imported")); err != nil {
		t.Fatal(err)
	}
	pod := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "u"}}
	sandbox, err := r.runtime.RunSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	app := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app"}, Image: &cri.ImageSpec{Image: image}}
	if _, err := r.runtime.CreateContainer(t.Context(), sandbox, app, pod); err != nil {
		t.Fatal(err)
	}
	a := r.make()
	has := func(want ...string) {
		t.Helper()
		a.CollectImages(t.Context())
		list, err := r.runtime.ListImages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range list {
			got = append(got, i.RepoTags...)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("there are %v, want %v", got, want)
		}
	}
	has(image, "imported", "unused")
	r.clock.set(time.Minute)
	r.runtime.AddImage("young", nil)
	has(image, "imported", "unused", "young")
	r.clock.set(time.Minute)
	has(image, "imported", "young")
	r.clock.set(time.Minute)
	has(image, "imported")
}

// A pull fills the disk, so images are looked at after each, and what was pulled for
// a pod stays.
func TestImagesAreCollectedAfterAPull(t *testing.T) {
	r := configured(t, map[string]any{"imageGCHighThresholdPercent": 1, "imageGCLowThresholdPercent": 0})
	r.settings.ImageMinimumGCAge.Duration = 0
	r.runtime.AddImage("unused", nil)
	r.start()
	r.pod("web", func(p *v1.Pod) { p.Spec.Containers[0].Image = "example.com/new:1" })
	r.wait("web", "Ready", isReady)
	r.eventually("the one that nobody uses to go", func() bool {
		list, err := r.runtime.ListImages(t.Context())
		return err == nil && len(list) == 1 && list[0].RepoTags[0] == "example.com/new:1"
	})
}

// As often as an age asks for, but not all the time.
func TestImageInterval(t *testing.T) {
	for age, want := range map[string]time.Duration{"0s": 5 * time.Minute, "24h": 5 * time.Minute, "3m": 3 * time.Minute, "2s": 10 * time.Second} {
		r := configured(t, map[string]any{"imageMinimumGCAge": "1s", "imageMaximumGCAge": age})
		if got := r.make().ImageInterval(); got != want {
			t.Errorf("imageMaximumGCAge %s: every %s, want %s", age, got, want)
		}
	}
}
