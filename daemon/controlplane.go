package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/auth"
	"hansa.dev/hansa/apiserver/auth/authn"
	"hansa.dev/hansa/apiserver/auth/rbac"
	"hansa.dev/hansa/apiserver/auth/review"
	"hansa.dev/hansa/apiserver/auth/token"
	"hansa.dev/hansa/apiserver/custom"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/apiserver/request/rules"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/internal/charges"
	"hansa.dev/hansa/internal/health"
	"hansa.dev/hansa/internal/librarymetrics"
	"hansa.dev/hansa/internal/processmetrics"
	"hansa.dev/hansa/internal/version"
	"hansa.dev/hansa/pki"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

// stopGrace is how long requests under way have to finish when the server stops.
const stopGrace = 5 * time.Second

// controlPlane is the API and what stands below it.
type controlPlane struct {
	keys      keys
	authority *pki.Authority // nil when the API runs alone
	registry  *api.Registry
	store     *store.Store
	handler   *request.Handler
	server    *apihttp.Server
	metrics   *prometheus.Registry
	tokens    *token.Tokens
	authorize auth.Authorizer
	aggregate *aggregation.Server
	charges   *charges.Book // what quotas are charged for writes under way
	begun     atomic.Bool   // see begin

	authenticate *authn.Authenticator // asked by the node's API, too, as authorize is
}

