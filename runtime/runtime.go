// Package runtime is what a node agent needs of a container runtime: sandboxes,
// containers, images and the events about them. runtime/cri speaks to any CRI
// endpoint, runtime/fake keeps it all in memory; runtime/runtimetest is the one
// suite that both pass.
//
// The messages are those of the Container Runtime Interface
// (k8s.io/cri-api/pkg/apis/runtime/v1), the field's own vocabulary; the calls
// are idempotent where the CRI says so: stopping or removing what is not there
// succeeds.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrNotFound is what errors.Is finds in an error about a sandbox, container or
// image that the runtime does not know.
var ErrNotFound = errors.New("not found")

// ErrUnavailable is what errors.Is finds in the error of a call during which the
// runtime, or what it needed for it, was away.
var ErrUnavailable = errors.New("unavailable")

// Error is a refusal of the runtime.
type Error struct {
	Doing string // what it was asked to do, and to what
	Said  string
	// Kind is ErrNotFound, ErrUnavailable, an error of the context, or nil.
	Kind error
}

func (e *Error) Error() string {
	if e.Kind != nil {
		return e.Doing + ": " + e.Said + ": " + e.Kind.Error()
	}
	return e.Doing + ": " + e.Said
}

func (e *Error) Unwrap() error { return e.Kind }

// NotReady is what a runtime says of itself that cannot run pods.
type NotReady struct{ Condition, Reason, Message string }

// Error has the kubelet's words.
func (e *NotReady) Error() string {
	what := "container runtime"
	if e.Condition == cri.NetworkReady {
		what += " network"
	}
	return fmt.Sprintf("%s not ready: %s=false reason:%s message:%s", what, e.Condition, e.Reason, e.Message)
}

// Said is what the runtime said, for objects that say themselves what was being
// done: an event that named each attempt would never be the same event again.
func Said(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Said
	}
	return err.Error()
}

// CutOff says that a call ended without the runtime's saying what became of it.
func CutOff(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Runtime runs sandboxes and containers. All methods may be called from any
// goroutine; each honours the context's deadline.
type Runtime interface {
	Version(ctx context.Context) (*cri.VersionResponse, error)
	// Ready is nil when runtime and network say they are ready. Its error is a
	// *NotReady if they say that they are not, and that of the context if they say
	// nothing.
	Ready(ctx context.Context) error
	// Offers is what the runtime says that it can do.
	Offers(ctx context.Context) (Offers, error)

	RunSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (id string, err error)
	StopSandbox(ctx context.Context, id string) error
	RemoveSandbox(ctx context.Context, id string) error
	SandboxStatus(ctx context.Context, id string) (*cri.PodSandboxStatus, error)
	// Sandboxes are all that have these labels, ended ones too.
	Sandboxes(ctx context.Context, labels map[string]string) ([]*cri.PodSandbox, error)

	CreateContainer(ctx context.Context, sandbox string, config *cri.ContainerConfig, sandboxConfig *cri.PodSandboxConfig) (id string, err error)
	StartContainer(ctx context.Context, id string) error
	// StopContainer sends the stop signal, and the kill signal after timeout
	// seconds; it returns once the container has ended.
	StopContainer(ctx context.Context, id string, timeoutSeconds int64) error
	RemoveContainer(ctx context.Context, id string) error
	ContainerStatus(ctx context.Context, id string) (*cri.ContainerStatus, error)
	// Containers are all that have these labels, ended ones too.
	Containers(ctx context.Context, labels map[string]string) ([]*cri.Container, error)
	UpdateContainer(ctx context.Context, id string, linux *cri.LinuxContainerResources) error
	ReopenLog(ctx context.Context, id string) error
	ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error)

	// Events delivers what happens to containers and sandboxes until the
	// context ends. Events may be lost when the connection to the runtime is, at
	// which lost is called, and then, as at the beginning, reconnected: the caller
	// looks at everything anew. All are called from the caller's goroutine.
	Events(ctx context.Context, handle func(*cri.ContainerEventResponse), reconnected, lost func()) error

	// ExecSync runs a command and collects its output (at most 16 MiB).
	ExecSync(ctx context.Context, id string, command []string, timeoutSeconds int64) (stdout, stderr []byte, exitCode int32, err error)
	// Exec, Attach and PortForward connect streams until the command ends, the
	// container ends or the context does.
	Exec(ctx context.Context, id string, command []string, streams Streams) error
	Attach(ctx context.Context, id string, streams Streams) error
	PortForward(ctx context.Context, sandbox string, port int32, conn net.Conn) error

	Images
}

// Offers is what a runtime can do, by handler and as a whole.
type Offers struct {
	Handlers []*cri.RuntimeHandler
	Features *cri.RuntimeFeatures
}

// Images keeps the node's images.
type Images interface {
	// Image is ErrNotFound when the image is not on the node.
	Image(ctx context.Context, ref string) (*cri.Image, error)
	ListImages(ctx context.Context) ([]*cri.Image, error)
	PullImage(ctx context.Context, ref string, auth *cri.AuthConfig, sandbox *cri.PodSandboxConfig) (id string, err error)
	// PullProgress says how many bytes of an image that is being pulled have been
	// fetched, and of how many. It fails where that is not known.
	PullProgress(ctx context.Context, ref string) (fetched, total int64, err error)
	RemoveImage(ctx context.Context, ref string) error
	// ImportImage reads an OCI layout or docker-archive tar (possibly
	// compressed) and answers with the names it gave.
	ImportImage(ctx context.Context, archive io.Reader) (names []string, err error)
}

// Streams are the ends of an exec or attach; nil where the client wants none.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize delivers terminal sizes until it is closed; may be nil.
	Resize <-chan TerminalSize
}

// TerminalSize is in characters.
type TerminalSize struct{ Width, Height uint16 }

// ExitError is the error of a command that ran and did not exit with 0.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return "command terminated with a non-zero exit code" }

// Exit is how and when a container ended, and whether the kernel killed any of its
// processes for memory.
type Exit struct {
	Code      int32
	At        time.Time
	OOMKilled bool
}
