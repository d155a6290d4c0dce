// Package image makes sure that a container's image is on the node before the
// container is created: pull policy, credentials, one pull at a time for each
// image. When to try again after a failure is not decided here.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime"
)

// Error is why an image is not there, with the container's waiting reason.
type Error struct {
	Reason string // ErrImagePull, RegistryUnavailable, ErrImageNeverPull, …
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Request asks for one image.
type Request struct {
	Image   string
	Policy  v1.PullPolicy
	Secrets []*v1.Secret // credentials, those of the pod in order
	// Pod is whom it is for: providers may be given a token of its account.
	Pod     *v1.Pod
	Sandbox *cri.PodSandboxConfig
	// Event notes what happens, e.g. "Pulling".
	Event func(kind, reason, message string)
}

// Config is what a Puller needs.
type Config struct {
	Runtime runtime.Images
	Clock   clock.WithTicker
	// Dir keeps what is known of pulled images.
	Dir string
	Settings
	// Providers give credentials beside the pods' secrets.
	Providers ProviderFiles
	// Accounts are needed by providers that want tokens.
	Accounts Accounts
	Metrics  prometheus.Registerer
	// Pulled, when not nil, is called after each pull that brought an image. It does
	// not block.
	Pulled func()
	// Measured, when not nil, is told of each pull, how many bytes the image has and how
	// long it took with the time that it waited for others.
	Measured func(size uint64, took time.Duration)
	Log      *slog.Logger
}

// Settings are what whoever runs the node chooses; they are of the
// KubeletConfiguration. Zero is good for each.
type Settings struct {
	// Parallel bounds the pulls at the same time: 1 lets one follow the other,
	// negative is no bound, 0 is DefaultParallel.
	Parallel int
	// Verify says which images need credentials that are on the node already
	// ("": NeverVerifyPreloadedImages); Allowlist is for
	// NeverVerifyAllowlistedImages: repositories, or PREFIX/*.
	Verify    Verification
	Allowlist []string
}

// DefaultParallel is how many images are pulled at the same time.
const DefaultParallel = 4

// Puller pulls images. Its methods may be called from any goroutine.
type Puller struct {
	Config
	slots     chan struct{} // nil for no bound
	access    *access
	providers []*provider

	mu     sync.Mutex
	flying map[string]*flight
}

type flight struct {
	done chan struct{}
	took time.Duration
	err  error
}

// New makes a puller.
func New(c Config) (*Puller, error) {
	p := &Puller{Config: c, flying: map[string]*flight{}}
	switch {
	case c.Parallel == 0:
		p.slots = make(chan struct{}, DefaultParallel)
	case c.Parallel > 0:
		p.slots = make(chan struct{}, c.Parallel)
	}
	var err error
	if p.providers, err = loadProviders(c.Providers, c.Clock, c.Accounts, newMetrics(c.Metrics)); err != nil {
		return nil, err
	}
	if p.access, err = openAccess(c.Dir, c.Verify, c.Allowlist, c.Clock); p.access == nil {
		return nil, err
	}
	if err != nil {
		c.Log.Warn("some pulled images will be asked for again", "err", err)
	}
	return p, nil
}

// Listed tells which images were on the node at a time not before since, so
// that the others can be forgotten.
func (p *Puller) Listed(list []*cri.Image, since time.Time) {
	if err := p.access.prune(list, since); err != nil {
		p.Log.Warn("images that are gone are not forgotten", "err", err)
	}
}

// Ensure answers with the image once it is on the node. Its error is an *Error.
func (p *Puller) Ensure(ctx context.Context, r Request) (*cri.Image, error) {
	if _, err := name.ParseReference(r.Image, name.WeakValidation); err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", r.Image, r.Image, err)
		r.Event(v1.EventTypeWarning, "InspectFailed", message)
		return nil, &Error{"InvalidImageName", errors.New(message)}
	}
	have := sync.OnceValue(func() []credential { return p.credentials(ctx, r) })
	if r.Policy == v1.PullAlways {
		return p.pull(ctx, r, have)
	}
	found, err := p.Runtime.Image(ctx, r.Image)
	switch {
	case err == nil && p.access.allows(r.Image, found, have):
		r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
		return found, nil
	case err != nil && !errors.Is(err, runtime.ErrNotFound):
		r.Event(v1.EventTypeWarning, "InspectFailed", fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err))
		return nil, &Error{"ImageInspectError", fmt.Errorf("failed to inspect image %q: %w", r.Image, err)}
	case r.Policy == v1.PullNever:
		// Also when it is there and this pod may not have it: that it is there is
		// nothing that the pod is to know.
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		r.Event(v1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil, &Error{"ErrImageNeverPull", errors.New(message)}
	}
	return p.pull(ctx, r, have)
}