// address is the address and port at which this machine reaches the API.
func (c Config) address() string {
	_, port, _ := net.SplitHostPort(c.Listen) //nolint:errcheck // checked by the command line
	host, _, _ := net.SplitHostPort(c.Listen) //nolint:errcheck // as above
	if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// startControlPlane starts the store and the API on listener; what has to be
// stopped is left with l.
func startControlPlane(ctx context.Context, l *lifecycle, c Config, k keys, listener net.Listener, log *slog.Logger) (*controlPlane, error) {
	clk := clock.RealClock{}
	p := &controlPlane{keys: k, registry: kinds.New(), metrics: prometheus.NewRegistry(), charges: charges.NewBook()}
	p.metrics.MustRegister(append(processmetrics.Collectors(), processmetrics.Compatibility(), librarymetrics.Collector{"apiserver_admission_"})...)

	auditLog, err := startAudit(l, c.Audit, p.metrics, log)
	if err != nil {
		return nil, err
	}
	engine, err := openEngine(ctx, c, k, log)
	if err != nil {
		return nil, err
	}
	if c.Encryption != nil {
		if engine, err = encrypted(l, c, engine, p.registry, p.metrics, log); err != nil {
			return nil, err
		}
	}
	l.cleanup("etcd", engine.Close)
	if p.store, err = store.Open(ctx, engine, p.registry, store.Options{Clock: clk, Logger: log, DetectMutations: c.DetectMutations}); err != nil {
		return nil, err
	}
	l.cleanup("store", p.store.Close)
	l.run("store", p.store.Run)

	view := p.store.View()
	defined, err := custom.NewServer(p.registry, p.store, view, newProxies(p), clk, log)
	if err != nil {
		return nil, err
	}
	if err := defined.Sync(ctx); err != nil {
		return nil, err
	}
	l.run("custom resources", defined.Run)
	p.aggregate = startAggregation(l, p, log)
	if p.tokens, err = p.newTokens(c, log); err != nil {
		return nil, err
	}
	roles := rbac.New(p.registry, view)
	l.cleanup("rbac", func() error { roles.Close(); return nil })
	authorizer, authenticator, err := startAuth(l, c, p, roles, log)
	if err != nil {
		return nil, err
	}
	p.authorize, p.authenticate = authorizer, authenticator
	reviewer := &review.Reviewer{Authorizer: authorizer, Requests: authenticator, Audiences: p.tokens.Audiences(), Clock: clk}

	services, err := alloc.New(p.store, p.registry, alloc.Config{Families: []corev1.IPFamily{kinds.IPFamilyOf(c.ServiceCIDR.Addr())}, Ports: c.NodePorts, Clock: clk})
	if err != nil {
		return nil, err
	}
	chain, err := admissionChain(c, p, roles, authorizer, clk)
	if err != nil {
		return nil, err
	}
	p.handler, err = request.New(request.Config{
		Store: p.store, Registry: p.registry, Authorizer: authorizer,
		Admission:  chain,
		Converter:  func() managedfields.TypeConverter { return typeConverter(p.registry) },
		Allocators: map[schema.GroupResource]request.Allocator{{Resource: "services"}: services},
		Hooks:      hooks(reviewer, p.tokens),
		Rules:      allRules(rules.New(p.registry, view, authorizer), custom.Rules()),
		Computed:   p.computed(l, log),
		Audit:      auditLog,
		Metrics:    p.metrics,
		Clock:      clk, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	paths, err := openIDPaths(p.tokens, c.jwksURI(listener))
	if err != nil {
		return nil, err
	}
	pages := c.pages("apiserver", version.Kubernetes[1:])
	pages.Paths = func() []string { return p.server.Listed() }
	paths["/flagz"], paths["/statusz"] = pages.Parameters(), pages.Status()
	limiter, err := startLimiter(l, c, p)
	if err != nil {
		return nil, err
	}
	p.server, err = apihttp.New(apihttp.Config{
		Requests: p.handler, Authenticator: authenticator, Version: version.Get(), Address: c.address(),
		Connectors: connectors(p), Paths: paths, Limiter: limiter, Checks: []apihttp.Check{p.beginning()},
		Aggregation: p.aggregate, OpenAPI: documents(p.registry, p.aggregate),
		Metrics: p.metrics, Clock: clk, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	l.run("api", func(ctx context.Context) error {
		return p.server.Serve(ctx, listener, apihttp.TLS{GetCertificate: k.serving}, stopGrace)
	})
	return p, nil
}

// begin makes the objects that every API server makes. Health waits for it.
func (p *controlPlane) begin(ctx context.Context, c Config, listener net.Listener) error {
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	if err := ensureObjects(ctx, p.asServer("kube-apiserver"), c, port, time.Now()); err != nil {
		return err
	}
	if err := ensureFairness(ctx, p.asServer(fairnessProducer)); err != nil {
		return err
	}
	p.begun.Store(true)
	return nil
}

// beginning is the condition of health that begin has ended. It has the name of
// the longest of the steps that Kubernetes has for it.
func (p *controlPlane) beginning() apihttp.Check {
	return apihttp.Check{Check: health.Check{Name: "poststarthook/rbac/bootstrap-roles", Check: func(*http.Request) error {
		if !p.begun.Load() {
			return errors.New("not finished")
		}
		return nil
	}}}
}

func documents(reg *api.Registry, others *aggregation.Server) *apihttp.OpenAPI {
	d := openapi.NewDefined(reg, func() ([]*spec.Swagger, <-chan struct{}) {
		specs := others.Specs()
		return specs.List, specs.Ended
	})
	return &apihttp.OpenAPI{V2JSON: d.V2JSON, V2Proto: d.V2Proto, V3: d.V3}
}

// typeConverter knows the merge schemas of all kinds.
func typeConverter(reg *api.Registry) managedfields.TypeConverter {
	conv, err := openapi.TypeConverter(reg.Scheme())
	if err != nil {
		panic(fmt.Sprintf("the embedded merge schemas are broken: %v", err))
	}
	return conv
}

// allRules puts rules of several packages together.
func allRules(sets ...map[string]request.Rule) map[string]request.Rule {
	all := map[string]request.Rule{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

func (c Config) issuer() string {
	if c.Tokens.Issuer != "" {
		return c.Tokens.Issuer
	}
	return "https://kubernetes.default.svc." + c.ClusterDomain
}

// jwksURI is where others find the keys of tokens.
func (c Config) jwksURI(listener net.Listener) string {
	if c.Tokens.JWKSURI != "" {
		return c.Tokens.JWKSURI
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String()) //nolint:errcheck // it is one of TCP
	host := c.ExternalName
	if host == "" && c.AdvertiseAddress.IsValid() {
		host = c.AdvertiseAddress.String()
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(c.address()) //nolint:errcheck // checked by the command line
	}
	return "https://" + net.JoinHostPort(host, port) + jwksPath
}

func openEngine(ctx context.Context, c Config, k keys, log *slog.Logger) (store.Engine, error) {
	if len(c.EtcdEndpoints) == 0 {
		return etcd.Start(ctx, etcd.Options{Dir: c.instance().path("etcd"), Logger: log})
	}
	o := etcd.ExternalOptions{Endpoints: c.EtcdEndpoints}
	if slices.ContainsFunc(o.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https:") }) {
		o.TLS = k.etcd // the client would use it on unix sockets as well
	}
	e, err := etcd.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	return etcd.Prefixed(e, c.EtcdPrefix), nil
}

// as is a client of the same process with an identity of its own.
func (p *controlPlane) as(name, manager string, groups ...string) *direct.Client {
	return direct.New(p.handler, &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}, manager)
}

// newTokens issues the tokens of service accounts, and knows whose one is.
func (p *controlPlane) newTokens(c Config, log *slog.Logger) (*token.Tokens, error) {
	used := func(ctx context.Context, s *corev1.Secret, day string) { p.markUsed(ctx, s, day, log) }
	return token.New(token.Options{
		Issuer: c.issuer(), OtherIssuers: c.Tokens.OtherIssuers, Audiences: c.Auth.Audiences, MaxLifetime: c.Tokens.MaxLifetime,
		Keys: p.keys.signers, Verify: p.keys.verifiers, Clock: clock.RealClock{}, Used: used,
	}, p.registry, p.store.View())
}

// markUsed writes on a secret the day on which its token was used.
func (p *controlPlane) markUsed(ctx context.Context, s *corev1.Secret, day string, log *slog.Logger) {
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,"labels":{%q:%q}}}`, s.UID, token.LastUsedLabel, day)
	_, err := p.asServer("kube-apiserver").Patch(ctx, api.RefTo(p.registry.Must("", "secrets"), s), types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "")
	if err != nil && !apierrors.IsNotFound(err) {
		log.Warn("cannot note the use of a token", "secret", s.Namespace+"/"+s.Name, "error", err)
	}
}

// asServer is a client with the identity of the API server itself, which may do
// everything.
func (p *controlPlane) asServer(manager string) *direct.Client {
	return p.as(user.APIServerUser, manager, user.SystemPrivilegedGroup)
}

// asLoop is a client with the identity of a loop: a service account in
// kube-system.
func (p *controlPlane) asLoop(name string) *direct.Client {
	return direct.New(p.handler, loopUser(name), "kube-controller-manager")
}

// loopUser is the identity of a loop.
func loopUser(name string) user.Info {
	return &user.DefaultInfo{
		Name:   "system:serviceaccount:kube-system:" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", user.AllAuthenticated},
	}
}
