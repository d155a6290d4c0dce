package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// Exec runs a command with streams; see runtime.Runtime.
func (c *Client) Exec(ctx context.Context, id string, command []string, s runtime.Streams) error {
	r, err := c.runtime.Exec(ctx, &cri.ExecRequest{
		ContainerId: id, Cmd: command, Tty: s.TTY,
		Stdin: s.Stdin != nil, Stdout: s.Stdout != nil, Stderr: s.Stderr != nil && !s.TTY,
	})
	if err != nil {
		return wrap(err, "exec in container %s", id)
	}
	return stream(ctx, r.GetUrl(), s)
}

// Attach connects to the container's first process; see runtime.Runtime.
func (c *Client) Attach(ctx context.Context, id string, s runtime.Streams) error {
	r, err := c.runtime.Attach(ctx, &cri.AttachRequest{
		ContainerId: id, Tty: s.TTY,
		Stdin: s.Stdin != nil, Stdout: s.Stdout != nil, Stderr: s.Stderr != nil && !s.TTY,
	})
	if err != nil {
		return wrap(err, "attach to container %s", id)
	}
	return stream(ctx, r.GetUrl(), s)
}

// stream speaks the remote command protocol with the runtime's streaming server,
// which listens on this machine's loopback and knows us by the URL's token.
func stream(ctx context.Context, raw string, s runtime.Streams) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("container runtime's streaming address: %w", err)
	}
	exec, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: u.Scheme + "://" + u.Host}, http.MethodPost, u)
	if err != nil {
		return fmt.Errorf("connect to container runtime's streaming server: %w", err)
	}
	o := remotecommand.StreamOptions{Stdin: s.Stdin, Stdout: s.Stdout, Tty: s.TTY}
	if !s.TTY {
		o.Stderr = s.Stderr
	}
	if s.Resize != nil {
		o.TerminalSizeQueue = sizes(s.Resize)
	}
	err = exec.StreamWithContext(ctx, o)
	var exit utilexec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return &runtime.ExitError{Code: exit.ExitStatus()}
	}
	return err
}

type sizes <-chan runtime.TerminalSize

// Next is the remotecommand.TerminalSizeQueue; nil ends it.
func (q sizes) Next() *remotecommand.TerminalSize {
	s, ok := <-q
	if !ok {
		return nil
	}
	return &remotecommand.TerminalSize{Width: s.Width, Height: s.Height}
}

// portForwardProtocol is the only one that runtimes' streaming servers speak.
const portForwardProtocol = "portforward.k8s.io"

// PortForward joins conn to a port inside the sandbox until either end closes.
// It closes conn.
func (c *Client) PortForward(ctx context.Context, sandbox string, port int32, conn net.Conn) error {
	defer conn.Close()
	r, err := c.runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sandbox, Port: []int32{port}})
	if err != nil {
		return wrap(err, "forward port %d of sandbox %s", port, sandbox)
	}
	u, err := url.Parse(r.GetUrl())
	if err != nil {
		return fmt.Errorf("container runtime's streaming address: %w", err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: u.Scheme + "://" + u.Host})
	if err != nil {
		return fmt.Errorf("connect to container runtime's streaming server: %w", err)
	}
	peer, _, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u).Dial(portForwardProtocol)
	if err != nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandbox, err)
	}
	defer peer.Close()
	stop := context.AfterFunc(ctx, func() { peer.Close(); conn.Close() })
	defer stop()

	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	errs, err := peer.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandbox, err)
	}
	errs.Close() // we write nothing on it
	failed := make(chan error, 1)
	go func() {
		message, err := io.ReadAll(errs)
		if err == nil && len(message) > 0 {
			err = errors.New(string(message))
		}
		failed <- err
	}()

	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := peer.CreateStream(headers)
	if err != nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandbox, err)
	}
	// The pod's end closing ends it all; ours closing only ends what we send.
	go func() {
		io.Copy(data, conn) //nolint:errcheck // whoever closed first ends the copy
		data.Close()
	}()
	io.Copy(conn, data) //nolint:errcheck // as above
	conn.Close()
	if err := <-failed; err != nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandbox, err)
	}
	return nil
}
