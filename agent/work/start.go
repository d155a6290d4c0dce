package work

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/runtime"
)

// start creates and starts a container and runs its postStart hook. It is known
// to run as soon as it does, and up once the hook is done.
func (w *Worker) start(container string, attempt int) step {
	c, hooks := w.state.Containers[container], w.hooks
	j := &job{
		pod: w.state.Granted(), spec: w.state.GrantedSpec(c), kind: c.Kind, attempt: attempt, backoff: c.Backoff.Delay,
		ips: w.state.Sandbox.IPs, sandbox: w.state.Sandbox.ID, report: w.reporter(container),
	}
	j.image, _ = c.Pull.Image.(*cri.Image)
	if c.Kind == pod.Ephemeral {
		j.target = w.ephemeralTarget(container)
	}
	regroup := w.regroup
	w.regroup = false
	return func(ctx context.Context) (func(), error) {
		if regroup {
			if err := w.setGroup(j.pod); err != nil {
				return func() { w.regroup = true }, err
			}
		}
		id, err := w.create(ctx, j)
		if err != nil {
			return nil, err
		}
		startErr := w.node.Runtime.StartContainer(ctx, id)
		st, err := w.node.Runtime.ContainerStatus(ctx, id)
		if err == nil {
			w.post(func(time.Time) { w.observeRun(j.sandbox, st) })
		}
		if startErr != nil {
			said := runtime.Said(startErr)
			j.report(v1.EventTypeWarning, "Failed", "Error: "+said)
			return nil, &pod.Failure{Reason: "RunContainerError", Message: said}
		}
		j.report(v1.EventTypeNormal, "Started", "Container started")
		if err != nil {
			return nil, fmt.Errorf("look at container %s: %w", id, err)
		}
		if l := j.spec.Lifecycle; l != nil && l.PostStart != nil {
			return w.postStart(ctx, hooks, j, id)
		}
		return nil, nil
	}
}

// create makes the configuration and the container.
func (w *Worker) create(ctx context.Context, j *job) (string, error) {
	config, err := w.containerConfig(j)
	if err != nil {
		j.report(v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		return "", &pod.Failure{Reason: createConfigError, Message: err.Error()}
	}
	sandbox, err := w.node.sandboxConfig(j.pod, 0, "", w.node.Groups.Path(w.group(j.pod)), w.logDir(j.pod))
	if err != nil {
		return "", &pod.Failure{Reason: createConfigError, Message: err.Error()}
	}
	id, err := w.node.Runtime.CreateContainer(ctx, j.sandbox, config, sandbox)
	if err != nil {
		said := runtime.Said(err)
		j.report(v1.EventTypeWarning, "Failed", "Error: "+said)
		return "", &pod.Failure{Reason: "CreateContainerError", Message: said}
	}
	j.report(v1.EventTypeNormal, "Created", "Container created")
	return id, nil
}

// postStart runs the hook, for as long as hooks lasts. When it fails, the
// container is killed.
func (w *Worker) postStart(ctx, hooks context.Context, j *job, id string) (func(), error) {
	err := w.hook(hooks, j.spec.Lifecycle.PostStart, hookTarget{spec: j.spec, ip: first(j.ips), id: id})
	if err == nil || hooks.Err() != nil {
		return nil, nil
	}
	j.report(v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	j.report(v1.EventTypeNormal, "Killing", "FailedPostStartHook")
	grace := int64(pod.SpecGrace(j.pod).Seconds())
	if stopErr := w.node.Runtime.StopContainer(ctx, id, grace); stopErr != nil {
		return nil, fmt.Errorf("kill container after its postStart hook failed: %w", stopErr)
	}
	var note func()
	if st, statusErr := w.node.Runtime.ContainerStatus(ctx, id); statusErr == nil {
		note = func() { w.observeRun(j.sandbox, st) }
	}
	return note, &pod.Failure{Reason: "PostStartHookError", Message: err.Error()}
}

func (w *Worker) removeContainer(container, id string) step {
	var attempt = -1
	p := w.state.Pod
	for _, r := range w.state.Containers[container].Runs {
		if r.ID == id {
			attempt = r.Attempt
		}
	}
	return func(ctx context.Context) (func(), error) {
		if err := w.node.Runtime.RemoveContainer(ctx, id); err != nil {
			return nil, fmt.Errorf("remove container %s: %w", id, err)
		}
		if err := w.removeLogs(p, container, attempt); err != nil {
			return nil, err
		}
		return func() { w.state.ForgetRun(id) }, nil
	}
}

// ephemeralTarget is the ID of the container that an ephemeral one looks into.
func (w *Worker) ephemeralTarget(container string) string {
	for i := range w.state.Pod.Spec.EphemeralContainers {
		e := &w.state.Pod.Spec.EphemeralContainers[i]
		if e.Name != container || e.TargetContainerName == "" {
			continue
		}
		if c := w.state.Containers[e.TargetContainerName]; c != nil && c.Running() != nil {
			return c.Running().ID
		}
	}
	return ""
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
