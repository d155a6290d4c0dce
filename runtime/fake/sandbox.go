package fake

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunSandbox makes a ready sandbox with an address of its own, unless it uses
// the node's network.
func (r *Runtime) RunSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := config.GetMetadata()
	if err := r.enter("RunSandbox", "%s/%d", m.GetName(), m.GetAttempt()); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	for id, s := range r.sandboxes {
		if proto.Equal(s.config.GetMetadata(), m) {
			return "", fmt.Errorf("the name of attempt %d of %s/%s is reserved for %s", m.GetAttempt(), m.GetNamespace(), m.GetName(), id)
		}
	}
	r.next++
	id := fmt.Sprintf("sandbox%d", r.next)
	status := &cri.PodSandboxStatus{
		Id: id, Metadata: m, State: cri.PodSandboxState_SANDBOX_READY, CreatedAt: r.now(),
		Network: &cri.PodSandboxNetworkStatus{}, Labels: config.GetLabels(), Annotations: config.GetAnnotations(), RuntimeHandler: handler,
	}
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != cri.NamespaceMode_NODE {
		r.address = r.address.Next()
		status.Network.Ip = r.address.String()
	}
	r.sandboxes[id] = &sandbox{config: proto.Clone(config).(*cri.PodSandboxConfig), status: status, handler: handler}
	r.emit(id, id, cri.ContainerEventType_CONTAINER_STARTED_EVENT)
	return id, nil
}

// StopSandbox kills what runs in the sandbox.
func (r *Runtime) StopSandbox(_ context.Context, id string) error {
	return r.endSandbox("StopSandbox", id)
}

// endSandbox is a call that stops a sandbox, if it is there.
func (r *Runtime) endSandbox(method, id string) error {
	r.mu.Lock()
	err := r.enter(method, "%s", id)
	var wait []<-chan struct{}
	if s := r.sandboxes[id]; s != nil && err == nil {
		wait = r.stopSandbox(s)
	}
	r.mu.Unlock()
	for _, done := range wait {
		<-done
	}
	return err
}

func (r *Runtime) stopSandbox(s *sandbox) (wait []<-chan struct{}) {
	for _, c := range r.containers {
		if c.sandbox == s.status.Id && c.running() {
			c.kill()
			wait = append(wait, c.done)
		}
	}
	if s.status.State == cri.PodSandboxState_SANDBOX_READY {
		s.status.State = cri.PodSandboxState_SANDBOX_NOTREADY
		r.emit(s.status.Id, s.status.Id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return wait
}

// KillSandbox ends a sandbox from the outside, as when its pause process dies.
func (r *Runtime) KillSandbox(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[id]; s != nil {
		s.status.State = cri.PodSandboxState_SANDBOX_NOTREADY
		r.emit(id, id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// RemoveSandbox removes a sandbox and its containers.
func (r *Runtime) RemoveSandbox(_ context.Context, id string) error {
	if err := r.endSandbox("RemoveSandbox", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sandboxes[id] == nil {
		return nil
	}
	for cid, c := range r.containers {
		if c.sandbox == id {
			delete(r.containers, cid)
		}
	}
	r.emit(id, id, cri.ContainerEventType_CONTAINER_DELETED_EVENT)
	delete(r.sandboxes, id)
	return nil
}

// SandboxStatus is what is known of a sandbox.
func (r *Runtime) SandboxStatus(_ context.Context, id string) (*cri.PodSandboxStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, notFound("sandbox", id)
	}
	return proto.Clone(s.status).(*cri.PodSandboxStatus), nil
}

// Sandboxes lists all with these labels.
func (r *Runtime) Sandboxes(_ context.Context, labels map[string]string) ([]*cri.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*cri.PodSandbox
	for id, s := range r.sandboxes {
		if !has(s.status.Labels, labels) {
			continue
		}
		out = append(out, &cri.PodSandbox{
			Id: id, Metadata: s.status.Metadata, State: s.status.State, CreatedAt: s.status.CreatedAt,
			Labels: s.status.Labels, Annotations: s.status.Annotations, RuntimeHandler: s.handler,
		})
	}
	return out, nil
}

// has says whether labels are among those that something has.
func has(all, labels map[string]string) bool {
	for name, value := range labels {
		if got, ok := all[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// SandboxConfig is the configuration that a sandbox was run with, or nil.
func (r *Runtime) SandboxConfig(id string) *cri.PodSandboxConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes[id]; s != nil {
		return s.config
	}
	return nil
}
