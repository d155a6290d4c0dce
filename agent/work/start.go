package work

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		if err := ctx.Err(); err != nil {
			return nil, err // the agent stops, and begins nothing more
		}
		if regroup {
			if err := w.setGroup(j.pod); err != nil {
				return func() { w.regroup = true }, err
			}
		}
		lasting, done := w.outlast(ctx)
		defer done()
		id, err := w.create(lasting, j)
		w.node.Metrics.ImageVolumes(imageVolumes(j.pod, j.spec), err)
		if err != nil {
			return nil, err
		}
		startErr := w.node.Runtime.StartContainer(lasting, id)
		st, err := w.node.Runtime.ContainerStatus(lasting, id)
		known := func() {
			if err == nil {
				w.observeRun(j.sandbox, st)
			}
		}
		if startErr != nil {
			said := runtime.Said(startErr)
			j.report(v1.EventTypeWarning, "Failed", "Error: "+said)
			return known, &pod.Failure{Reason: "RunContainerError", Message: said, Cut: runtime.CutOff(startErr)}
		}
		w.post(func(time.Time) { known() })
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

// startsLast is how long a start may take after the agent was asked to stop.
const startsLast = 5 * time.Second

// outlast is a context that ends a while after ctx, or once done is called: what
// the runtime has begun is not to be cut off by the agent's end.
func (w *Worker) outlast(ctx context.Context) (lasting context.Context, done func()) {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-lasting.Done():
		case <-w.node.Clock.After(startsLast):
			cancel()
		}
	})
	return lasting, func() { stop(); cancel() }
}

// create makes the configuration and the container.
func (w *Worker) create(ctx context.Context, j *job) (string, error) {
	config, err := w.containerConfig(j)
	if err != nil {
		j.report(v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		return "", &pod.Failure{Reason: createConfigError, Message: err.Error()}
	}
	sandbox, _, err := w.node.sandboxConfig(j.pod, 0, "", w.node.Groups.Path(w.group(j.pod)), w.logDir(j.pod))
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
	var sandbox string
	p, c := w.state.Pod, w.state.Containers[container]
	for _, r := range slices.Concat(c.Runs, c.Cut) {
		if r.ID == id {
			attempt, sandbox = r.Attempt, r.Sandbox
		}
	}
	cut := slices.ContainsFunc(c.Cut, func(r *pod.Run) bool { return r.ID == id })
	return func(ctx context.Context) (func(), error) {
		if cut {
			// It may have come to run after all.
			st, err := w.node.Runtime.ContainerStatus(ctx, id)
			if err != nil && !errors.Is(err, runtime.ErrNotFound) {
				return nil, fmt.Errorf("look at container %s: %w", id, err)
			}
			if err == nil {
				if r := w.runOf(sandbox, st); !r.Unborn() {
					return func() { w.state.ObserveRun(container, r) }, nil
				}
			}
		}
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
