// Package cri is runtime.Runtime over the Container Runtime Interface: the
// carried containerd, or any other endpoint that speaks CRI v1.
//
// Image import is not part of CRI. It works where the same socket serves
// containerd's own transfer API, and is refused with a sentence elsewhere.
package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// maxMessage bounds one answer of the runtime; 16 MiB is what the kubelet takes.
const maxMessage = 16 << 20

// Client is a runtime.Runtime. Make it with Dial and Close it after use.
type Client struct {
	conn     *grpc.ClientConn
	runtime  cri.RuntimeServiceClient
	images   cri.ImageServiceClient
	endpoint string
	// Exit, where there is one, tells how a container ended of which the runtime may
	// not know all. It is set before the first call.
	Exit func(id string) (e runtime.Exit, known bool)
}

var _ runtime.Runtime = (*Client)(nil)

// Dial names an endpoint, a unix socket's path with or without "unix://". It
// connects lazily and reconnects by itself; calls wait for the connection until
// their context ends.
func Dial(endpoint string) (*Client, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	conn, err := grpc.NewClient("unix:"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
			grpc.WaitForReady(true)),
		// The runtime is on this machine: when it is back, so are we at once.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("dial container runtime %s: %w", endpoint, err)
	}
	return &Client{
		conn:     conn,
		runtime:  cri.NewRuntimeServiceClient(conn),
		images:   cri.NewImageServiceClient(conn),
		endpoint: endpoint,
	}, nil
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error { return c.conn.Close() }

var kinds = map[codes.Code]error{
	codes.NotFound:         runtime.ErrNotFound,
	codes.Unavailable:      runtime.ErrUnavailable,
	codes.DeadlineExceeded: context.DeadlineExceeded,
	codes.Canceled:         context.Canceled,
}

// wrap says what was being done, and maps the runtime's "not found".
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if s, ok := status.FromError(err); ok {
		return &runtime.Error{Doing: what, Said: s.Message(), Kind: kinds[s.Code()]}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Version asks what runtime answers, and with which API version.
func (c *Client) Version(ctx context.Context) (*cri.VersionResponse, error) {
	r, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	return r, wrap(err, "ask version of container runtime")
}

// Ready is nil when both the runtime and its network say they are ready.
func (c *Client) Ready(ctx context.Context) error {
	r, err := c.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return wrap(err, "ask status of container runtime")
	}
	for _, cond := range r.GetStatus().GetConditions() {
		if (cond.Type == cri.RuntimeReady || cond.Type == cri.NetworkReady) && !cond.Status {
			return &runtime.NotReady{Condition: cond.Type, Reason: cond.Reason, Message: cond.Message}
		}
	}
	return nil
}

// Offers is what the runtime can do.
func (c *Client) Offers(ctx context.Context) (runtime.Offers, error) {
	r, err := c.runtime.Status(ctx, &cri.StatusRequest{})
	return runtime.Offers{Handlers: r.GetRuntimeHandlers(), Features: r.GetFeatures()}, wrap(err, "ask status of container runtime")
}

// RunSandbox makes a sandbox and waits until it runs.
func (c *Client) RunSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	r, err := c.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return r.GetPodSandboxId(), wrap(err, "run sandbox of pod %s/%s", config.GetMetadata().GetNamespace(), config.GetMetadata().GetName())
}

// StopSandbox ends a sandbox and every container in it, and frees its addresses.
func (c *Client) StopSandbox(ctx context.Context, id string) error {
	_, err := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	return gone(wrap(err, "stop sandbox %s", id))
}

// RemoveSandbox removes a sandbox, its containers too.
func (c *Client) RemoveSandbox(ctx context.Context, id string) error {
	_, err := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	return gone(wrap(err, "remove sandbox %s", id))
}

// gone makes success of "not found", for calls that end things.
func gone(err error) error {
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return err
}

// SandboxStatus is the state of one sandbox.
func (c *Client) SandboxStatus(ctx context.Context, id string) (*cri.PodSandboxStatus, error) {
	r, err := c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id})
	return r.GetStatus(), wrap(err, "read status of sandbox %s", id)
}

// Sandboxes are all with these labels that the runtime knows, ended ones too.
func (c *Client) Sandboxes(ctx context.Context, labels map[string]string) ([]*cri.PodSandbox, error) {
	r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: labels}})
	return r.GetItems(), wrap(err, "list sandboxes")
}

