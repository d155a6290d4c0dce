package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/union"
	authnmetrics "k8s.io/apiserver/pkg/server/options/authenticationconfig/metrics"
	authzmetrics "k8s.io/apiserver/pkg/server/options/authorizationconfig/metrics"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/apiserver/auth/authn"
	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/apiserver/auth/bootstraptoken"
	"hansa.dev/hansa/apiserver/auth/jwt"
	"hansa.dev/hansa/apiserver/auth/node"
	"hansa.dev/hansa/apiserver/auth/rbac"
	"hansa.dev/hansa/internal/librarymetrics"
)

// authMetrics are the names of what the libraries count of it.
var authMetrics = librarymetrics.Collector{
	"apiserver_authentication_", "authentication_token_cache_",
	"apiserver_authorization_config_controller_", "apiserver_authorization_match_condition_", "apiserver_authorization_webhook_",
}

// startAuth makes those who say who sends a request and whether he may, and
// follows the files that they go by.
func startAuth(l *lifecycle, c Config, p *controlPlane, roles *rbac.Index, log *slog.Logger) (*authz.Authorizer, *authn.Authenticator, error) {
	read, err := c.Auth.read(c.issuer())
	if err != nil {
		return nil, nil, err
	}
	if read.doubt != "" {
		log.Warn(read.doubt)
	}
	if err := p.metrics.Register(authMetrics); err != nil {
		return nil, nil, err
	}
	z, err := startAuthorizer(l, c, read, p, roles, log)
	if err != nil {
		return nil, nil, err
	}
	a, err := startAuthenticator(l, c, read, p, log)
	return z, a, err
}

func startAuthorizer(l *lifecycle, c Config, read *access, p *controlPlane, roles *rbac.Index, log *slog.Logger) (*authz.Authorizer, error) {
	z, err := authz.New(authz.Options{
		Node: node.New(p.registry, p.store.View(), bootstrap.NodeRules()), RBAC: roles,
		Retries: webhookRetries, Metrics: p.metrics,
	}, read.authorization)
	if err != nil || c.Auth.AuthorizationFile == "" {
		return z, err
	}
	authzmetrics.RegisterMetrics()
	authzmetrics.RecordAuthorizationConfigLastConfigInfo(c.serverID(), string(read.authorizationData))
	f := &reloading{
		file: c.Auth.AuthorizationFile, what: "authorization", data: read.authorizationData, log: log,
		failed:    func() { authzmetrics.RecordAuthorizationConfigAutomaticReloadFailure(c.serverID()) },
		succeeded: func(data string) { authzmetrics.RecordAuthorizationConfigAutomaticReloadSuccess(c.serverID(), data) },
		use:       func(_ context.Context, data []byte) (bool, error) { return false, z.Reload(data) },
	}
	return z, follow(l, "authorization configuration", f.file, log, f.look)
}

func startAuthenticator(l *lifecycle, c Config, read *access, p *controlPlane, log *slog.Logger) (*authn.Authenticator, error) {
	clk := clock.RealClock{}
	certificates, err := startCertificates(l, c, read, p, log)
	if err != nil {
		return nil, err
	}
	local := []authenticator.Token{p.tokens}
	audiences := p.tokens.Audiences()
	if read.file != nil {
		local = append([]authenticator.Token{authenticator.WrapAudienceAgnosticToken(audiences, read.file)}, local...)
	}
	if c.Auth.BootstrapTokens {
		tokens := bootstraptoken.New(p.registry, p.store.View(), clk, log)
		local = append(local, authenticator.WrapAudienceAgnosticToken(audiences, tokens))
	}
	// Whoever has to ask somebody else comes last.
	var remote []authenticator.Token
	if len(read.authentication.JWT) > 0 || c.Auth.AuthenticationFile != "" {
		issuers, err := startIssuers(l, c, read, audiences, log)
		if err != nil {
			return nil, err
		}
		remote = append(remote, issuers)
	}
	if read.webhook != nil {
		remote = append(remote, read.webhook)
	}
	if len(remote) > 0 {
		others := cache.New(union.New(remote...), true, tokenTTL, 0)
		local = append(local, authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
			if _, asked := authenticator.AudiencesFrom(ctx); !asked {
				ctx = authenticator.WithAudiences(ctx, audiences)
			}
			return others.AuthenticateToken(ctx, token)
		}))
	}
	return authn.New(certificates, union.New(local...), audiences, read.anonymous).WithFrontProxies(p.frontProxies(clock.RealClock{})), nil
}

