package agent

import (
	"maps"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// "Container image lifecycle": an image in use is not collected. Those that pods name
// are named in short, and by the runtime in full; a pod that is over uses none.
func TestUsedImages(t *testing.T) {
	of := func(phase v1.PodPhase, reference string) *v1.Pod {
		return &v1.Pod{
			Spec: v1.PodSpec{
				Volumes: []v1.Volume{
					{Name: "none"},
					{Name: "image", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: reference}}},
				},
				InitContainers: []v1.Container{{Image: reference + "-init"}},
				Containers:     []v1.Container{{Image: reference + "-main"}},
				EphemeralContainers: []v1.EphemeralContainer{
					{EphemeralContainerCommon: v1.EphemeralContainerCommon{Image: reference + "-later"}},
				},
			},
			Status: v1.PodStatus{Phase: phase},
		}
	}
	containers := []*cri.Container{{Image: &cri.ImageSpec{Image: "app"}, ImageRef: "ref", ImageId: "id"}}
	pods := []*v1.Pod{of(v1.PodRunning, "tools"), of(v1.PodSucceeded, "over"), of(v1.PodPending, "registry.example.com/x@sha256:1")}
	want := []string{
		"app", "docker.io/library/tools-init:latest", "docker.io/library/tools-later:latest", "docker.io/library/tools-main:latest", "docker.io/library/tools:latest",
		"id", "ref", "registry.example.com/x@sha256:1", "registry.example.com/x@sha256:1-init", "registry.example.com/x@sha256:1-later", "registry.example.com/x@sha256:1-main",
		"tools", "tools-init", "tools-later", "tools-main",
	}
	if got := slices.Sorted(maps.Keys(usedImages(containers, pods))); !slices.Equal(got, want) {
		t.Errorf("used are %q, want %q", got, want)
	}
}
