package work

import (
	"context"
	"errors"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/volume"
)

// prepare makes the pod's directories and its cgroup.
func (w *Worker) prepare() step {
	p := w.state.Granted()
	return func(context.Context) (func(), error) {
		for _, dir := range []string{w.node.Volumes.PodDir(p.UID), w.logDir(p)} {
			if err := os.MkdirAll(dir, 0o750); err != nil {
				w.podEvent(p, v1.EventTypeWarning, "FailedToMakePodDataDirectories", fmt.Sprintf("error making pod data directories: %v", err))
				return nil, fmt.Errorf("make directory of pod: %w", err)
			}
		}
		if err := w.node.Groups.Ensure(w.group(p), cgroup.PodLimits(p, w.node.Rules)); err != nil {
			w.podEvent(p, v1.EventTypeWarning, "FailedCreatePodContainer", fmt.Sprintf("unable to ensure pod container exists: %v", err))
			return nil, err
		}
		w.node.PodsChanged()
		return nil, nil
	}
}

func (w *Worker) group(p *v1.Pod) string { return cgroup.PodGroup(pod.QOS(p), string(p.UID)) }

func (w *Worker) logDir(p *v1.Pod) string {
	return logs.PodDir(w.node.LogsDir, p.Namespace, p.Name, string(p.UID))
}

// mount sets the pod's volumes up.
func (w *Worker) mount() step {
	p := w.state.Pod
	return func(ctx context.Context) (func(), error) {
		next, err := w.node.Volumes.Mount(ctx, p)
		w.failedMounts(p, err)
		return func() { w.state.Refresh.At = next }, err
	}
}

// refresh brings the content of volumes up to date.
func (w *Worker) refresh() step {
	p := w.state.Pod
	return func(ctx context.Context) (func(), error) {
		next, err := w.node.Volumes.Refresh(ctx, p)
		w.failedMounts(p, err)
		return func() { w.state.Refresh.At = next }, err
	}
}

// failedMounts reports each volume that could not be set up.
func (w *Worker) failedMounts(p *v1.Pod, err error) {
	if err == nil {
		return
	}
	var joined interface{ Unwrap() []error }
	list := []error{err}
	if errors.As(err, &joined) {
		list = joined.Unwrap()
	}
	for _, err := range list {
		var failed *volume.Error
		if errors.As(err, &failed) {
			w.podEvent(p, v1.EventTypeWarning, "FailedMount", failed.Error())
		}
	}
}

// release unmounts the volumes and removes the cgroup: what has to be gone
// before the pod may be.
func (w *Worker) release() step {
	p := w.state.Pod
	return func(context.Context) (func(), error) {
		err := errors.Join(w.node.Volumes.Unmount(p.UID), w.node.Groups.Remove(w.group(p)))
		w.node.PodsChanged()
		return nil, err
	}
}
