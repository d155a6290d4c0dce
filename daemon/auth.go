package daemon

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	"k8s.io/apiserver/pkg/authorization/cel"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	certutil "k8s.io/client-go/util/cert"

	"hansa.dev/hansa/apiserver/auth/authn"
	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/apiserver/auth/jwt"
)

// Auth says who is let in and who may do what, beside what always holds: the
// cluster's own certificates and service accounts are believed, and
// system:masters may do everything. Its fields are kube-apiserver's flags of the
// same names. With none of them nobody else is let in, but to ask for health and
// version, and the Node authorizer and RBAC decide.
type Auth struct {
	ClientCAFile    string // --client-ca-file: further authorities of clients, in PEM
	TokenFile       string // --token-auth-file
	BootstrapTokens bool   // --enable-bootstrap-token-auth
	// Audiences are --api-audiences; none: the issuer of service accounts' tokens.
	Audiences []string
	// Anonymous is --anonymous-auth, nil when it is not given.
	Anonymous *bool
	// AnonymousByDefault allows everybody to ask for anything where neither the flag
	// nor a file says something else, as kube-apiserver does; else it is health alone.
	AnonymousByDefault bool
	// OIDC are the --oidc-* flags, nil when none is given. Its CA is empty:
	// OIDCCAFile says where that is.
	OIDC           *jwt.Flags
	OIDCCAFile     string
	OIDCAlgorithms []string // none: RS256
	TokenWebhook   TokenWebhook
	// AuthenticationFile is --authentication-config, which is followed.
	AuthenticationFile string

	Authorization authz.Flags
	// AuthorizationFile is --authorization-config, which is followed. With it
	// Authorization must be empty.
	AuthorizationFile string
}

// TokenWebhook are the --authentication-token-webhook-* flags.
type TokenWebhook struct {
	File    string // a kubeconfig that says where it is; "": there is none
	Version string // of its reviews: v1, or v1beta1, which "" stands for
	TTL     time.Duration
}

// CheckAuth reads all files that Auth names, and says what is wrong with the
// first thing that is.
func (c Config) CheckAuth() error {
	_, err := c.Auth.read(c.issuer())
	return err
}

// How long it is remembered whom a token of others belongs to, beside what is
// remembered of a webhook's answers; and how often a webhook is asked again that
// fails. Kubernetes' values.
const tokenTTL = 10 * time.Second

var webhookRetries = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}

// access is what was read of an Auth.
type access struct {
	clientCAs      []*x509.Certificate
	file           authenticator.Token // by TokenFile; nil: none
	webhook        authenticator.Token // nil: none
	authentication *apiserver.AuthenticationConfiguration
	algorithms     []string
	anonymous      apiserver.AnonymousAuthConfig
	authorization  *apiserver.AuthorizationConfiguration
	// The texts of the files that are followed.
	authenticationData, authorizationData []byte
	doubt                                 string // what is not done as it was asked for
}

func (a Auth) read(issuer string) (*access, error) {
	var out access
	var err error
	if a.ClientCAFile != "" {
		if out.clientCAs, err = certutil.CertsFromFile(a.ClientCAFile); err != nil {
			return nil, fmt.Errorf("--client-ca-file: %w", err)
		}
	}
	if a.TokenFile != "" {
		if out.file, err = tokenfile.NewCSV(a.TokenFile); err != nil {
			return nil, fmt.Errorf("--token-auth-file: %s: %w", a.TokenFile, err)
		}
	}
	if err := a.readIssuers(&out, issuer); err != nil {
		return nil, err
	}
	if err := a.readAnonymous(&out); err != nil {
		return nil, err
	}
	if err := jwt.Validate(out.authentication, []string{issuer}); err != nil {
		return nil, fmt.Errorf("invalid authentication configuration%s: %w", of(a.AuthenticationFile), err)
	}
	if out.webhook, err = a.tokenWebhook(issuer); err != nil {
		return nil, fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
	}
	return &out, a.readAuthorization(&out)
}

