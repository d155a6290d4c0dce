package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
)

// operation is one that the runtime is asked for.
type operation struct {
	total, errors prometheus.Counter
	took          prometheus.Observer
}

// operations are those of the kubelet that are made here, by its names.
type operations struct {
	version, status                                                              operation
	runSandbox, stopSandbox, removeSandbox, sandboxStatus, listSandboxes         operation
	create, start, stop, remove, containerStatus, list, update, reopenLog, stats operation
	execSync, exec, attach, portForward                                          operation
	image, listImages, pull, removeImage                                         operation
}

// newOperations makes a series for each, so that nothing is looked up when one is
// made.
func newOperations(to maker) operations {
	total := to.counters("runtime_operations_total", "Cumulative number of runtime operations by operation type.", "operation_type")
	took := to.histograms("runtime_operations_duration_seconds", "Duration in seconds of runtime operations. Broken down by operation type.", prometheus.ExponentialBuckets(.005, 2.5, 14), "operation_type")
	failed := to.counters("runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", "operation_type")
	of := func(name string) operation {
		return operation{total.WithLabelValues(name), failed.WithLabelValues(name), took.WithLabelValues(name)}
	}
	return operations{
		version: of("version"), status: of("status"),
		runSandbox: of("run_podsandbox"), stopSandbox: of("stop_podsandbox"), removeSandbox: of("remove_podsandbox"), sandboxStatus: of("podsandbox_status"), listSandboxes: of("list_podsandbox"),
		create: of("create_container"), start: of("start_container"), stop: of("stop_container"), remove: of("remove_container"), containerStatus: of("container_status"),
		list: of("list_containers"), update: of("update_container"), reopenLog: of("reopen_container_log"), stats: of("container_stats"),
		execSync: of("exec_sync"), exec: of("exec"), attach: of("attach"), portForward: of("port_forward"),
		image: of("image_status"), listImages: of("list_images"), pull: of("pull_image"), removeImage: of("remove_image"),
	}
}

// Runtime is a runtime whose operations are counted.
func (m *Metrics) Runtime(r runtime.Runtime, c clock.PassiveClock) runtime.Runtime {
	if m == nil {
		return r
	}
	return &counted{Runtime: r, clock: c, m: m, do: &m.operations}
}

type counted struct {
	runtime.Runtime
	clock clock.PassiveClock
	m     *Metrics
	do    *operations
}

// did notes an operation that began at a time.
func (c *counted) did(o *operation, began time.Time, err error) {
	o.total.Inc()
	o.took.Observe(c.clock.Since(began).Seconds())
	if err != nil {
		o.errors.Inc()
	}
}

// streamed notes an operation that lasts as long as its client likes: how long says
// nothing of the runtime.
func streamed(o *operation, err error) {
	o.total.Inc()
	var exit *runtime.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.errors.Inc()
	}
}

func (c *counted) Version(ctx context.Context) (*cri.VersionResponse, error) {
	began := c.clock.Now()
	out, err := c.Runtime.Version(ctx)
	c.did(&c.do.version, began, err)
	return out, err
}

func (c *counted) Ready(ctx context.Context) error {
	began := c.clock.Now()
	err := c.Runtime.Ready(ctx)
	var no *runtime.NotReady
	if errors.As(err, &no) {
		c.did(&c.do.status, began, nil)
	} else {
		c.did(&c.do.status, began, err)
	}
	return err
}

func (c *counted) Offers(ctx context.Context) (runtime.Offers, error) {
	began := c.clock.Now()
	out, err := c.Runtime.Offers(ctx)
	c.did(&c.do.status, began, err)
	return out, err
}

func (c *counted) RunSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	began := c.clock.Now()
	id, err := c.Runtime.RunSandbox(ctx, config, handler)
	c.did(&c.do.runSandbox, began, err)
	c.m.sandboxTook.WithLabelValues(handler).Observe(c.clock.Since(began).Seconds())
	if err != nil {
		c.m.sandboxErrors.WithLabelValues(handler).Inc()
	}
	return id, err
}

func (c *counted) StopSandbox(ctx context.Context, id string) error {
	began := c.clock.Now()
	err := c.Runtime.StopSandbox(ctx, id)
	c.did(&c.do.stopSandbox, began, err)
	return err
}

func (c *counted) RemoveSandbox(ctx context.Context, id string) error {
	began := c.clock.Now()
	err := c.Runtime.RemoveSandbox(ctx, id)
	c.did(&c.do.removeSandbox, began, err)
	return err
}

func (c *counted) SandboxStatus(ctx context.Context, id string) (*cri.PodSandboxStatus, error) {
	began := c.clock.Now()
	out, err := c.Runtime.SandboxStatus(ctx, id)
	c.did(&c.do.sandboxStatus, began, err)
	return out, err
}

