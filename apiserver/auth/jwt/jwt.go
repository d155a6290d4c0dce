package jwt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	"k8s.io/utils/clock"
)

// AllAlgorithms are the signing algorithms that a configuration file allows.
func AllAlgorithms() []string { return oidc.AllValidSigningAlgorithms() }

// Options of New.
type Options struct {
	// Audiences are the API server's own, those of whoever is believed.
	Audiences []string
	// Own are the server's own issuers, which a configuration may not name.
	Own []string
	// Algorithms are those by which tokens may be signed; none: RS256.
	Algorithms []string
	// ServerID names this server in metrics.
	ServerID string
	// Clock is the real one when nil.
	Clock clock.Clock
}

// Authenticator believes tokens by the configuration of the moment. It is safe
// for use by any goroutine.
type Authenticator struct {
	ctx     context.Context
	o       Options
	current atomic.Pointer[generation]
	// ending counts the configurations that are about to be given up.
	ending sync.WaitGroup
}

// generation is what was made of one configuration.
type generation struct {
	authenticator.Token
	issuers []string
	ready   []func() error
	cancel  context.CancelFunc
}

// New starts to ask the issuers for their keys, and goes on asking until ctx
// ends. Tokens of an issuer that has not answered yet are refused.
func New(ctx context.Context, o Options, c *apiserver.AuthenticationConfiguration) (*Authenticator, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	a := &Authenticator{ctx: ctx, o: o}
	g, err := a.generation(c)
	if err != nil {
		return nil, err
	}
	a.current.Store(g)
	return a, nil
}

// AuthenticateToken implements authenticator.Token. Of tokens whose issuer the
// configuration does not name it has no opinion.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return a.current.Load().AuthenticateToken(ctx, token)
}

// bundle is an authority in PEM as the library asks for it.
type bundle string

func (b bundle) CurrentCABundleContent() []byte { return []byte(b) }

func (a *Authenticator) generation(c *apiserver.AuthenticationConfiguration) (*generation, error) {
	ctx, cancel := context.WithCancel(a.ctx)
	g := &generation{cancel: cancel}
	compiler := cel.NewDefaultCompiler()
	var all []authenticator.Token
	for _, j := range c.JWT {
		o := oidc.Options{
			JWTAuthenticator: j, Compiler: compiler, SupportedSigningAlgs: a.o.Algorithms,
			DisallowedIssuers: a.o.Own, APIServerID: a.o.ServerID,
		}
		if ca := j.Issuer.CertificateAuthority; ca != "" {
			o.CAContentProvider = bundle(ca)
		}
		one, err := oidc.New(ctx, o)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("issuer %s: %w", j.Issuer.URL, err)
		}
		all = append(all, one)
		g.ready = append(g.ready, one.HealthCheck)
		g.issuers = append(g.issuers, j.Issuer.URL)
	}
	g.Token = authenticator.WrapAudienceAgnosticToken(a.o.Audiences, union.NewFailOnError(all...))
	return g, nil
}

func (g *generation) unready() error {
	var errs []error
	for _, check := range g.ready {
		errs = append(errs, check())
	}
	return errors.Join(errs...)
}

// readyEvery is how often the issuers of a new configuration are looked at.
const readyEvery = 100 * time.Millisecond

// How long a configuration whose place was taken goes on for requests under way,
// and how long after that what is counted of its issuers is forgotten.
const (
	lastRequests = time.Minute
	lastCounts   = 30 * time.Second
)

// Reload goes on with a configuration that ValidateNext has found good, once all
// its issuers have answered. It gives up when ctx ends, and then everything
// stays as it was. It is not to be called twice at once.
func (a *Authenticator) Reload(ctx context.Context, c *apiserver.AuthenticationConfiguration) error {
	next, err := a.generation(c)
	if err != nil {
		return err
	}
	var why error
	waited := wait.PollUntilContextCancel(ctx, readyEvery, true, func(context.Context) (bool, error) {
		why = next.unready()
		return why == nil, nil
	})
	if waited != nil || why != nil {
		next.cancel()
		return errors.Join(why, waited)
	}
	a.ending.Go(a.ends(a.current.Swap(next), next))
	return nil
}

// ends is how a configuration goes whose place another one took.
func (a *Authenticator) ends(old, next *generation) func() {
	return func() {
		pause := func(d time.Duration) {
			t := a.o.Clock.NewTimer(d)
			defer t.Stop()
			select {
			case <-a.ctx.Done():
			case <-t.C():
			}
		}
		pause(lastRequests)
		old.cancel()
		pause(lastCounts)
		for _, issuer := range old.issuers {
			if !slices.Contains(next.issuers, issuer) {
				oidc.DeleteJWKSFetchMetrics(issuer, a.o.ServerID)
			}
		}
	}
}
