package authz

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/cel"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"

	"hansa.dev/hansa/apiserver/auth"
)

// Options of New.
type Options struct {
	// Node and RBAC are the authorizers of these types. They are not this
	// package's to end.
	Node, RBAC auth.Decider
	// Retries say how often and how soon a webhook is asked again that fails.
	Retries wait.Backoff
	// Metrics: nil, none.
	Metrics prometheus.Registerer
}

// Authorizer decides by the configuration of the moment. It is safe for use by
// any goroutine.
type Authorizer struct {
	o         Options
	compiler  cel.Compiler // nil until a webhook needs it
	decisions *prometheus.CounterVec
	required  []string // types that must stay
	current   atomic.Pointer[auth.Chain]
}

var _ auth.Authorizer = (*Authorizer)(nil)

// New makes the chain of a configuration that was found good. A webhook is not
// asked anything yet.
func New(o Options, c *apiserver.AuthorizationConfiguration) (*Authorizer, error) {
	z := &Authorizer{o: o, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_authorization_decisions_total",
		Help: "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
	}, []string{"type", "name", "decision"})}
	if o.Metrics != nil {
		if err := o.Metrics.Register(z.decisions); err != nil {
			return nil, fmt.Errorf("register the metrics of authorizers: %w", err)
		}
	}
	for _, a := range c.Authorizers {
		if a.Type != apiserver.TypeWebhook {
			z.required = append(z.required, string(a.Type))
		}
	}
	if err := z.use(c); err != nil {
		return nil, err
	}
	return z, nil
}

// Reload goes on with the configuration that data is, or fails and leaves all as
// it was. Webhooks may come and go; of the other authorizers none that was there
// at first may be missing. It is not to be called twice at once.
func (z *Authorizer) Reload(data []byte) error {
	c, err := Parse(data, z.expressions(), append([]string(nil), z.required...)...)
	if err != nil {
		return err
	}
	return z.use(c)
}

// expressions is the compiler of match conditions. It takes memory, and most
// clusters need none.
func (z *Authorizer) expressions() cel.Compiler {
	if z.compiler == nil {
		z.compiler = cel.NewDefaultCompiler()
	}
	return z.compiler
}

func (z *Authorizer) use(c *apiserver.AuthorizationConfiguration) error {
	var chain auth.Chain
	for i := range c.Authorizers {
		a := &c.Authorizers[i]
		d, err := z.decider(a)
		if err != nil {
			return fmt.Errorf("authorizer %s: %w", a.Name, err)
		}
		chain = append(chain, counted{
			Decider: d,
			allowed: z.decisions.WithLabelValues(string(a.Type), a.Name, "allowed"),
			denied:  z.decisions.WithLabelValues(string(a.Type), a.Name, "denied"),
		})
	}
	z.current.Store(&chain)
	return nil
}

func (z *Authorizer) decider(a *apiserver.AuthorizerConfiguration) (auth.Decider, error) {
	switch string(a.Type) {
	case Node:
		return z.o.Node, nil
	case RBAC:
		return z.o.RBAC, nil
	case AlwaysAllow:
		return always(authorizer.DecisionAllow), nil
	case AlwaysDeny:
		return always(authorizer.DecisionNoOpinion), nil
	case Webhook:
		return z.webhook(a.Name, a.Webhook)
	}
	return nil, fmt.Errorf("unknown authorization mode %s specified", a.Type)
}

// recorder counts what kube-apiserver counts of webhooks.
type recorder struct {
	metrics.NoopRequestMetrics
	metrics.WebhookMetrics
	cel.MatcherMetrics
}

func (z *Authorizer) webhook(name string, w *apiserver.WebhookConfiguration) (auth.Decider, error) {
	file := *w.ConnectionInfo.KubeConfigFile
	to, err := webhookutil.LoadKubeconfig(file, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if w.Timeout.Duration != 0 {
		to.Timeout = w.Timeout.Duration
	}
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	authorized, unauthorized := w.AuthorizedTTL.Duration, w.UnauthorizedTTL.Duration
	if !w.CacheAuthorizedRequests {
		authorized = 0
	}
	if !w.CacheUnauthorizedRequests {
		unauthorized = 0
	}
	return webhook.New(to, w.SubjectAccessReviewVersion, authorized, unauthorized, z.o.Retries, onError,
		w.MatchConditions, name, recorder{WebhookMetrics: metrics.NewWebhookMetrics(), MatcherMetrics: cel.NewMatcherMetrics()}, z.expressions())
}

// counted counts what an authorizer decides.
type counted struct {
	auth.Decider
	allowed, denied prometheus.Counter
}

func (c counted) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := c.Decider.Authorize(ctx, a)
	switch decision {
	case authorizer.DecisionAllow:
		c.allowed.Inc()
	case authorizer.DecisionDeny:
		c.denied.Inc()
	}
	return decision, reason, err
}

// always says the same to everybody. Whom it does not allow, it leaves to those
// behind it, as Kubernetes does.
type always authorizer.Decision

func (d always) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	if authorizer.Decision(d) == authorizer.DecisionAllow {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "Everything is forbidden.", nil
}

func (d always) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if authorizer.Decision(d) != authorizer.DecisionAllow {
		return nil, nil, false, nil
	}
	all := []string{"*"}
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: all, APIGroups: all, Resources: all}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: all, NonResourceURLs: all}}, false, nil
}

// Authorize implements authorizer.Authorizer.
func (z *Authorizer) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	return z.current.Load().Authorize(ctx, a)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; no decision here
// has conditions.
func (z *Authorizer) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return z.current.Load().ConditionsAwareAuthorize(ctx, a)
}

// EvaluateConditions implements authorizer.Authorizer: there are none.
func (z *Authorizer) EvaluateConditions(ctx context.Context, d authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return z.current.Load().EvaluateConditions(ctx, d, data)
}

// RulesFor implements authorizer.RuleResolver.
func (z *Authorizer) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return z.current.Load().RulesFor(ctx, u, namespace)
}