// startIssuers believes the tokens of others.
func startIssuers(l *lifecycle, c Config, read *access, audiences []string, log *slog.Logger) (authenticator.Token, error) {
	own := []string{c.issuer()}
	a, err := jwt.New(l.ctx, jwt.Options{Audiences: audiences, Own: own, Algorithms: read.algorithms, ServerID: c.serverID()}, read.authentication)
	if err != nil || c.Auth.AuthenticationFile == "" {
		return a, err
	}
	authnmetrics.RegisterMetrics()
	authnmetrics.RecordAuthenticationConfigLastConfigInfo(c.serverID(), string(read.authenticationData))
	f := &reloading{
		file: c.Auth.AuthenticationFile, what: "authentication", data: read.authenticationData, log: log,
		failed:    func() { authnmetrics.RecordAuthenticationConfigAutomaticReloadFailure(c.serverID()) },
		succeeded: func(data string) { authnmetrics.RecordAuthenticationConfigAutomaticReloadSuccess(c.serverID(), data) },
		use: func(ctx context.Context, data []byte) (passing bool, err error) {
			next, err := jwt.Parse(data)
			if err != nil {
				return false, err
			}
			if err := jwt.ValidateNext(next, read.authentication, own); err != nil {
				return false, err
			}
			ctx, cancel := context.WithTimeout(ctx, answerLimit)
			defer cancel()
			return true, a.Reload(ctx, next)
		},
	}
	return a, follow(l, "authentication configuration", f.file, log, f.look)
}

// answerLimit is the time within which the issuers of a new configuration have
// to answer, and after which it is tried again.
const answerLimit = time.Minute

// startCertificates believes the cluster's own authority, and those of a file.
func startCertificates(l *lifecycle, c Config, read *access, p *controlPlane, log *slog.Logger) (*authn.Certificates, error) {
	trusted := func(further []*x509.Certificate) *x509.CertPool {
		pool := p.keys.clients.Clone()
		for _, cert := range further {
			pool.AddCert(cert)
		}
		return pool
	}
	for _, cert := range read.clientCAs {
		p.keys.clientCA = append(slices.Clip(p.keys.clientCA), pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: cert.Raw})...)
	}
	z := authn.NewCertificates(trusted(read.clientCAs), clock.RealClock{})
	if c.Auth.ClientCAFile == "" {
		return z, nil
	}
	f := &reloading{
		file: c.Auth.ClientCAFile, what: "authorities of clients", log: log, failed: func() {}, succeeded: func(string) {},
		use: func(_ context.Context, data []byte) (bool, error) {
			further, err := certutil.ParseCertsPEM(data)
			if err == nil {
				z.Trust(trusted(further))
			}
			return false, err
		},
	}
	return z, follow(l, "authorities of clients", f.file, log, f.look)
}

// serverID names this server in metrics.
func (c Config) serverID() string { return "apiserver-" + c.instance().id }

// reloading goes on with what a file has become.
type reloading struct {
	file, what string
	data       []byte // what was read last, good or bad
	log        *slog.Logger
	failed     func()
	succeeded  func(data string)
	// use goes on with it; passing says that an error may not be its fault.
	use func(ctx context.Context, data []byte) (passing bool, err error)
}

func (r *reloading) look(ctx context.Context) (again time.Duration) {
	data, err := os.ReadFile(r.file)
	if err == nil {
		if bytes.Equal(data, r.data) {
			return 0
		}
		var passing bool
		if passing, err = r.use(ctx, data); err != nil && passing {
			again = answerLimit
		} else {
			r.data = data
		}
	}
	switch {
	case ctx.Err() != nil:
		return 0
	case err != nil:
		r.log.Error(fmt.Sprintf("the %s configuration stays as it was", r.what), "file", r.file, "error", err)
		r.failed()
	default:
		r.log.Info(fmt.Sprintf("the %s configuration was loaded anew", r.what), "file", r.file)
		r.succeeded(string(data))
	}
	return again
}
