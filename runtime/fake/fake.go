// Package fake is a container runtime that keeps everything in memory: for
// tests of the agent. Containers are goroutines that run the Program of their
// image; logs are really written when the sandbox names a log directory that
// exists.
//
// What it does is observable as text (Calls), and any call can be made to fail
// (Fail).
package fake

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
)

// Runtime is the fake. Its methods may be called from any goroutine.
type Runtime struct {
	clock clock.PassiveClock

	mu         sync.Mutex
	sandboxes  map[string]*sandbox
	containers map[string]*container
	images     map[string]*cri.Image
	programs   map[string]Program
	commands   Command
	check      func(*cri.ContainerConfig) error
	failures   map[string][]error
	calls      []string
	watchers   map[int]*watcher
	next       int
	address    netip.Addr
	notReady   error
	silent     bool
	forward    func(port int32, conn net.Conn) error
	hold       func(image string)
	private    bool
}

var _ runtime.Runtime = (*Runtime)(nil)

type sandbox struct {
	config  *cri.PodSandboxConfig
	status  *cri.PodSandboxStatus
	handler string
}

// New is an empty runtime with no images. It reads the time of its records
// from c and starts no goroutine until a container is started.
func New(c clock.PassiveClock) *Runtime {
	return &Runtime{
		clock:      c,
		sandboxes:  map[string]*sandbox{},
		containers: map[string]*container{},
		images:     map[string]*cri.Image{},
		programs:   map[string]Program{},
		failures:   map[string][]error{},
		watchers:   map[int]*watcher{},
		address:    netip.MustParseAddr("10.42.0.1"),
	}
}

// AddImage makes an image present, with the user that its configuration names
// (nil for none given).
func (r *Runtime) AddImage(ref string, uid *int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addImage(ref, uid)
}

func (r *Runtime) addImage(ref string, uid *int64) *cri.Image {
	image := &cri.Image{Id: "sha256:" + ref, RepoTags: []string{ref}, RepoDigests: []string{ref + "@sha256:0"}, Size: 1 << 20}
	if uid != nil {
		image.Uid = &cri.Int64Value{Value: *uid}
	}
	r.images[ref] = image
	return image
}

// SetProgram says what the containers of an image do. Without one they run
// until they are stopped, and then exit with 0.
func (r *Runtime) SetProgram(image string, p Program) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.programs[image] = p
}

// Command runs a command in a container, by the container's name. It returns
// soon after ctx ends.
type Command func(ctx context.Context, container string, command []string, s runtime.Streams) (code int)

// SetCommands answers exec calls. Without one they succeed with no output.
func (r *Runtime) SetCommands(f Command) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = f
}

// SetCheck decides whether a container can be started.
func (r *Runtime) SetCheck(f func(*cri.ContainerConfig) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check = f
}

// SetForward answers port-forward calls.
func (r *Runtime) SetForward(f func(port int32, conn net.Conn) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forward = f
}

// SetReady makes Ready answer with err: a *runtime.NotReady is what the runtime says of
// itself, context.DeadlineExceeded that it says nothing.
func (r *Runtime) SetReady(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notReady = err
}

// Fail makes the next call of a method (by its name, "RunSandbox") fail.
func (r *Runtime) Fail(method string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures[method] = append(r.failures[method], err)
}

// Calls are the changing calls so far, one a line: "RunSandbox web/0".
func (r *Runtime) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

// enter notes a call and takes its injected failure. r.mu is held.
func (r *Runtime) enter(method, format string, args ...any) error {
	r.calls = append(r.calls, method+" "+fmt.Sprintf(format, args...))
	if list := r.failures[method]; len(list) > 0 {
		r.failures[method] = list[1:]
		return list[0]
	}
	return nil
}

func (r *Runtime) now() int64 { return r.clock.Now().UnixNano() }

// Version names the fake.
func (r *Runtime) Version(context.Context) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0", RuntimeApiVersion: "v1"}, nil
}

// Ready answers what SetReady said.
func (r *Runtime) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notReady
}

// Offers is what containerd with runc says.
func (r *Runtime) Offers(context.Context) (runtime.Offers, error) {
	all := &cri.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}
	return runtime.Offers{
		Handlers: []*cri.RuntimeHandler{{Features: all}, {Name: "runc", Features: all}},
		Features: &cri.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

func notFound(what, id string) error { return fmt.Errorf("%s %q: %w", what, id, runtime.ErrNotFound) }
