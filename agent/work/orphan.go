package work

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
)

// RemoveOrphan stops and removes what is left of a pod that the API has no
// more: it was deleted while no agent ran. What is known of it is what the
// runtime and the disk say.
func (n *Node) RemoveOrphan(ctx context.Context, uid types.UID, known Known) error {
	done := make(chan error, len(known.Containers))
	for _, c := range known.Containers {
		go func() { done <- n.removeOrphanContainer(ctx, c) }()
	}
	var errs []error
	for range known.Containers {
		errs = append(errs, <-done)
	}
	for _, s := range known.Sandboxes {
		errs = append(errs, n.Runtime.StopSandbox(ctx, s.Id), n.Runtime.RemoveSandbox(ctx, s.Id))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	errs = append(errs, n.Volumes.Remove(uid))
	for _, qos := range []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		errs = append(errs, n.Groups.Remove(cgroup.PodGroup(qos, string(uid))))
	}
	dirs, err := filepath.Glob(filepath.Join(n.LogsDir, "*_"+string(uid)))
	errs = append(errs, err)
	for _, dir := range dirs {
		if parts := strings.Split(filepath.Base(dir), "_"); len(parts) == 3 {
			errs = append(errs, n.Logs.Take(parts[0], parts[1], parts[2]))
		}
	}
	return errors.Join(errs...)
}

func (n *Node) removeOrphanContainer(ctx context.Context, c *cri.ContainerStatus) error {
	if c.State == cri.ContainerState_CONTAINER_RUNNING {
		grace, err := time.ParseDuration(c.Annotations[NoteGrace])
		if err != nil {
			grace = pod.SpecGrace(&v1.Pod{})
		}
		if err := n.Runtime.StopContainer(ctx, c.Id, int64(grace.Seconds())); err != nil {
			return err
		}
	}
	return n.Runtime.RemoveContainer(ctx, c.Id)
}
