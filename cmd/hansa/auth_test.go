package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa.dev/hansa/daemon"
)

const (
	authnFile = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	authzFile = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]\n"
	hookFile  = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://192.0.2.1'}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
)

func auth(t *testing.T, args ...string) (daemon.Auth, error) {
	t.Helper()
	c, err := parse(append([]string{"--config", write(t, ""), "--node-name", "n1"}, args...)...)
	return c.Auth, err
}

// The flags are kube-apiserver's, with its defaults, but for the modes and for
// anonymous requests, which are as safe as they were.
func TestAuthFlags(t *testing.T) {
	a, err := auth(t)
	if err != nil {
		t.Fatal(err)
	}
	if a.Anonymous != nil || a.OIDC != nil || a.BootstrapTokens || !slices.Equal(a.Authorization.Modes, []string{"Node", "RBAC"}) ||
		a.TokenWebhook.Version != "v1beta1" || a.TokenWebhook.TTL != 2*time.Minute || a.Authorization.AuthorizedTTL != 5*time.Minute || a.Authorization.UnauthorizedTTL != 30*time.Second {
		t.Errorf("without flags: %+v", a)
	}
	a, err = auth(t, "--oidc-issuer-url=https://i", "--oidc-client-id=c", "--oidc-username-claim=name", "--oidc-username-prefix=u:", "--oidc-groups-claim=groups", "--oidc-groups-prefix=g:",
		"--oidc-required-claim=a=b", "--oidc-required-claim=c=d=e", "--oidc-signing-algs=RS256,ES256", "--anonymous-auth", "--enable-bootstrap-token-auth", "--api-audiences=x,y")
	if err != nil {
		t.Fatal(err)
	}
	if o := a.OIDC; o.IssuerURL != "https://i" || o.ClientID != "c" || o.UsernameClaim != "name" || o.UsernamePrefix != "u:" || o.GroupsClaim != "groups" || o.GroupsPrefix != "g:" || o.RequiredClaims["a"] != "b" || o.RequiredClaims["c"] != "d=e" {
		t.Errorf("oidc: %+v", o)
	}
	if !slices.Equal(a.OIDCAlgorithms, []string{"RS256", "ES256"}) || !*a.Anonymous || !a.BootstrapTokens || !slices.Equal(a.Audiences, []string{"x", "y"}) {
		t.Errorf("%+v", a)
	}
	t.Setenv("HANSA_AUTHORIZATION_MODE", "RBAC")
	if a, err = auth(t); err != nil || !slices.Equal(a.Authorization.Modes, []string{"RBAC"}) {
		t.Errorf("by the environment: %+v, %v", a.Authorization, err)
	}
	os.Unsetenv("HANSA_AUTHORIZATION_MODE")
	c, err := parse("--node-name", "n1", "--config", write(t, "authorization-mode: [RBAC, Node]\nanonymous-auth: false\n"))
	if err != nil || !slices.Equal(c.Auth.Authorization.Modes, []string{"RBAC", "Node"}) || c.Auth.Anonymous == nil || *c.Auth.Anonymous {
		t.Errorf("by the file: %+v, %v", c.Auth, err)
	}
	file := write(t, authzFile)
	if a, err = auth(t, "--authorization-config", file); err != nil || len(a.Authorization.Modes) != 0 || a.AuthorizationFile != file {
		t.Errorf("by a configuration: %+v, %v", a, err)
	}
}

// Whatever is wrong is refused before anything starts, in kube-apiserver's words.
func TestAuthFlagsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := file("bad.yaml", "nonsense")
	hook, authn, authz := file("hook", hookFile), file("authn.yaml", authnFile), file("authz.yaml", authzFile)
	anonymous := file("anonymous.yaml", authnFile+"anonymous: {enabled: true}\n")
	own := file("own.yaml", authnFile+"jwt: [{issuer: {url: 'https://kubernetes.default.svc.cluster.local', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n")
	for _, tt := range []struct {
		args string
		want string
	}{
		{"--oidc-issuer-url=https://i", "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"},
		{"--oidc-groups-claim=g", "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"},
		{"--oidc-issuer-url=http://i --oidc-client-id=c", "invalid authentication configuration: jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https"},
		{"--oidc-issuer-url=https://i --oidc-client-id=c --oidc-signing-algs=HS256", `oidc: unsupported signing alg: "HS256"`},
		{"--oidc-issuer-url=https://i --oidc-client-id=c --oidc-required-claim=x", `--oidc-required-claim: "x" is not NAME=VALUE`},
		{"--oidc-issuer-url=https://i --oidc-client-id=c --oidc-ca-file=/nowhere", "--oidc-ca-file: open /nowhere: no such file or directory"},
		{"--oidc-issuer-url=https://i --oidc-client-id=c --authentication-config=" + authn, "authentication-config file and oidc-* flags are mutually exclusive"},
		{"--authentication-config=" + bad, fmt.Sprintf("failed to load authentication configuration from file %q: ", bad)},
		{"--authentication-config=/nowhere", `failed to load authentication configuration from file "/nowhere": open /nowhere: no such file or directory`},
		{"--authentication-config=" + own, fmt.Sprintf("invalid authentication configuration in file %q: jwt[0].issuer.url: Invalid value: ", own)},
		{"--anonymous-auth --authentication-config=" + anonymous, "anonymous: Forbidden: --anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"},
		{"--client-ca-file=" + bad, "--client-ca-file: "},
		{"--token-auth-file=" + bad, "must have at least 3 columns (token, user name, user uid), found 1"},
		{"--authentication-token-webhook-config-file=" + bad, "--authentication-token-webhook-config-file: "},
		{"--authentication-token-webhook-version=v2 --authentication-token-webhook-config-file=" + hook, `unsupported authentication webhook version "v2", supported versions are "v1", "v1beta1"`},
		{"--authorization-mode=Nobody", `authorization-mode "Nobody" is not a valid mode`},
		{"--authorization-mode=ABAC", `authorization-mode "ABAC" is not a valid mode: write its policies as roles and bindings`},
		{"--authorization-mode=Webhook", "authorization-mode Webhook's authorization config file not passed"},
		{"--authorization-webhook-config-file=" + hook, "cannot specify --authorization-webhook-config-file without mode Webhook"},
		{"--authorization-config=" + bad, "--authorization-config: " + bad + ": failed to load AuthorizationConfiguration from file: "},
		{"--authorization-mode=RBAC --authorization-config=" + authz, "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"},
	} {
		_, err := auth(t, strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.args, err, tt.want)
		}
	}
}
