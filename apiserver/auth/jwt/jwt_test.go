package jwt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/apiserver/auth/jwt"
	"hansa.dev/hansa/apiserver/auth/jwt/issuertest"
)

// config is an AuthenticationConfiguration with one issuer, whose other fields
// are as given, in YAML at two spaces.
func config(i *issuertest.Issuer, fields string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n" + entry(i, fields)
}

func entry(i *issuertest.Issuer, fields string) string {
	ca, err := json.Marshal(string(i.CA))
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("- issuer: {url: %q, audiences: [hansa, other], audienceMatchPolicy: MatchAny, certificateAuthority: %s}\n%s", i.URL, ca, fields)
}

const byName = `  claimMappings:
    username: {claim: sub, prefix: "x:"}
    groups: {claim: groups, prefix: "g:"}
`

func parse(t *testing.T, text string) *apiserver.AuthenticationConfiguration {
	t.Helper()
	c, err := jwt.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := jwt.Validate(c, nil); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// start gives an authenticator all of whose issuers have answered.
func start(t *testing.T, text string) *jwt.Authenticator {
	t.Helper()
	a, err := jwt.New(t.Context(), jwt.Options{Audiences: []string{"api"}, Algorithms: jwt.AllAlgorithms(), Clock: clocktesting.NewFakeClock(time.Now())}, parse(t, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(t.Context(), parse(t, text)); err != nil {
		t.Fatal(err)
	}
	return a
}

// https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration
func TestTokens(t *testing.T) {
	i := issuertest.New(t, "127.0.0.1")
	other := issuertest.New(t, "127.0.0.1")
	claims := func(more ...any) map[string]any {
		all := map[string]any{"sub": "ann", "aud": "hansa", "groups": []string{"dev"}}
		for n := 0; n < len(more); n += 2 {
			if more[n+1] == nil {
				delete(all, more[n].(string))
			} else {
				all[more[n].(string)] = more[n+1]
			}
		}
		return all
	}
	const expressions = `  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.iat <= 86400', message: too long a life}
  claimMappings:
    username: {expression: 'claims.email_verified ? claims.email : ""'}
    groups: {expression: 'claims.roles'}
    uid: {claim: sub}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: "no names of the system's"}
`
	ann := &user.DefaultInfo{Name: "x:ann", Groups: []string{"g:dev"}}
	rich := []any{"hd", "example.com", "email", "a@b.c", "email_verified", true, "roles", []string{"r"}, "tenant", "t1"}
	with := func(more ...any) []any { return append(slices.Clone(rich), more...) }
	for _, tt := range []struct {
		name    string
		config  string
		token   string
		user    *user.DefaultInfo // nil: nobody
		refused string            // "": no opinion
	}{
		{"name and groups", byName, i.Token(claims()), ann, ""},
		{"one group as a text", byName, i.Token(claims("groups", "dev")), ann, ""},
		{"no groups", byName, i.Token(claims("groups", nil)), &user.DefaultInfo{Name: "x:ann"}, ""},
		{"the second audience", byName, i.Token(claims("aud", []string{"x", "other"})), ann, ""},
		{"another audience", byName, i.Token(claims("aud", "x")), nil, `oidc: verify token: oidc: expected audience in ["hansa" "other"] got ["x"]`},
		{"no name", byName, i.Token(claims("sub", nil)), nil, `oidc: parse username claims "sub": claim not present`},
		{"expired", byName, i.Token(claims("exp", time.Now().Add(-time.Minute).Unix())), nil, "oidc: token is expired"},
		{"signed by another", byName, other.Token(claims("iss", i.URL)), nil, "failed to verify signature"},
		{"of an issuer that nobody named", byName, other.Token(claims()), nil, ""},
		{"no token", byName, "nonsense", nil, ""},
		{"expressions", expressions, i.Token(claims(rich...)), &user.DefaultInfo{
			Name: "a@b.c", UID: "ann", Groups: []string{"r"}, Extra: map[string][]string{"example.com/tenant": {"t1"}}}, ""},
		{"a required claim has another value", expressions, i.Token(claims(with("hd", "b.c")...)), nil, `oidc: required claim hd value does not match. Got = b.c, want = example.com`},
		{"a required claim is missing", expressions, i.Token(claims(with("hd", nil)...)), nil, "oidc: required claim hd not present in ID token"},
		{"a rule about claims", expressions, i.Token(claims(with("exp", time.Now().Add(48*time.Hour).Unix())...)), nil, "too long a life"},
		{"a rule about users", expressions, i.Token(claims(with("email", "system:x")...)), nil, "no names of the system's"},
		{"an expression that gives no name", expressions, i.Token(claims(with("email_verified", false)...)), nil, "username"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := start(t, config(i, tt.config))
			got, ok, err := a.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"api"}), tt.token)
			if tt.user == nil {
				if ok || (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("refused %v with %v, want %s", !ok, err, tt.refused)
				}
				return
			}
			if !ok || err != nil {
				t.Fatalf("refused: %v", err)
			}
			u := got.User.(*user.DefaultInfo)
			maps.DeleteFunc(u.Extra, func(key string, _ []string) bool { return key == user.CredentialIDKey })
			if len(u.Extra) == 0 {
				u.Extra = nil
			}
			if diff := cmp.Diff(tt.user, u); diff != "" || !slices.Equal(got.Audiences, []string{"api"}) {
				t.Errorf("for %q (-want +got):\n%s", got.Audiences, diff)
			}
		})
	}
	a := start(t, config(i, byName))
	if _, ok, _ := a.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"another"}), i.Token(claims())); ok {
		t.Error("a token is good for others")
	}
}

