package fake

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"hansa.dev/hansa/runtime"
)

// command runs one in a running container.
func (r *Runtime) command(ctx context.Context, id string, command []string, s runtime.Streams) (int, error) {
	r.mu.Lock()
	c := r.containers[id]
	f := r.commands
	if c == nil || !c.running() {
		r.mu.Unlock()
		return 0, notFound("running container", id)
	}
	name := c.config.GetMetadata().GetName()
	err := r.enter("Exec", "%s %q", name, command)
	r.mu.Unlock()
	if err != nil || f == nil {
		return 0, err
	}
	code := f(ctx, name, command, s)
	return code, ctx.Err()
}

// ExecSync collects the output of a command.
func (r *Runtime) ExecSync(ctx context.Context, id string, command []string, timeoutSeconds int64) (stdout, stderr []byte, exitCode int32, err error) {
	if timeoutSeconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(timeoutSeconds)*time.Second)
		defer cancel()
	}
	var out, errOut bytes.Buffer
	code, err := r.command(ctx, id, command, runtime.Streams{Stdout: &out, Stderr: &errOut})
	return out.Bytes(), errOut.Bytes(), int32(code), err
}

// Exec runs a command with the client's streams.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, streams runtime.Streams) error {
	code, err := r.command(ctx, id, command, streams)
	if err != nil {
		return err
	}
	if code != 0 {
		return &runtime.ExitError{Code: code}
	}
	return nil
}

// Attach waits until the container ends.
func (r *Runtime) Attach(ctx context.Context, id string, streams runtime.Streams) error {
	r.mu.Lock()
	c := r.containers[id]
	r.mu.Unlock()
	if c == nil {
		return notFound("container", id)
	}
	if streams.Stdout != nil {
		fmt.Fprintf(streams.Stdout, "attached to %s\n", c.config.GetMetadata().GetName())
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// PortForward hands the connection to what SetForward gave.
func (r *Runtime) PortForward(_ context.Context, sandbox string, port int32, conn net.Conn) error {
	r.mu.Lock()
	s, f := r.sandboxes[sandbox], r.forward
	r.mu.Unlock()
	if s == nil {
		return notFound("sandbox", sandbox)
	}
	if f == nil {
		return fmt.Errorf("forward to port %d: connection refused", port)
	}
	return f(port, conn)
}
