// Package image makes sure that a container's image is on the node before the
// container is created: pull policy, credentials, one pull at a time for each
// image. When to try again after a failure is not decided here.
package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
)

// Error is why an image is not there, with the container's waiting reason.
type Error struct {
	Reason string // ErrImagePull, ErrImageNeverPull, InvalidImageName, ImageInspectError
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Request asks for one image.
type Request struct {
	Image   string
	Policy  v1.PullPolicy
	Secrets []*v1.Secret // credentials, those of the pod in order
	Sandbox *cri.PodSandboxConfig
	// Event notes what happens, e.g. "Pulling".
	Event func(kind, reason, message string)
}

// Puller pulls images. Its methods may be called from any goroutine.
type Puller struct {
	runtime runtime.Images
	clock   clock.PassiveClock
	slots   chan struct{}

	mu     sync.Mutex
	flying map[string]*flight
}

type flight struct {
	done chan struct{}
	took time.Duration
	err  error
}

// parallelPulls bounds the pulls of different images at the same time.
const parallelPulls = 4

// New makes a puller.
func New(r runtime.Images, c clock.PassiveClock) *Puller {
	return &Puller{runtime: r, clock: c, slots: make(chan struct{}, parallelPulls), flying: map[string]*flight{}}
}

// Ensure answers with the image once it is on the node. Its error is an *Error.
func (p *Puller) Ensure(ctx context.Context, r Request) (*cri.Image, error) {
	if _, err := name.ParseReference(r.Image, name.WeakValidation); err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", r.Image, r.Image, err)
		r.Event(v1.EventTypeWarning, "InspectFailed", message)
		return nil, &Error{"InvalidImageName", errors.New(message)}
	}
	if r.Policy != v1.PullAlways {
		found, err := p.runtime.Image(ctx, r.Image)
		if err == nil {
			r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
			return found, nil
		}
		if !errors.Is(err, runtime.ErrNotFound) {
			r.Event(v1.EventTypeWarning, "InspectFailed", fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err))
			return nil, &Error{"ImageInspectError", fmt.Errorf("failed to inspect image %q: %w", r.Image, err)}
		}
		if r.Policy == v1.PullNever {
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
			r.Event(v1.EventTypeWarning, "ErrImageNeverPull", message)
			return nil, &Error{"ErrImageNeverPull", errors.New(message)}
		}
	}
	return p.pull(ctx, r)
}

func (p *Puller) pull(ctx context.Context, r Request) (*cri.Image, error) {
	r.Event(v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	start := p.clock.Now()
	f := p.join(ctx, r)
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, &Error{"ErrImagePull", ctx.Err()}
	}
	if f.err != nil {
		r.Event(v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, f.err))
		return nil, &Error{"ErrImagePull", f.err}
	}
	found, err := p.runtime.Image(ctx, r.Image)
	if err != nil {
		return nil, &Error{"ImageInspectError", fmt.Errorf("inspect image %q after pulling it: %w", r.Image, err)}
	}
	r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		r.Image, f.took.Truncate(time.Millisecond), p.clock.Since(start).Truncate(time.Millisecond), found.Size))
	return found, nil
}

// join starts a pull, or joins the one with the same credentials that is under
// way. The pull goes on when one of those who wait gives up: its layers are of
// use to the next.
func (p *Puller) join(ctx context.Context, r Request) *flight {
	auths := credentials(r.Image, r.Secrets)
	key := r.Image
	for _, a := range auths {
		key += "\x00" + a.Username + "\x00" + a.Password + "\x00" + a.IdentityToken + "\x00" + a.RegistryToken
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.flying[key]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	p.flying[key] = f
	go func() {
		p.slots <- struct{}{}
		start := p.clock.Now()
		f.err = p.try(context.WithoutCancel(ctx), r, auths)
		f.took = p.clock.Since(start)
		<-p.slots
		p.mu.Lock()
		delete(p.flying, key)
		p.mu.Unlock()
		close(f.done)
	}()
	return f
}

// try pulls with each of the credentials in turn, unless the image has come by
// another pull since it was looked for.
func (p *Puller) try(ctx context.Context, r Request, auths []*cri.AuthConfig) error {
	if r.Policy != v1.PullAlways {
		if _, err := p.runtime.Image(ctx, r.Image); err == nil {
			return nil
		}
	}
	if len(auths) == 0 {
		auths = []*cri.AuthConfig{nil}
	}
	var errs []error
	for _, auth := range auths {
		_, err := p.runtime.PullImage(ctx, r.Image, auth, r.Sandbox)
		if err == nil {
			return nil
		}
		errs = append(errs, errors.New(runtime.Said(err)))
	}
	return errors.Join(errs...)
}
