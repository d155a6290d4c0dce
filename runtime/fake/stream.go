package fake

import (
	"context"
	"fmt"
	"io"
	"net"

	"hansa.dev/hansa/runtime"
)

func (r *Runtime) command(id string, command []string) (string, int, error) {
	r.mu.Lock()
	c := r.containers[id]
	f := r.commands
	if c == nil || !c.running() {
		r.mu.Unlock()
		return "", 0, notFound("running container", id)
	}
	err := r.enter("Exec", "%s %q", c.config.GetMetadata().GetName(), command)
	name := c.config.GetMetadata().GetName()
	r.mu.Unlock()
	if err != nil || f == nil {
		return "", 0, err
	}
	out, code := f(name, command)
	return out, code, nil
}

// ExecSync answers with what SetCommands said.
func (r *Runtime) ExecSync(_ context.Context, id string, command []string, _ int64) (stdout, stderr []byte, exitCode int32, err error) {
	out, code, err := r.command(id, command)
	return []byte(out), nil, int32(code), err
}

// Exec writes what SetCommands said to Stdout; the command "cat" copies Stdin.
func (r *Runtime) Exec(_ context.Context, id string, command []string, streams runtime.Streams) error {
	out, code, err := r.command(id, command)
	if err != nil {
		return err
	}
	if len(command) == 1 && command[0] == "cat" && streams.Stdin != nil && streams.Stdout != nil {
		_, err := io.Copy(streams.Stdout, streams.Stdin)
		return err
	}
	if streams.Stdout != nil {
		if _, err := io.WriteString(streams.Stdout, out); err != nil {
			return err
		}
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
