package fake

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Program is what a container does; it returns the exit code. It must return
// soon after p.Killed is closed.
type Program func(p *Process) (code int)

// Process is a running container, as its Program sees it.
type Process struct {
	ID     string
	Config *cri.ContainerConfig
	// Stopped is closed when the container is asked to stop, Killed when it
	// is killed.
	Stopped, Killed <-chan struct{}
	// Log writes a line to the container's log.
	Log func(stream, line string)
}

// UntilStopped is the program of images that have none.
func UntilStopped(p *Process) int {
	select {
	case <-p.Stopped:
		return 0
	case <-p.Killed:
		return 137
	}
}

// Exits is a program that ends at once.
func Exits(code int) Program { return func(*Process) int { return code } }

// Stubborn is a program that ignores the request to stop.
func Stubborn(p *Process) int { <-p.Killed; return 137 }

type container struct {
	sandbox string
	config  *cri.ContainerConfig
	status  *cri.ContainerStatus
	logDir  string
	stop    context.CancelFunc
	stopped <-chan struct{}
	kill    context.CancelFunc
	killed  <-chan struct{}
	done    chan struct{}
	forced  chan exit // an exit ordered by the test
}

type exit struct {
	code   int
	reason string
}

func (c *container) running() bool {
	return c.status.State == cri.ContainerState_CONTAINER_RUNNING
}

// CreateContainer notes a container; its image must be present.
func (r *Runtime) CreateContainer(_ context.Context, sandboxID string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := config.GetMetadata()
	if err := r.enter("CreateContainer", "%s/%d", m.GetName(), m.GetAttempt()); err != nil {
		return "", err
	}
	s := r.sandboxes[sandboxID]
	if s == nil {
		return "", notFound("sandbox", sandboxID)
	}
	image := r.image(config.GetImage().GetImage())
	if image == nil {
		return "", notFound("image", config.GetImage().GetImage())
	}
	r.next++
	id := fmt.Sprintf("%s%d", m.GetName(), r.next)
	c := &container{
		sandbox: sandboxID, config: proto.Clone(config).(*cri.ContainerConfig), logDir: sandboxConfig.GetLogDirectory(),
		done: make(chan struct{}), forced: make(chan exit, 1),
		status: &cri.ContainerStatus{
			Id: id, Metadata: m, State: cri.ContainerState_CONTAINER_CREATED, CreatedAt: r.now(),
			Image: config.GetImage(), ImageRef: image.RepoDigests[0], ImageId: image.Id,
			Labels: config.GetLabels(), Annotations: config.GetAnnotations(), Mounts: config.GetMounts(),
			LogPath: filepath.Join(sandboxConfig.GetLogDirectory(), config.GetLogPath()),
		},
	}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	c.stopped = ctx.Done()
	ctx, c.kill = context.WithCancel(context.Background())
	c.killed = ctx.Done()
	r.containers[id] = c
	r.emit(id, sandboxID, cri.ContainerEventType_CONTAINER_CREATED_EVENT)
	return id, nil
}

// StartContainer runs the program of the image in a goroutine. An injected
// failure leaves the container ended with StartError, as containerd does.
func (r *Runtime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	err := r.enter("StartContainer", "%s", c.config.GetMetadata().GetName())
	if err == nil && r.check != nil {
		err = r.check(c.config)
	}
	if err != nil {
		close(c.done)
		r.exited(c, exit{128, "StartError"})
		c.status.Message = err.Error()
		return err
	}
	if c.status.State != cri.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("container %q is in state %s", id, c.status.State)
	}
	c.status.State, c.status.StartedAt = cri.ContainerState_CONTAINER_RUNNING, r.now()
	program := UntilStopped
	if image := r.image(c.config.GetImage().GetImage()); image != nil {
		if p := r.programs[image.RepoTags[0]]; p != nil {
			program = p
		}
	}
	r.emit(id, c.sandbox, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	go r.serve(c, program)
	return nil
}

