package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/apiserver/auth/jwt"
	"hansa.dev/hansa/daemon"
)

// authFlags are kube-apiserver's flags of the same names.
type authFlags struct {
	set            *pflag.FlagSet
	auth           daemon.Auth
	oidc           jwt.Flags
	requiredClaims []string
	anonymous      bool
	open           bool // anonymous requests are allowed where nothing says otherwise
	authorization  authz.Flags
}

func (a *authFlags) add(f *pflag.FlagSet) {
	a.set = f
	f.StringVar(&a.auth.ClientCAFile, "client-ca-file", "", "certificates of authorities whose clients are believed beside the cluster's own; followed")
	f.StringVar(&a.auth.TokenFile, "token-auth-file", "", "file of tokens and whose they are, a line each: TOKEN,NAME,UID,\"GROUPS\"")
	f.BoolVar(&a.auth.BootstrapTokens, "enable-bootstrap-token-auth", false, "believe tokens that are secrets of type bootstrap.kubernetes.io/token in kube-system")
	f.StringSliceVar(&a.auth.Audiences, "api-audiences", nil, "names of this API, one of which a token must be for (default: the issuer of service accounts' tokens)")
	f.BoolVar(&a.anonymous, "anonymous-auth", false, "let nobody in particular ask for anything, as system:anonymous; false: not even for health and version (default: for these alone)")
	f.StringVar(&a.auth.AuthenticationFile, "authentication-config", "", "file that says whose tokens are believed (AuthenticationConfiguration); followed")
	f.StringVar(&a.oidc.IssuerURL, "oidc-issuer-url", "", "an OpenID Connect issuer whose tokens are believed, https://…")
	f.StringVar(&a.oidc.ClientID, "oidc-client-id", "", "whom its tokens must be for")
	f.StringVar(&a.auth.OIDCCAFile, "oidc-ca-file", "", "certificates of the authorities of the issuer's own certificate (default: those that the host trusts)")
	f.StringVar(&a.oidc.UsernameClaim, "oidc-username-claim", "sub", "claim that is the name of the user")
	f.StringVar(&a.oidc.UsernamePrefix, "oidc-username-prefix", "", "what comes before it; - is nothing (default: the issuer and #, unless the claim is email)")
	f.StringVar(&a.oidc.GroupsClaim, "oidc-groups-claim", "", "claim that is the user's groups")
	f.StringVar(&a.oidc.GroupsPrefix, "oidc-groups-prefix", "", "what comes before each of them")
	f.StringSliceVar(&a.requiredClaims, "oidc-required-claim", nil, "claim that a token must have, NAME=VALUE; may be repeated")
	f.StringSliceVar(&a.auth.OIDCAlgorithms, "oidc-signing-algs", []string{"RS256"}, "algorithms by which its tokens may be signed: "+strings.Join(jwt.AllAlgorithms(), ", "))
	f.StringVar(&a.auth.TokenWebhook.File, "authentication-token-webhook-config-file", "", "kubeconfig of a service that is asked whose a token is (TokenReview)")
	f.StringVar(&a.auth.TokenWebhook.Version, "authentication-token-webhook-version", "v1beta1", "version of what it is asked, v1 or v1beta1")
	f.DurationVar(&a.auth.TokenWebhook.TTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "for how long its answers are good")
	f.StringSliceVar(&a.authorization.Modes, "authorization-mode", authz.DefaultModes, "who is asked in turn whether a request is allowed: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny")
	f.StringVar(&a.authorization.WebhookFile, "authorization-webhook-config-file", "", "kubeconfig of the service that Webhook asks (SubjectAccessReview)")
	f.StringVar(&a.authorization.WebhookVersion, "authorization-webhook-version", "v1beta1", "version of what it is asked, v1 or v1beta1")
	f.DurationVar(&a.authorization.AuthorizedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "for how long its leave is good")
	f.DurationVar(&a.authorization.UnauthorizedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "for how long it is good that it gave none")
	f.StringVar(&a.auth.AuthorizationFile, "authorization-config", "", "file that says who is asked, instead of the authorization flags (AuthorizationConfiguration); followed")
}

// given says whether one of the flags whose name begins so has a value of the
// user's.
func (a *authFlags) given(prefixes ...string) bool {
	found := false
	a.set.Visit(func(f *pflag.Flag) {
		for _, p := range prefixes {
			found = found || strings.HasPrefix(f.Name, p)
		}
	})
	return found
}

// value is what the flags say. What is in the files is not looked at.
func (a *authFlags) value() (daemon.Auth, error) {
	out := a.auth
	if a.given("oidc-") {
		oidc := a.oidc
		for _, claim := range a.requiredClaims {
			name, value, ok := strings.Cut(claim, "=")
			if !ok {
				return out, fmt.Errorf("--oidc-required-claim: %q is not NAME=VALUE", claim)
			}
			if oidc.RequiredClaims == nil {
				oidc.RequiredClaims = map[string]string{}
			}
			oidc.RequiredClaims[name] = value
		}
		out.OIDC = &oidc
	}
	out.AnonymousByDefault = a.open
	if a.given("anonymous-auth") {
		out.Anonymous = &a.anonymous
	}
	if out.AuthorizationFile == "" || a.given("authorization-mode", "authorization-webhook-") {
		out.Authorization = a.authorization
	}
	// The daemon may be told to follow them from elsewhere.
	for _, file := range []*string{&out.ClientCAFile, &out.AuthenticationFile, &out.AuthorizationFile} {
		if *file == "" {
			continue
		}
		whole, err := filepath.Abs(*file)
		if err != nil {
			return out, err
		}
		*file = whole
	}
	return out, nil
}