// An issuer may change its keys at any time: an unknown one is asked for.
func TestKeyRotation(t *testing.T) {
	i := issuertest.New(t, "127.0.0.1")
	a := start(t, config(i, byName))
	claims := map[string]any{"sub": "ann", "aud": "hansa"}
	old := i.Token(claims)
	for range 3 {
		if _, ok, err := a.AuthenticateToken(t.Context(), i.Token(claims)); !ok {
			t.Fatal(err)
		}
		i.Rotate()
	}
	if _, ok, _ := a.AuthenticateToken(t.Context(), old); ok {
		t.Error("a token by a key that is no more is good")
	}
	i.Rotate()
	i.Down(true)
	if _, ok, err := a.AuthenticateToken(t.Context(), i.Token(claims)); ok || err == nil {
		t.Errorf("while the issuer does not answer: %v, %v", ok, err)
	}
}

func TestSeveralIssuers(t *testing.T) {
	i, j := issuertest.New(t, "127.0.0.1"), issuertest.New(t, "127.0.0.1")
	a := start(t, config(i, byName)+entry(j, strings.ReplaceAll(byName, `"x:"`, `"y:"`)))
	for issuer, want := range map[*issuertest.Issuer]string{i: "x:ann", j: "y:ann"} {
		got, ok, err := a.AuthenticateToken(t.Context(), issuer.Token(map[string]any{"sub": "ann", "aud": "hansa"}))
		if !ok || got.User.GetName() != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
}

func TestDiscoveryURL(t *testing.T) {
	i := issuertest.New(t, "127.0.0.1")
	text := strings.Replace(config(i, byName), "issuer: {", fmt.Sprintf("issuer: {discoveryURL: %q, ", i.URL+issuertest.Elsewhere), 1)
	a := start(t, text)
	if _, ok, err := a.AuthenticateToken(t.Context(), i.Token(map[string]any{"sub": "ann", "aud": "hansa"})); !ok {
		t.Error(err)
	}
	if i.Asked(issuertest.Configuration) != 0 || i.Asked(issuertest.Elsewhere) == 0 {
		t.Error("the configuration was read at the issuer's own place")
	}
}

// An issuer that is down at the start is asked again until it answers, and until
// then its tokens are refused.
func TestIssuerDownAtStart(t *testing.T) {
	i := issuertest.New(t, "127.0.0.1")
	i.Down(true)
	a, err := jwt.New(t.Context(), jwt.Options{Audiences: []string{"api"}, Algorithms: jwt.AllAlgorithms()}, parse(t, config(i, byName)))
	if err != nil {
		t.Fatal(err)
	}
	token := i.Token(map[string]any{"sub": "ann", "aud": "hansa"})
	if _, ok, err := a.AuthenticateToken(t.Context(), token); ok || err == nil || !strings.Contains(err.Error(), "oidc: authenticator not initialized") {
		t.Errorf("%v, %v", ok, err)
	}
	// A configuration whose issuer does not answer takes nobody's place.
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for i.Asked(issuertest.Configuration) < 2 { // the new one has asked as well
			if wait.PollUntilContextCancel(t.Context(), time.Millisecond, true, func(context.Context) (bool, error) { return true, nil }) != nil {
				return
			}
		}
		cancel()
	}()
	if err := a.Reload(ctx, parse(t, config(i, byName))); err == nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "is not initialized") {
		t.Errorf("loaded with %v", err)
	}
}