// CreateContainer makes a container that StartContainer can start.
func (c *Client) CreateContainer(ctx context.Context, sandbox string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	r, err := c.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandbox, Config: config, SandboxConfig: sandboxConfig})
	return r.GetContainerId(), wrap(err, "create container %s", config.GetMetadata().GetName())
}

// StartContainer starts a created container.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := c.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
	return wrap(err, "start container %s", id)
}

// StopContainer returns once the container has ended.
func (c *Client) StopContainer(ctx context.Context, id string, timeoutSeconds int64) error {
	_, err := c.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: timeoutSeconds})
	return gone(wrap(err, "stop container %s", id))
}

// RemoveContainer removes a container, by force if it runs.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	r := &cri.RemoveContainerRequest{ContainerId: id}
	_, err := c.runtime.RemoveContainer(ctx, r)
	if status.Code(err) == codes.FailedPrecondition {
		if failed := c.endTask(ctx, id); failed != nil {
			return errors.Join(wrap(err, "remove container %s", id), failed)
		}
		_, err = c.runtime.RemoveContainer(ctx, r)
	}
	return gone(wrap(err, "remove container %s", id))
}

// ContainerStatus is the state of one container.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*cri.ContainerStatus, error) {
	r, err := c.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if st := r.GetStatus(); st.GetState() == cri.ContainerState_CONTAINER_EXITED && c.Exit != nil {
		if e, known := c.Exit(id); known {
			correct(st, e)
		}
	}
	return r.GetStatus(), wrap(err, "read status of container %s", id)
}

// Reasons that containerd gives: reasonUnknown, with exit code 255, for a container of
// whose end it did not hear; reasonError for a code other than 0; reasonOOM as soon as
// it hears that a process was killed for memory, be it after the end.
const (
	reasonUnknown   = "Unknown"
	reasonError     = "Error"
	reasonCompleted = "Completed"
	reasonOOM       = "OOMKilled"
)

// correct puts into the status of a container how it ended. One with another reason did
// not start.
func correct(st *cri.ContainerStatus, e runtime.Exit) {
	switch {
	case st.Reason != reasonUnknown && st.Reason != reasonError && st.Reason != reasonOOM:
		return
	case st.Reason == reasonOOM || e.OOMKilled:
		st.Reason = reasonOOM
	case e.Code == 0:
		st.Reason = reasonCompleted
	default:
		st.Reason = reasonError
	}
	st.ExitCode, st.FinishedAt = e.Code, e.At.UnixNano()
}

// Containers are all with these labels that the runtime knows, ended ones too.
func (c *Client) Containers(ctx context.Context, labels map[string]string) ([]*cri.Container, error) {
	r, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{LabelSelector: labels}})
	return r.GetContainers(), wrap(err, "list containers")
}

// UpdateContainer changes the resources of a container.
func (c *Client) UpdateContainer(ctx context.Context, id string, linux *cri.LinuxContainerResources) error {
	_, err := c.runtime.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: linux})
	return wrap(err, "update resources of container %s", id)
}

// ReopenLog makes the runtime open the container's log path anew, after it was
// renamed away.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	_, err := c.runtime.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
	return wrap(err, "reopen log of container %s", id)
}

// ContainerStats is what a container uses now.
func (c *Client) ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error) {
	r, err := c.runtime.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: id})
	return r.GetStats(), wrap(err, "read stats of container %s", id)
}

// ExecSync runs a command in a container and waits for it.
func (c *Client) ExecSync(ctx context.Context, id string, command []string, timeoutSeconds int64) (stdout, stderr []byte, exitCode int32, err error) {
	r, err := c.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: timeoutSeconds})
	return r.GetStdout(), r.GetStderr(), r.GetExitCode(), wrap(err, "exec in container %s", id)
}

// Events delivers the runtime's events until ctx ends, and connects again when
// the stream breaks.
func (c *Client) Events(ctx context.Context, handle func(*cri.ContainerEventResponse), reconnected, lost func()) error {
	for {
		// WaitForReady makes the call wait while the runtime is away.
		stream, err := c.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
		connected := err == nil
		if connected {
			// The call returns before the runtime has subscribed the stream;
			// its headers say that it has, where it sends any.
			reconnected()
			err = receive(stream, handle)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s, ok := status.FromError(err); ok && s.Code() == codes.Unimplemented {
			return wrap(err, "read events of container runtime")
		}
		if connected {
			lost()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func receive(stream cri.RuntimeService_GetContainerEventsClient, handle func(*cri.ContainerEventResponse)) error {
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		handle(e)
	}
}