func (c *counted) Sandboxes(ctx context.Context, labels map[string]string) ([]*cri.PodSandbox, error) {
	began := c.clock.Now()
	out, err := c.Runtime.Sandboxes(ctx, labels)
	c.did(&c.do.listSandboxes, began, err)
	return out, err
}

func (c *counted) CreateContainer(ctx context.Context, sandbox string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	began := c.clock.Now()
	id, err := c.Runtime.CreateContainer(ctx, sandbox, config, sandboxConfig)
	c.did(&c.do.create, began, err)
	return id, err
}

func (c *counted) StartContainer(ctx context.Context, id string) error {
	began := c.clock.Now()
	err := c.Runtime.StartContainer(ctx, id)
	c.did(&c.do.start, began, err)
	return err
}

func (c *counted) StopContainer(ctx context.Context, id string, timeoutSeconds int64) error {
	began := c.clock.Now()
	err := c.Runtime.StopContainer(ctx, id, timeoutSeconds)
	c.did(&c.do.stop, began, err)
	return err
}

func (c *counted) RemoveContainer(ctx context.Context, id string) error {
	began := c.clock.Now()
	err := c.Runtime.RemoveContainer(ctx, id)
	c.did(&c.do.remove, began, err)
	return err
}

func (c *counted) ContainerStatus(ctx context.Context, id string) (*cri.ContainerStatus, error) {
	began := c.clock.Now()
	out, err := c.Runtime.ContainerStatus(ctx, id)
	c.did(&c.do.containerStatus, began, err)
	return out, err
}

func (c *counted) Containers(ctx context.Context, labels map[string]string) ([]*cri.Container, error) {
	began := c.clock.Now()
	out, err := c.Runtime.Containers(ctx, labels)
	c.did(&c.do.list, began, err)
	return out, err
}

func (c *counted) UpdateContainer(ctx context.Context, id string, linux *cri.LinuxContainerResources) error {
	began := c.clock.Now()
	err := c.Runtime.UpdateContainer(ctx, id, linux)
	c.did(&c.do.update, began, err)
	return err
}

func (c *counted) ReopenLog(ctx context.Context, id string) error {
	began := c.clock.Now()
	err := c.Runtime.ReopenLog(ctx, id)
	c.did(&c.do.reopenLog, began, err)
	return err
}

func (c *counted) ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error) {
	began := c.clock.Now()
	out, err := c.Runtime.ContainerStats(ctx, id)
	c.did(&c.do.stats, began, err)
	return out, err
}

func (c *counted) ExecSync(ctx context.Context, id string, command []string, timeoutSeconds int64) (stdout, stderr []byte, exitCode int32, err error) {
	began := c.clock.Now()
	stdout, stderr, exitCode, err = c.Runtime.ExecSync(ctx, id, command, timeoutSeconds)
	c.did(&c.do.execSync, began, err)
	return stdout, stderr, exitCode, err
}

func (c *counted) Exec(ctx context.Context, id string, command []string, streams runtime.Streams) error {
	err := c.Runtime.Exec(ctx, id, command, streams)
	streamed(&c.do.exec, err)
	return err
}

func (c *counted) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	err := c.Runtime.Attach(ctx, id, streams)
	streamed(&c.do.attach, err)
	return err
}

func (c *counted) PortForward(ctx context.Context, sandbox string, port int32, conn net.Conn) error {
	err := c.Runtime.PortForward(ctx, sandbox, port, conn)
	streamed(&c.do.portForward, err)
	return err
}

func (c *counted) Image(ctx context.Context, ref string) (*cri.Image, error) {
	began := c.clock.Now()
	out, err := c.Runtime.Image(ctx, ref)
	if errors.Is(err, runtime.ErrNotFound) { // that is an answer
		c.did(&c.do.image, began, nil)
	} else {
		c.did(&c.do.image, began, err)
	}
	return out, err
}

func (c *counted) ListImages(ctx context.Context) ([]*cri.Image, error) {
	began := c.clock.Now()
	out, err := c.Runtime.ListImages(ctx)
	c.did(&c.do.listImages, began, err)
	return out, err
}

func (c *counted) PullImage(ctx context.Context, ref string, auth *cri.AuthConfig, sandbox *cri.PodSandboxConfig) (string, error) {
	began := c.clock.Now()
	id, err := c.Runtime.PullImage(ctx, ref, auth, sandbox)
	c.did(&c.do.pull, began, err)
	return id, err
}

func (c *counted) RemoveImage(ctx context.Context, ref string) error {
	began := c.clock.Now()
	err := c.Runtime.RemoveImage(ctx, ref)
	c.did(&c.do.removeImage, began, err)
	return err
}

func (c *counted) ImportImage(ctx context.Context, archive io.Reader) ([]string, error) {
	return c.Runtime.ImportImage(ctx, archive) // not of CRI
}