// After a reload the issuers of before are believed no more, at once.
func TestReload(t *testing.T) {
	i, j := issuertest.New(t, "127.0.0.1"), issuertest.New(t, "127.0.0.1")
	a := start(t, config(i, byName))
	if err := a.Reload(t.Context(), parse(t, config(j, byName))); err != nil {
		t.Fatal(err)
	}
	for issuer, want := range map[*issuertest.Issuer]bool{i: false, j: true} {
		if _, ok, err := a.AuthenticateToken(t.Context(), issuer.Token(map[string]any{"sub": "ann", "aud": "hansa"})); ok != want {
			t.Errorf("%s: %v, %v", issuer.URL, ok, err)
		}
	}
}

func TestInvalidConfigurations(t *testing.T) {
	i := issuertest.New(t, "127.0.0.1")
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "empty config data"},
		{"another kind", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: []\n", "expected AuthenticationConfiguration, got *apiserver.AuthorizationConfiguration"},
		{"an unknown version", "apiVersion: apiserver.config.k8s.io/v7\nkind: AuthenticationConfiguration\n", `no kind "AuthenticationConfiguration" is registered for version "apiserver.config.k8s.io/v7"`},
		{"an unknown field", head + "jwts: []\n", `strict decoding error: unknown field "jwts"`},
		{"no https", head + "jwt: [{issuer: {url: 'http://x', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", `jwt[0].issuer.url: Invalid value: "http://x": URL scheme must be https`},
		{"no audience", head + "jwt: [{issuer: {url: 'https://x', audiences: []}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required"},
		{"no name", head + "jwt: [{issuer: {url: 'https://x', audiences: [a]}}]\n", "jwt[0].claimMappings.username: Required value: claim or expression is required"},
		{"the server's own issuer", head + "jwt: [{issuer: {url: 'https://own', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\n", `jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own]`},
		{"an issuer twice", config(i, byName) + entry(i, byName), "jwt[1].issuer.url: Duplicate value"},
		{"a broken expression", config(i, "  claimMappings: {username: {expression: 'claims.'}}\n"), "jwt[0].claimMappings.username.expression: Invalid value: \"claims.\": compilation failed"},
		{"anonymous paths of nobody", head + "anonymous: {enabled: false, conditions: [{path: /livez}]}\n", "anonymous.conditions: Invalid value"},
	} {
		c, err := jwt.Parse([]byte(tt.text))
		if err == nil {
			err = jwt.Validate(c, []string{"https://own"})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	first, next := parse(t, head+"anonymous: {enabled: true, conditions: [{path: /livez}]}\n"), parse(t, head+"anonymous: {enabled: true}\n")
	if err := jwt.ValidateNext(next, first, nil); err == nil || err.Error() != "anonymous: Forbidden: changed from initial configuration file" {
		t.Errorf("another anonymous: %v", err)
	}
	if err := jwt.ValidateNext(first, first.DeepCopy(), nil); err != nil {
		t.Errorf("the same: %v", err)
	}
}

// What kube-apiserver's flags mean, by their documentation.
func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		flags        jwt.Flags
		name, prefix string
	}{
		{jwt.Flags{IssuerURL: "https://i"}, "sub", "https://i#"},
		{jwt.Flags{IssuerURL: "https://i", UsernameClaim: "name"}, "name", "https://i#"},
		{jwt.Flags{IssuerURL: "https://i", UsernameClaim: "email"}, "email", ""},
		{jwt.Flags{IssuerURL: "https://i", UsernamePrefix: "-"}, "sub", ""},
		{jwt.Flags{IssuerURL: "https://i", UsernamePrefix: "x:"}, "sub", "x:"},
	} {
		got := tt.flags.Config().ClaimMappings.Username
		if got.Claim != tt.name || *got.Prefix != tt.prefix {
			t.Errorf("%+v is claim %s with prefix %s", tt.flags, got.Claim, *got.Prefix)
		}
	}
	whole := jwt.Flags{IssuerURL: "https://i", ClientID: "c", GroupsClaim: "g", GroupsPrefix: "p:", RequiredClaims: map[string]string{"k": "v"}}.Config()
	if whole.ClaimMappings.Groups.Claim != "g" || *whole.ClaimMappings.Groups.Prefix != "p:" || whole.ClaimValidationRules[0].RequiredValue != "v" || !slices.Equal(whole.Issuer.Audiences, []string{"c"}) {
		t.Errorf("%+v", whole)
	}
}

// Whatever a file says, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'https://x', audiences: [a]}, claimMappings: {username: {expression: 'claims.sub'}}}]\nanonymous: {enabled: true}\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if c, err := jwt.Parse(data); err == nil {
			_ = jwt.Validate(c, []string{"https://own"})
		}
	})
}
