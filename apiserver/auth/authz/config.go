// Package authz makes the chain of authorizers that an AuthorizationConfiguration
// asks for: the Node authorizer, RBAC, webhooks, and those that say the same to
// everybody. The configuration may change while requests are decided.
package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authorization/cel"
)

// The modes that there are, by the names that flags and files have for them.
// Of Kubernetes' own, ABAC is missing: its policies are a file that is read at
// start alone, and RBAC says all that they can.
const (
	Node        = "Node"
	RBAC        = "RBAC"
	Webhook     = "Webhook"
	AlwaysAllow = "AlwaysAllow"
	AlwaysDeny  = "AlwaysDeny"
)

var modes = []string{AlwaysAllow, AlwaysDeny, Webhook, RBAC, Node}

// DefaultModes are those of a cluster that is told nothing.
var DefaultModes = []string{Node, RBAC}

// Parse reads an AuthorizationConfiguration (apiserver.config.k8s.io/v1, and its
// beta and alpha), strictly, and gives every fault with its field. The types
// required must be in it.
func Parse(data []byte, compiler cel.Compiler, required ...string) (*apiserver.AuthorizationConfiguration, error) {
	c, err := load.LoadFromData(data)
	if err != nil {
		return nil, fmt.Errorf("failed to load AuthorizationConfiguration from file: %w", err)
	}
	errs := validation.ValidateAuthorizationConfiguration(compiler, nil, c, sets.New(modes...), sets.New(Webhook))
	if len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	// A metric or a log line that names an authorizer by its type is not to be of
	// another one.
	var wrong []error
	for _, a := range c.Authorizers {
		if want := nameOf(string(a.Type)); a.Type != apiserver.TypeWebhook && a.Name != want {
			wrong = append(wrong, fmt.Errorf("expected name %s for authorizer %s instead of %s", want, a.Type, a.Name))
		}
	}
	slices.Sort(required)
	if missing := slices.DeleteFunc(required, func(mode string) bool { return has(c, mode) }); len(missing) > 0 {
		wrong = append(wrong, fmt.Errorf("missing required types: %v", missing))
	}
	return c, utilerrors.NewAggregate(wrong)
}

// nameOf is the name of the one authorizer of a type that can be there once.
func nameOf(mode string) string { return strings.ToLower(mode) }

func has(c *apiserver.AuthorizationConfiguration, mode string) bool {
	return slices.ContainsFunc(c.Authorizers, func(a apiserver.AuthorizerConfiguration) bool { return string(a.Type) == mode })
}

// Flags say the same with a single webhook, as kube-apiserver's
// --authorization-mode and --authorization-webhook-* flags do.
type Flags struct {
	Modes []string // none: DefaultModes
	// WebhookFile is a kubeconfig that says where the webhook is and how to reach it.
	WebhookFile    string
	WebhookVersion string // of its reviews: v1, or v1beta1, which "" stands for
	// For how long the webhook's answers are good; 0: for the one request.
	AuthorizedTTL, UnauthorizedTTL time.Duration
}

// webhookName is that of the flags' webhook in metrics.
const webhookName = "default"

// Config is what the flags mean. The error names the flag.
func (f Flags) Config() (*apiserver.AuthorizationConfiguration, error) {
	list := f.Modes
	if len(list) == 0 {
		list = DefaultModes
	}
	c := &apiserver.AuthorizationConfiguration{}
	for i, mode := range list {
		switch {
		case mode == "ABAC":
			return nil, errors.New(`authorization-mode "ABAC" is not a valid mode: write its policies as roles and bindings, for RBAC`)
		case !slices.Contains(modes, mode):
			return nil, fmt.Errorf("authorization-mode %q is not a valid mode; there are %s", mode, strings.Join(modes, ", "))
		case slices.Contains(list[:i], mode):
			return nil, fmt.Errorf("authorization-mode %q has mode specified more than once", list)
		case mode == Webhook && f.WebhookFile == "":
			return nil, errors.New("authorization-mode Webhook's authorization config file not passed: say where it is by --authorization-webhook-config-file")
		}
		a := apiserver.AuthorizerConfiguration{Type: apiserver.AuthorizerType(mode), Name: nameOf(mode)}
		if mode == Webhook {
			a.Name, a.Webhook = webhookName, f.webhook()
		}
		c.Authorizers = append(c.Authorizers, a)
	}
	if f.WebhookFile != "" && !has(c, Webhook) {
		return nil, errors.New("cannot specify --authorization-webhook-config-file without mode Webhook")
	}
	if v := f.WebhookVersion; v != "" && v != "v1" && v != "v1beta1" {
		return nil, fmt.Errorf("authorization-webhook-version %q is neither v1 nor v1beta1", v)
	}
	return c, nil
}

func (f Flags) webhook() *apiserver.WebhookConfiguration {
	version := f.WebhookVersion
	if version == "" {
		version = "v1beta1"
	}
	return &apiserver.WebhookConfiguration{
		AuthorizedTTL:              metav1.Duration{Duration: f.AuthorizedTTL},
		CacheAuthorizedRequests:    f.AuthorizedTTL != 0,
		UnauthorizedTTL:            metav1.Duration{Duration: f.UnauthorizedTTL},
		CacheUnauthorizedRequests:  f.UnauthorizedTTL != 0,
		Timeout:                    metav1.Duration{Duration: 30 * time.Second},
		FailurePolicy:              apiserver.FailurePolicyNoOpinion,
		SubjectAccessReviewVersion: version,
		ConnectionInfo: apiserver.WebhookConnectionInfo{
			Type: apiserver.AuthorizationWebhookConnectionInfoTypeKubeConfigFile, KubeConfigFile: &f.WebhookFile,
		},
	}
}