// of names a file in an error.
func of(file string) string {
	if file == "" {
		return ""
	}
	return fmt.Sprintf(" in file %q", file)
}

// readIssuers reads whose tokens are believed.
func (a Auth) readIssuers(out *access, issuer string) error {
	out.authentication = &apiserver.AuthenticationConfiguration{}
	if a.AuthenticationFile != "" {
		if a.OIDC != nil {
			return errors.New("authentication-config file and oidc-* flags are mutually exclusive")
		}
		data, err := os.ReadFile(a.AuthenticationFile)
		if err == nil {
			out.authentication, err = jwt.Parse(data)
		}
		if err != nil {
			return fmt.Errorf("failed to load authentication configuration from file %q: %w", a.AuthenticationFile, err)
		}
		out.authenticationData, out.algorithms = data, jwt.AllAlgorithms()
		return nil
	}
	if a.OIDC == nil {
		return nil
	}
	f := *a.OIDC
	if f.IssuerURL == "" || f.ClientID == "" {
		return errors.New("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
	}
	if a.OIDCCAFile != "" {
		ca, err := os.ReadFile(a.OIDCCAFile)
		if err != nil {
			return fmt.Errorf("--oidc-ca-file: %w", err)
		}
		f.CA = string(ca)
	}
	for _, algorithm := range a.OIDCAlgorithms {
		if !slices.Contains(jwt.AllAlgorithms(), algorithm) {
			return fmt.Errorf("oidc: unsupported signing alg: %q", algorithm)
		}
	}
	out.authentication.JWT, out.algorithms = []apiserver.JWTAuthenticator{f.Config()}, a.OIDCAlgorithms
	return nil
}

func (a Auth) readAnonymous(out *access) error {
	given := a.Anonymous
	if given == nil && a.AnonymousByDefault {
		given = &a.AnonymousByDefault
	}
	switch {
	case out.authentication.Anonymous != nil && a.Anonymous != nil:
		return field.Forbidden(field.NewPath("anonymous"), "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file")
	case out.authentication.Anonymous != nil:
		out.anonymous = *out.authentication.Anonymous
	case given == nil:
		out.anonymous = authn.DefaultAnonymous()
	case *given && slices.Contains(a.Authorization.Modes, authz.AlwaysAllow):
		out.doubt = "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false. You should use a different authorizer"
	default:
		out.anonymous.Enabled = *given
	}
	return nil
}

func (a Auth) tokenWebhook(issuer string) (authenticator.Token, error) {
	w := a.TokenWebhook
	if w.File == "" {
		return nil, nil
	}
	to, err := webhookutil.LoadKubeconfig(w.File, nil)
	if err != nil {
		return nil, err
	}
	asks, err := webhook.New(to, cmp.Or(w.Version, "v1beta1"), a.audiences(issuer), webhookRetries)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.File, err)
	}
	return cache.New(asks, false, w.TTL, w.TTL), nil
}

// audiences are the API server's own.
func (a Auth) audiences(issuer string) []string {
	if len(a.Audiences) == 0 {
		return []string{issuer}
	}
	return a.Audiences
}

func (a Auth) readAuthorization(out *access) error {
	f := a.Authorization
	if a.AuthorizationFile == "" {
		c, err := f.Config()
		if err != nil {
			return err
		}
		out.authorization = c
		return nil
	}
	if len(f.Modes) > 0 || f.WebhookFile != "" || f.WebhookVersion != "" || f.AuthorizedTTL != 0 || f.UnauthorizedTTL != 0 {
		return errors.New("--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined")
	}
	data, err := os.ReadFile(a.AuthorizationFile)
	if err == nil {
		out.authorization, err = authz.Parse(data, cel.NewDefaultCompiler())
	}
	if err != nil {
		return fmt.Errorf("--authorization-config: %s: %w", a.AuthorizationFile, err)
	}
	out.authorizationData = data
	return nil
}