func (r *Runtime) serve(c *container, program Program) {
	result := make(chan int, 1)
	go func() {
		result <- program(&Process{ID: c.status.Id, Config: c.config, Stopped: c.stopped, Killed: c.killed, Log: c.log(r)})
	}()
	var e exit
	select {
	case e = <-c.forced:
		c.kill()
		<-result
	case code := <-result:
		e = exit{code: code}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	close(c.done)
	r.exited(c, e)
}

func (r *Runtime) exited(c *container, e exit) {
	st := c.status
	st.State, st.FinishedAt, st.ExitCode, st.Reason = cri.ContainerState_CONTAINER_EXITED, r.now(), int32(e.code), e.reason
	if st.Reason == "" {
		st.Reason = "Error"
		if e.code == 0 {
			st.Reason = "Completed"
		}
	}
	r.emit(st.Id, c.sandbox, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// Exit ends a running container from the outside, e.g. with 137 and
// "OOMKilled". It answers whether there was one of that name.
func (r *Runtime) Exit(name string, code int, reason string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.running() && (c.status.Id == name || c.config.GetMetadata().GetName() == name) {
			c.forced <- exit{code, reason}
			return true
		}
	}
	return false
}

func (c *container) log(r *Runtime) func(stream, line string) {
	return func(stream, line string) {
		if c.logDir == "" {
			return
		}
		f, err := os.OpenFile(filepath.Join(c.logDir, c.config.GetLogPath()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return // the test did not make the directory
		}
		defer f.Close()
		fmt.Fprintf(f, "%s %s F %s\n", r.clock.Now().UTC().Format(time.RFC3339Nano), stream, line)
	}
}

// StopContainer asks the program to stop, and kills it after the timeout.
func (r *Runtime) StopContainer(ctx context.Context, id string, timeoutSeconds int64) error {
	r.mu.Lock()
	c := r.containers[id]
	name := id
	if c != nil {
		name = c.config.GetMetadata().GetName()
	}
	if err := r.enter("StopContainer", "%s timeout=%d", name, timeoutSeconds); err != nil {
		r.mu.Unlock()
		return err
	}
	if c == nil || !c.running() {
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	if timeoutSeconds > 0 {
		c.stop()
		timer := time.NewTimer(time.Duration(timeoutSeconds) * time.Second)
		defer timer.Stop()
		select {
		case <-c.done:
			return nil
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.kill()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RemoveContainer kills and forgets a container.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	if err := r.enter("RemoveContainer", "%s", id); err != nil {
		r.mu.Unlock()
		return err
	}
	c := r.containers[id]
	if c == nil {
		r.mu.Unlock()
		return nil
	}
	running := c.running()
	r.mu.Unlock()
	if running {
		c.kill()
		<-c.done
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, id)
	r.emit(id, c.sandbox, cri.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// ContainerStatus is what is known of a container.
func (r *Runtime) ContainerStatus(_ context.Context, id string) (*cri.ContainerStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	return proto.Clone(c.status).(*cri.ContainerStatus), nil
}

// Containers lists all with these labels.
func (r *Runtime) Containers(_ context.Context, labels map[string]string) ([]*cri.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*cri.Container
	for id, c := range r.containers {
		if !has(c.status.Labels, labels) {
			continue
		}
		out = append(out, &cri.Container{
			Id: id, PodSandboxId: c.sandbox, Metadata: c.status.Metadata, Image: c.status.Image, ImageRef: c.status.ImageRef,
			State: c.status.State, CreatedAt: c.status.CreatedAt, Labels: c.status.Labels, Annotations: c.status.Annotations, ImageId: c.status.ImageId,
		})
	}
	return out, nil
}

// ContainerConfig is the configuration that the newest container of a name was
// created with, or nil.
func (r *Runtime) ContainerConfig(name string) *cri.ContainerConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest *container
	for _, c := range r.containers {
		if c.config.GetMetadata().GetName() == name && (newest == nil || c.config.GetMetadata().GetAttempt() > newest.config.GetMetadata().GetAttempt()) {
			newest = c
		}
	}
	if newest == nil {
		return nil
	}
	return newest.config
}

// UpdateContainer notes new resources.
func (r *Runtime) UpdateContainer(_ context.Context, id string, linux *cri.LinuxContainerResources) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("UpdateContainer", "%s", id); err != nil {
		return err
	}
	c := r.containers[id]
	if c == nil {
		return notFound("container", id)
	}
	c.status.Resources = &cri.ContainerResources{Linux: linux}
	return nil
}

// ReopenLog does nothing: every line opens the log.
func (r *Runtime) ReopenLog(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[id] == nil {
		return notFound("container", id)
	}
	return r.enter("ReopenLog", "%s", id)
}

// ContainerStats are made up, but for names and time.
func (r *Runtime) ContainerStats(_ context.Context, id string) (*cri.ContainerStats, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, notFound("container", id)
	}
	now := r.now()
	return &cri.ContainerStats{
		Attributes: &cri.ContainerAttributes{Id: id, Metadata: c.status.Metadata, Labels: c.status.Labels, Annotations: c.status.Annotations},
		Cpu:        &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: &cri.UInt64Value{Value: 1e9}, UsageNanoCores: &cri.UInt64Value{Value: 1e6}},
		Memory:     &cri.MemoryUsage{Timestamp: now, WorkingSetBytes: &cri.UInt64Value{Value: 1 << 20}},
	}, nil
}