func (p *Puller) pull(ctx context.Context, r Request, have func() []credential) (*cri.Image, error) {
	r.Event(v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	start := p.Clock.Now()
	f := p.join(ctx, r, have())
	if err := p.await(ctx, r, f, start); err != nil {
		return nil, &Error{"ErrImagePull", err}
	}
	if f.err != nil {
		r.Event(v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", r.Image, f.err))
		return nil, refusal(r.Image, f.err)
	}
	found, err := p.Runtime.Image(ctx, r.Image)
	if err != nil {
		return nil, &Error{"ImageInspectError", fmt.Errorf("inspect image %q after pulling it: %w", r.Image, err)}
	}
	took := p.Clock.Since(start)
	if p.Measured != nil {
		p.Measured(found.Size, took)
	}
	r.Event(v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.",
		r.Image, f.took.Truncate(time.Millisecond), took.Truncate(time.Millisecond), found.Size))
	return found, nil
}

// refusal gives an error of a pull the reason that runtimes mark it with.
func refusal(image string, err error) *Error {
	for reason, why := range map[string]string{
		"RegistryUnavailable": "the registry is unavailable", "SignatureValidationFailed": "the signature validation failed",
	} {
		if rest, ok := strings.CutPrefix(err.Error(), reason); ok {
			return &Error{reason, fmt.Errorf("image pull failed for %s because %s%s", image, why, rest)}
		}
	}
	return &Error{"ErrImagePull", err}
}

// Between two events about a pull that goes on.
const (
	firstProgress = 10 * time.Second
	mostProgress  = 5 * time.Minute
)

// await waits for a pull, and says from time to time how far it is.
func (p *Puller) await(ctx context.Context, r Request, f *flight, start time.Time) error {
	pause := firstProgress
	timer := p.Clock.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-f.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C():
		}
		said := fmt.Sprintf("Still pulling image %q after %v", r.Image, p.Clock.Since(start).Truncate(time.Second))
		if got, total, err := p.Runtime.PullProgress(ctx, r.Image); err == nil && total > 0 {
			said += fmt.Sprintf(": %d of %d bytes fetched", got, total)
		}
		r.Event(v1.EventTypeNormal, "Pulling", said)
		pause = min(2*pause, mostProgress)
		timer.Reset(pause)
	}
}

// credentials are those of the secrets, and then those of providers. One that
// fails gives none: the image may need none.
func (p *Puller) credentials(ctx context.Context, r Request) []credential {
	out := credentials(r.Image, r.Secrets)
	for _, from := range p.providers {
		more, err := from.credentials(ctx, r.Image, r.Pod)
		if err != nil {
			p.Log.Warn("no credentials from a provider", "pod", podName(r.Pod), "err", err)
		}
		out = append(out, more...)
	}
	return out
}

// join starts a pull, or joins the one with the same credentials that is under
// way. The pull goes on when one of those who wait gives up: its layers are of
// use to the next.
func (p *Puller) join(ctx context.Context, r Request, creds []credential) *flight {
	key := r.Image
	for _, c := range creds {
		key += fmt.Sprintf("\x00%+v %+v", c.source, c.account)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.flying[key]; f != nil {
		return f
	}
	f := &flight{done: make(chan struct{})}
	p.flying[key] = f
	go func() {
		if p.slots != nil {
			p.slots <- struct{}{}
		}
		start := p.Clock.Now()
		f.err = p.try(context.WithoutCancel(ctx), r, creds)
		f.took = p.Clock.Since(start)
		if f.err == nil && p.Pulled != nil {
			p.Pulled()
		}
		if p.slots != nil {
			<-p.slots
		}
		p.mu.Lock()
		delete(p.flying, key)
		p.mu.Unlock()
		close(f.done)
	}()
	return f
}

// try pulls with each of the credentials in turn, unless the image has come by
// another pull since it was looked for.
func (p *Puller) try(ctx context.Context, r Request, creds []credential) error {
	if r.Policy != v1.PullAlways {
		found, err := p.Runtime.Image(ctx, r.Image)
		if err == nil && p.access.allows(r.Image, found, func() []credential { return creds }) {
			return nil
		}
	}
	done, err := p.access.begin(r.Image)
	if err != nil {
		return err
	}
	if len(creds) == 0 {
		creds = []credential{{}}
	}
	var errs []error
	for i := range creds {
		id, err := p.Runtime.PullImage(ctx, r.Image, creds[i].auth, r.Sandbox)
		if err == nil {
			return done(id, &creds[i])
		}
		errs = append(errs, errors.New(runtime.Said(err)))
	}
	if err := done("", nil); err != nil {
		p.Log.Warn("a failed pull is not forgotten", "image", r.Image, "err", err)
	}
	return utilerrors.NewAggregate(errs)
}
