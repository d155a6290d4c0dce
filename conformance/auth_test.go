package conformance

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hansa.dev/hansa/apiserver/auth/jwt/issuertest"
	"hansa.dev/hansa/pki"
)

// file writes a file beside the data directory of a cluster, in one step, as
// those who configure programs do.
func (c *cluster) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(c.dir), name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// reviewer is a webhook that answers reviews. Its answer may change.
type reviewer[R any] struct {
	kubeconfig string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *R)
	asked  []R
}

func newReviewer[R any](t *testing.T, c *cluster, name string) *reviewer[R] {
	t.Helper()
	v := &reviewer[R]{}
	l, err := net.Listen("tcp", net.JoinHostPort(c.address.Prev().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review R
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		v.mu.Lock()
		v.asked = append(v.asked, review)
		answer := v.answer
		v.mu.Unlock()
		answer(w, &review)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	v.kubeconfig = c.file(t, name+".kubeconfig", fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n", server.URL))
	return v
}

// does changes the answer, and forgets what was asked.
func (v *reviewer[R]) does(answer func(w http.ResponseWriter, r *R)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer, v.asked = answer, nil
}

func (v *reviewer[R]) questions() []R {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.asked)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}

// bearer is a client of a cluster with a token.
func (c *cluster) bearer(t *testing.T, token string) *peer {
	t.Helper()
	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// is checks whom the server takes a client for; "" is nobody.
func (p *peer) is(t *testing.T, name string, groups ...string) {
	t.Helper()
	a, u := p.whoami(t)
	if name == "" {
		a.refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
		return
	}
	if u.Username != name || !slices.Equal(u.Groups, append(groups, "system:authenticated")) {
		t.Errorf("is %q of %q (%d), want %q of %q", u.Username, u.Groups, a.code, name, groups)
	}
}

// metric is a metric of the cluster; "" when there is none.
func (p *peer) metric(t *testing.T, series string) string {
	t.Helper()
	for line := range strings.Lines(string(p.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// believing is an AuthenticationConfiguration with an issuer.
func believing(i *issuertest.Issuer, prefix, more string) string {
	ca, _ := json.Marshal(string(i.CA)) // a text
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer: {url: %q, audiences: [hansa], certificateAuthority: %s}
  claimValidationRules: [{expression: claims.verified == true, message: nobody has verified you}]
  claimMappings:
    username: {expression: '%q + claims.sub'}
    groups: {claim: groups, prefix: "g:"}
%s`, i.URL, ca, prefix, more)
}

// asking is an AuthorizationConfiguration with a webhook between the other two.
func asking(kubeconfig string) string {
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- type: Webhook
  name: shop
  webhook:
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %q}
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    matchConditions: [{expression: "request.user.startsWith('shop:')"}]
    timeout: 1s
    failurePolicy: Deny
    authorizedTTL: 5m
    unauthorizedTTL: 1s
- {type: RBAC, name: rbac}
`, kubeconfig)
}

// "Authenticating" and "Authorization" by configuration files, with all that
// kube-apiserver has beside them.
func TestAccessByConfiguration(t *testing.T) {
	c := own(t, "access")
	issuer := issuertest.New(t, c.address.Prev().String())
	tokens := newReviewer[authenticationv1.TokenReview](t, c, "tokens")
	tokens.does(func(w http.ResponseWriter, r *authenticationv1.TokenReview) {
		r.Status.Authenticated = strings.HasPrefix(r.Spec.Token, "good")
		r.Status.User = authenticationv1.UserInfo{Username: "hooked", UID: "7", Groups: []string{"h"}}
		reply(w, r)
	})
	access := newReviewer[authorizationv1.SubjectAccessReview](t, c, "access")
	access.does(func(w http.ResponseWriter, r *authorizationv1.SubjectAccessReview) { reply(w, r) }) // it has no opinion
	authority, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	authn, authz := c.file(t, "authn.yaml", believing(issuer, "shop:", "")), c.file(t, "authz.yaml", asking(access.kubeconfig))
	cas := c.file(t, "ca.pem", string(authority.API.PEM()))
	flags := []string{
		"--authentication-config", authn, "--authorization-config", authz, "--client-ca-file", cas, "--enable-bootstrap-token-auth",
		"--authentication-token-webhook-config-file", tokens.kubeconfig, "--authentication-token-webhook-version", "v1",
		"--token-auth-file", c.file(t, "tokens.csv", "from-a-file,filed,9,\"a,b\"\n"), "--log-level", "info",
	}
	c.authConfigurationsRefused(t, authn)
	if err := c.up(flags...); err != nil {
		t.Fatal(err)
	}
	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(more ...string) *peer {
		claims := map[string]any{"sub": "ann", "aud": "hansa", "groups": []string{"dev"}, "verified": true}
		for _, name := range more {
			claims[name] = false
		}
		return c.bearer(t, issuer.Token(claims))
	}

	t.Run("OIDC", func(t *testing.T) {
		eventually(t, "the issuer's keys are known", func() bool { a, _ := ann().whoami(t); return a.code == http.StatusCreated })
		ann().is(t, "shop:ann", "g:dev")
		ann("verified").is(t, "")
		issuer.Rotate()
		ann().is(t, "shop:ann", "g:dev")
		var r authenticationv1.TokenReview
		p.want(t, http.StatusCreated, call{method: "POST", path: at("tokenreviews", ""), body: fmt.Sprintf("{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: %q}}", ann().config.BearerToken)}, &r)
		if !r.Status.Authenticated || r.Status.User.Username != "shop:ann" {
			t.Errorf("TokenReview: %+v", r.Status)
		}
	})
	t.Run("anonymous where it is configured", func(t *testing.T) {
		nobody := c.bearer(t, "")
		for path, code := range map[string]int{"/livez": 200, "/healthz": 401, "/version": 401, "/api": 401} {
			if a := nobody.do(t, call{path: path}); a.code != code {
				t.Errorf("%s: %d, want %d", path, a.code, code)
			}
		}
	})
	t.Run("token webhook", func(t *testing.T) {
		c.bearer(t, "bad").is(t, "")
		for range 3 {
			c.bearer(t, "good-1").is(t, "hooked", "h")
		}
		asked := tokens.questions()
		if n := len(asked); asked[n-1].Spec.Token != "good-1" || !slices.Equal(asked[n-1].Spec.Audiences, []string{"https://kubernetes.default.svc.cluster.local"}) || n > 1 && asked[n-2].Spec.Token == "good-1" {
			t.Errorf("asked %+v", asked)
		}
		tokens.does(func(w http.ResponseWriter, _ *authenticationv1.TokenReview) {
			http.Error(w, "broken", http.StatusTeapot)
		})
		c.bearer(t, "good-1").is(t, "hooked", "h")
		c.bearer(t, "good-2").is(t, "")
	})
	t.Run("token file", func(t *testing.T) { c.bearer(t, "from-a-file").is(t, "filed", "a", "b") })
	t.Run("client CA", func(t *testing.T) { c.clientCAs(t, authority, cas) })
	t.Run("bootstrap tokens", func(t *testing.T) { c.bootstrapTokens(t, p) })
	t.Run("authorization webhook", func(t *testing.T) { c.authorizationWebhook(t, p, access, ann) })
	t.Run("reload", func(t *testing.T) { c.reloads(t, p, issuer, access.kubeconfig, ann) })
}

// authorizationWebhook is asked about ann, and about nobody else.
func (c *cluster) authorizationWebhook(t *testing.T, p *peer, access *reviewer[authorizationv1.SubjectAccessReview], ann func(...string) *peer) {
	list := call{path: at("pods", "default")}
	access.does(func(w http.ResponseWriter, r *authorizationv1.SubjectAccessReview) {
		r.Status.Allowed, r.Status.Reason = r.Spec.ResourceAttributes != nil && r.Spec.ResourceAttributes.Resource == "pods", "no goods for you"
		reply(w, r)
	})
	for range 2 {
		ann().want(t, http.StatusOK, list, nil)
	}
	if asked := access.questions(); len(asked) != 1 || asked[0].Spec.User != "shop:ann" || asked[0].Spec.ResourceAttributes.Namespace != "default" || asked[0].Spec.ResourceAttributes.Verb != "list" {
		t.Errorf("asked %+v", asked)
	}
	ann().do(t, call{path: at("secrets", "default")}).refused(t, 403, metav1.StatusReasonForbidden,
		`secrets is forbidden: User "shop:ann" cannot list resource "secrets" in API group "" in the namespace "default": no goods for you`)
	// RBAC comes after it, and is not asked when it fails.
	access.does(func(w http.ResponseWriter, _ *authorizationv1.SubjectAccessReview) {
		http.Error(w, "broken", http.StatusTeapot)
	})
	ann().do(t, call{path: at("configmaps", "default")}).refused(t, 500, metav1.StatusReasonInternalError, "")
	c.bearer(t, "from-a-file").do(t, call{path: at("pods", "default")}).refused(t, 403, metav1.StatusReasonForbidden, `User "filed" cannot list resource "pods"`)
	for _, series := range []string{
		`authentication_attempts{result="success"}`, `authentication_attempts{result="error"}`, `authenticated_user_requests{username="other"}`,
		`authorization_attempts_total{result="no-opinion"}`, `authorization_duration_seconds_count{result="allowed"}`,
	} {
		if p.metric(t, series) == "" {
			t.Errorf("there is no %s", series)
		}
	}
	for series, want := range map[string]string{
		`apiserver_authorization_decisions_total{decision="allowed",name="shop",type="Webhook"}`: "2",
		`apiserver_authorization_webhook_evaluations_total{name="shop",result="error"}`:          "1",
	} {
		if got := p.metric(t, series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
}

// reloads changes both files, to something good and to something bad.
func (c *cluster) reloads(t *testing.T, p *peer, issuer *issuertest.Issuer, hook string, ann func(...string) *peer) {
	counted := func(what, status string) bool {
		for line := range strings.Lines(string(p.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)) {
			if strings.HasPrefix(line, "apiserver_"+what+"_config_controller_automatic_reloads_total{") && strings.Contains(line, fmt.Sprintf("status=%q", status)) {
				return true
			}
		}
		return false
	}
	c.file(t, "authn.yaml", "nonsense")
	eventually(t, "a broken file is counted", func() bool { return counted("authentication", "failure") })
	c.file(t, "authn.yaml", strings.Replace(believing(issuer, "shop:", ""), "/livez", "/version", 1))
	eventually(t, "the log says so", func() bool {
		text := c.daemon.errs.String()
		return strings.Contains(text, "the authentication configuration stays as it was") && strings.Contains(text, "anonymous: Forbidden: changed from initial configuration file")
	})
	ann().is(t, "shop:ann", "g:dev")
	c.file(t, "authn.yaml", believing(issuer, "bank:", ""))
	eventually(t, "the new file holds", func() bool { _, u := ann().whoami(t); return u.Username == "bank:ann" })
	if !counted("authentication", "success") {
		t.Error("the reload is not counted")
	}
	if p.metric(t, "apiserver_authentication_config_controller_last_config_info") != "" {
		t.Error("the last configuration has no hash")
	}

	c.file(t, "authz.yaml", strings.Replace(asking(hook), "- {type: RBAC, name: rbac}\n", "", 1))
	eventually(t, "a broken file is counted", func() bool { return counted("authorization", "failure") })
	if text := c.daemon.errs.String(); !strings.Contains(text, "missing required types: [RBAC]") {
		t.Errorf("the log is %s", text)
	}
	deny := strings.Replace(asking(hook), "- type: Webhook", "- {type: AlwaysAllow, name: alwaysallow}\n- type: Webhook", 1)
	c.file(t, "authz.yaml", deny)
	eventually(t, "everybody may do everything", func() bool { return ann().do(t, call{path: at("secrets", "default")}).code == http.StatusOK })
	if !counted("authorization", "success") {
		t.Error("the reload is not counted")
	}
}

// clientCAs lets clients of another authority in, until the file names it no
// more.
func (c *cluster) clientCAs(t *testing.T, authority *pki.Authority, file string) {
	cert, err := authority.API.Issue(pki.Identity{CommonName: "guest", Organizations: []string{"guests"}})
	if err != nil {
		t.Fatal(err)
	}
	p := c.bearer(t, "")
	shows, err := tlsOf(p)
	if err != nil {
		t.Fatal(err)
	}
	shows.Certificates = []tls.Certificate{*cert}
	p.http = &http.Client{Transport: &http.Transport{TLSClientConfig: shows}}
	p.is(t, "guest", "guests")
	other, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.file(t, filepath.Base(file), string(other.API.PEM()))
	eventually(t, "on an open connection too, the guest is let in no more", func() bool { a, _ := p.whoami(t); return a.code == http.StatusUnauthorized })
}

// bootstrapTokens: "Authenticating with Bootstrap Tokens".
func (c *cluster) bootstrapTokens(t *testing.T, p *peer) {
	const token = "abcdef.0123456789abcdef"
	c.bearer(t, token).is(t, "")
	p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "kube-public"), body: "metadata: {name: cluster-info}\ndata: {kubeconfig: k}"}, nil)
	p.want(t, http.StatusCreated, call{method: "POST", path: at("secrets", "kube-system"), body: `metadata: {name: bootstrap-token-abcdef}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: "true"
  usage-bootstrap-signing: "true"
  auth-extra-groups: system:bootstrappers:hansa`}, nil)
	c.bearer(t, token).is(t, "system:bootstrap:abcdef", "system:bootstrappers", "system:bootstrappers:hansa")
	c.bearer(t, "abcdef.0123456789abcdee").is(t, "")
	eventually(t, "cluster-info is signed", func() bool {
		return strings.HasPrefix(field(p.want(t, http.StatusOK, call{path: at("configmaps", "kube-public", "cluster-info")}, nil).object(t), "data", "jws-kubeconfig-abcdef"), "eyJ")
	})
	p.want(t, http.StatusOK, call{method: "PATCH", path: at("secrets", "kube-system", "bootstrap-token-abcdef"), contentType: mergePatch, body: `{"stringData":{"expiration":"2001-01-01T00:00:00Z"}}`}, nil)
	c.bearer(t, token).is(t, "")
	eventually(t, "the token and its signature have gone", func() bool {
		return p.do(t, call{path: at("secrets", "kube-system", "bootstrap-token-abcdef")}).code == http.StatusNotFound &&
			field(p.want(t, http.StatusOK, call{path: at("configmaps", "kube-public", "cluster-info")}, nil).object(t), "data", "jws-kubeconfig-abcdef") == ""
	})
}

// authConfigurationsRefused: what is broken does not start.
func (c *cluster) authConfigurationsRefused(t *testing.T, good string) {
	t.Helper()
	bad := c.file(t, "bad.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: 'http://x'}}]\n")
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--authentication-config", bad}, fmt.Sprintf("invalid authentication configuration in file %q: [jwt[0].issuer.url: Invalid value: \"http://x\": URL scheme must be https", bad)},
		{[]string{"--authorization-config", good}, "failed to load AuthorizationConfiguration from file: expected AuthorizationConfiguration, got *apiserver.AuthenticationConfiguration"},
		{[]string{"--authorization-mode", "ABAC"}, `authorization-mode "ABAC" is not a valid mode`},
	} {
		if r := c.run(t, append([]string{"up"}, tt.flags...)...); r.code != 2 || !strings.Contains(r.err, tt.want) {
			t.Errorf("%q: %d, %s, want %s", tt.flags, r.code, r.err, tt.want)
		}
	}
}

// The same by kube-apiserver's older flags.
func TestAccessByFlags(t *testing.T) {
	c := own(t, "flags")
	issuer := issuertest.New(t, c.address.Prev().String())
	issuer.RotateRSA()
	access := newReviewer[authorizationv1.SubjectAccessReview](t, c, "access")
	access.does(func(w http.ResponseWriter, r *authorizationv1.SubjectAccessReview) {
		r.Status.Allowed = r.Spec.User == "system:anonymous" && r.Spec.NonResourceAttributes != nil
		reply(w, r)
	})
	if err := c.up("--oidc-issuer-url", issuer.URL, "--oidc-client-id", "hansa", "--oidc-ca-file", c.file(t, "issuer.pem", string(issuer.CA)),
		"--oidc-username-claim", "email", "--oidc-groups-claim", "groups", "--oidc-groups-prefix", "oidc:", "--oidc-required-claim", "hd=example.com",
		"--anonymous-auth", "--api-audiences", "hansa-api", "--authorization-mode", "Node,RBAC,Webhook",
		"--authorization-webhook-config-file", access.kubeconfig, "--authorization-webhook-version", "v1"); err != nil {
		t.Fatal(err)
	}
	bearer := func(hd string) *peer {
		return c.bearer(t, issuer.Token(map[string]any{"sub": "1", "aud": "hansa", "email": "ann@example.com", "groups": "dev", "hd": hd}))
	}
	eventually(t, "the issuer's keys are known", func() bool { a, _ := bearer("example.com").whoami(t); return a.code == http.StatusCreated })
	bearer("example.com").is(t, "ann@example.com", "oidc:dev")
	bearer("example.net").is(t, "")

	nobody := c.bearer(t, "")
	nobody.want(t, http.StatusOK, call{path: "/api"}, nil) // the webhook allows it
	nobody.do(t, call{path: at("pods", "default")}).refused(t, 403, metav1.StatusReasonForbidden, `pods is forbidden: User "system:anonymous" cannot list resource "pods"`)
	bearer("example.com").do(t, call{path: at("pods", "default")}).refused(t, 403, metav1.StatusReasonForbidden, `User "ann@example.com" cannot list resource "pods"`)

	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	var r authenticationv1.TokenRequest
	p.want(t, http.StatusCreated, call{method: "POST", path: at("serviceaccounts", "default", "default", "token"), body: "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: {}}"}, &r)
	if !slices.Equal(r.Spec.Audiences, []string{"hansa-api"}) {
		t.Errorf("a token is for %q", r.Spec.Audiences)
	}
	c.bearer(t, r.Status.Token).is(t, "system:serviceaccount:default:default", "system:serviceaccounts", "system:serviceaccounts:default")
}

// "User impersonation", constrained: leave to act as somebody else for some
// requests only.
func TestConstrainedImpersonation(t *testing.T) {
	ns := namespace(t)
	who := "agent-" + ns
	eve := certificate(t, apiCA, pki.Identity{CommonName: who})
	list := func(as string, groups ...string) answer {
		header := map[string]string{"Impersonate-User": as}
		for _, g := range groups {
			header["Impersonate-Group"] = g
		}
		return eve.do(t, call{path: at("pods", ns), header: header})
	}
	create(t, "clusterroles", "", "metadata: {name: "+who+"}\nrules:\n- {apiGroups: [authentication.k8s.io], resources: [users], resourceNames: [ann-"+ns+"], verbs: ['impersonate:user-info']}")
	create(t, "clusterrolebindings", "", "metadata: {name: "+who+"}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "+who+"}\nsubjects: [{kind: User, name: "+who+", apiGroup: rbac.authorization.k8s.io}]")
	grant(t, ns, "ann", "ann-"+ns, `[{apiGroups: [""], resources: [pods, secrets], verbs: [list]}]`)
	list("ann-"+ns).refused(t, 403, metav1.StatusReasonForbidden, `pods is forbidden: User "`+who+`" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "`+ns+`"`)
	grant(t, ns, "leave", who, `[{apiGroups: [""], resources: [pods], verbs: ['impersonate-on:user-info:list']}]`)
	if a := list("ann-" + ns); a.code != http.StatusOK {
		t.Errorf("ann's pods: %d %s", a.code, a.body)
	}
	// Neither for other requests, nor as others, nor as more than that.
	eve.do(t, call{path: at("secrets", ns), header: map[string]string{"Impersonate-User": "ann-" + ns}}).
		refused(t, 403, metav1.StatusReasonForbidden, `cannot impersonate-on:user-info:list resource "secrets"`)
	list("bob").refused(t, 403, metav1.StatusReasonForbidden, `users.authentication.k8s.io "bob" is forbidden: User "`+who+`" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope`)
	list("ann-"+ns, "system:masters").refused(t, 403, metav1.StatusReasonForbidden, "impersonating the system:masters group is not allowed")
	eve.do(t, call{path: at("pods", ns), header: map[string]string{"Impersonate-Group": "g"}}).
		refused(t, 400, metav1.StatusReasonBadRequest, `requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name`)
}
