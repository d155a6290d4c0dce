package authz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/cel"

	"hansa.dev/hansa/apiserver/auth"
	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/internal/librarymetrics"
	"hansa.dev/hansa/internal/metricstest"
)

// says is an authorizer that allows one verb.
type says string

func (s says) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() == string(s) {
		return authorizer.DecisionAllow, string(s), nil
	}
	return authorizer.DecisionNoOpinion, "not " + string(s), nil
}

func (s says) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{string(s)}}}, nil, false, nil
}

// hook is a webhook: answer is how it answers a review. What it was asked is
// kept.
type hook struct {
	file string // the kubeconfig by which it is reached

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *authorizationv1.SubjectAccessReview)
	asked  []authorizationv1.SubjectAccessReviewSpec
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{file: filepath.Join(t.TempDir(), "hook.kubeconfig")}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		h.mu.Lock()
		answer := h.answer
		h.asked = append(h.asked, review.Spec)
		h.mu.Unlock()
		answer(w, &review)
	}))
	t.Cleanup(server.Close)
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n", server.URL)
	if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.says(authorizationv1.SubjectAccessReviewStatus{})
	return h
}

func (h *hook) does(answer func(http.ResponseWriter, *authorizationv1.SubjectAccessReview)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer, h.asked = answer, nil
}

func (h *hook) says(status authorizationv1.SubjectAccessReviewStatus) {
	h.does(func(w http.ResponseWriter, r *authorizationv1.SubjectAccessReview) {
		r.Status = status
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r) // the client has gone
	})
}

func (h *hook) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.asked)
}

// file is an AuthorizationConfiguration of Node, a webhook with these settings,
// and RBAC.
func (h *hook) config(settings string) string {
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {type: Node, name: node}
- type: Webhook
  name: hook
  webhook:
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %q}
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
%s
- {type: RBAC, name: rbac}
`, h.file, settings)
}

const cached = `    timeout: 3s
    failurePolicy: %s
    authorizedTTL: 5m
    unauthorizedTTL: 30s`

func start(t *testing.T, text string) (*authz.Authorizer, *prometheus.Registry) {
	t.Helper()
	c, err := authz.Parse([]byte(text), cel.NewDefaultCompiler())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	metrics := prometheus.NewRegistry()
	z, err := authz.New(authz.Options{
		Node: says("node"), RBAC: says("rbac"), Metrics: metrics,
		Retries: wait.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 2},
	}, c)
	if err != nil {
		t.Fatal(err)
	}
	return z, metrics
}

func ask(t *testing.T, z auth.Authorizer, verb string) (authorizer.Decision, string, error) {
	t.Helper()
	return z.Authorize(t.Context(), authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: "ann", Groups: []string{"dev"}}, Verb: verb, Resource: "pods", Namespace: "ns", ResourceRequest: true,
	})
}

// https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization
func TestWebhook(t *testing.T) {
	type status = authorizationv1.SubjectAccessReviewStatus
	const no, yes, deny = authorizer.DecisionNoOpinion, authorizer.DecisionAllow, authorizer.DecisionDeny
	failing := func(w http.ResponseWriter, _ *authorizationv1.SubjectAccessReview) {
		http.Error(w, "broken", http.StatusTeapot)
	}
	garbage := func(w http.ResponseWriter, _ *authorizationv1.SubjectAccessReview) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind": "Pod"`)) // the client has gone
	}
	for _, tt := range []struct {
		name     string
		policy   string // on failure
		status   status
		does     func(http.ResponseWriter, *authorizationv1.SubjectAccessReview)
		verb     string
		decision authorizer.Decision
		reason   string
		failed   bool
		asked    int
	}{
		{name: "it allows", status: status{Allowed: true, Reason: "r"}, verb: "get", decision: yes, reason: "r", asked: 1},
		{name: "it denies what those behind it would allow", status: status{Denied: true, Reason: "r"}, verb: "rbac", decision: deny, reason: "r", asked: 1},
		{name: "it has no opinion", status: status{Reason: "r"}, verb: "get", decision: no, reason: "not node\nr\nnot rbac", asked: 1},
		{name: "it leaves it to those behind it", verb: "rbac", decision: yes, reason: "rbac", asked: 1},
		{name: "those before it decide", verb: "node", decision: yes, reason: "node"},
		{name: "it says both", status: status{Allowed: true, Denied: true}, verb: "get", decision: deny, failed: true, asked: 1},
		{name: "it fails", does: failing, verb: "rbac", decision: yes, reason: "rbac", asked: 1},
		{name: "it fails and is missed", policy: "Deny", does: failing, verb: "rbac", decision: deny, failed: true, asked: 1},
		{name: "it answers garbage", policy: "Deny", does: garbage, verb: "rbac", decision: deny, failed: true, asked: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHook(t)
			h.says(tt.status)
			if tt.does != nil {
				h.does(tt.does)
			}
			if tt.policy == "" {
				tt.policy = "NoOpinion"
			}
			z, _ := start(t, h.config(fmt.Sprintf(cached, tt.policy)))
			decision, reason, err := ask(t, z, tt.verb)
			if decision != tt.decision || reason != tt.reason || (err != nil) != tt.failed || h.count() != tt.asked {
				t.Errorf("%v, %q, %v, asked %d times", decision, reason, err, h.count())
			}
		})
	}
}

// A webhook that hangs is waited for as long as its timeout says.
func TestWebhookHangs(t *testing.T) {
	h := newHook(t)
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	h.does(func(http.ResponseWriter, *authorizationv1.SubjectAccessReview) { <-end })
	z, _ := start(t, h.config("    timeout: 50ms\n    failurePolicy: Deny\n    authorizedTTL: 1s\n    unauthorizedTTL: 1s"))
	if decision, _, err := ask(t, z, "rbac"); decision != authorizer.DecisionDeny || err == nil {
		t.Errorf("%v, %v", decision, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	decision, _, err := z.Authorize(ctx, authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ann"}, Verb: "get"})
	if decision != authorizer.DecisionDeny || err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("whose client has gone: %v, %v", decision, err)
	}
}

// What a webhook decided is remembered, each kind of answer as it is told.
func TestWebhookAnswersAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		settings string
		allowed  bool
		asked    int
	}{
		{fmt.Sprintf(cached, "Deny"), true, 1},
		{fmt.Sprintf(cached, "Deny"), false, 1},
		{fmt.Sprintf(cached, "Deny") + "\n    cacheAuthorizedRequests: false", true, 3},
		{fmt.Sprintf(cached, "Deny") + "\n    cacheAuthorizedRequests: false", false, 1},
		{fmt.Sprintf(cached, "Deny") + "\n    cacheUnauthorizedRequests: false", true, 1},
		{fmt.Sprintf(cached, "Deny") + "\n    cacheUnauthorizedRequests: false", false, 3},
	} {
		h := newHook(t)
		h.says(authorizationv1.SubjectAccessReviewStatus{Allowed: tt.allowed})
		z, _ := start(t, h.config(tt.settings))
		for range 3 {
			if decision, _, err := ask(t, z, "get"); (decision == authorizer.DecisionAllow) != tt.allowed || err != nil {
				t.Errorf("%v, %v", decision, err)
			}
		}
		if h.count() != tt.asked {
			t.Errorf("asked %d times, want %d, when allowed %v with\n%s", h.count(), tt.asked, tt.allowed, tt.settings)
		}
	}
}

func TestMatchConditions(t *testing.T) {
	h := newHook(t)
	h.says(authorizationv1.SubjectAccessReviewStatus{Denied: true})
	z, _ := start(t, h.config(fmt.Sprintf(cached, "Deny")+`
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: request.resourceAttributes.verb == 'list'
`))
	if decision, _, err := ask(t, z, "rbac"); decision != authorizer.DecisionAllow || err != nil || h.count() != 0 {
		t.Errorf("what does not match: %v, %v, asked %d times", decision, err, h.count())
	}
	if decision, _, err := ask(t, z, "list"); decision != authorizer.DecisionDeny || err != nil || h.count() != 1 {
		t.Errorf("what matches: %v, %v, asked %d times", decision, err, h.count())
	}
}

// The metrics are upstream's.
func TestMetrics(t *testing.T) {
	h := newHook(t)
	h.says(authorizationv1.SubjectAccessReviewStatus{Denied: true})
	z, metrics := start(t, strings.ReplaceAll(h.config(fmt.Sprintf(cached, "NoOpinion")), "name: hook", "name: counted"))
	for _, verb := range []string{"node", "list"} {
		if _, _, err := ask(t, z, verb); err != nil {
			t.Fatal(err)
		}
	}
	h.does(func(w http.ResponseWriter, _ *authorizationv1.SubjectAccessReview) {
		http.Error(w, "", http.StatusTeapot)
	})
	if _, _, err := ask(t, z, "rbac"); err != nil {
		t.Fatal(err)
	}
	metrics.MustRegister(librarymetrics.Collector{"apiserver_authorization_webhook_"})
	got := metricstest.Values(t, metrics)
	for _, series := range []string{
		"decisions_total{decision=allowed,name=node,type=Node}", "decisions_total{decision=denied,name=counted,type=Webhook}", "decisions_total{decision=allowed,name=rbac,type=RBAC}",
		"webhook_evaluations_total{name=counted,result=success}", "webhook_evaluations_total{name=counted,result=error}",
		"webhook_evaluations_fail_open_total{name=counted,result=error}", "webhook_duration_seconds{name=counted,result=success}",
	} {
		if got["apiserver_authorization_"+series] != 1 {
			t.Errorf("%s is %v", series, got["apiserver_authorization_"+series])
		}
	}
}

// Webhooks come and go by a reload; what is broken changes nothing.
func TestReload(t *testing.T) {
	h := newHook(t)
	h.says(authorizationv1.SubjectAccessReviewStatus{Allowed: true})
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n"
	const plain = head + "- {type: Node, name: node}\n- {type: RBAC, name: rbac}\n"
	z, _ := start(t, plain)
	allowed := func(want bool) {
		t.Helper()
		if decision, _, err := ask(t, z, "get"); (decision == authorizer.DecisionAllow) != want || err != nil {
			t.Errorf("%v, %v", decision, err)
		}
	}
	allowed(false)
	if err := z.Reload([]byte(h.config(fmt.Sprintf(cached, "Deny")))); err != nil {
		t.Fatal(err)
	}
	allowed(true)
	for text, want := range map[string]string{
		head + "- {type: RBAC, name: rbac}\n":                              "missing required types: [Node]",
		head + "- {type: Node, name: other}\n- {type: RBAC, name: rbac}\n": "expected name node for authorizer Node instead of other",
		"nonsense": "failed to load AuthorizationConfiguration from file: ",
		strings.Replace(h.config(fmt.Sprintf(cached, "Deny")), h.file, "/nowhere/x", 1): "/nowhere/x",
	} {
		if err := z.Reload([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		allowed(true)
	}
	if err := z.Reload([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	allowed(false)
}

func TestInvalidConfigurations(t *testing.T) {
	h := newHook(t)
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
	for _, tt := range []struct{ name, text, want string }{
		{"no authorizers", head + "authorizers: []\n", "authorizers: Required value: at least one authorization mode must be defined"},
		{"an unknown field", head + "authorizer: []\n", `strict decoding error: unknown field "authorizer"`},
		{"another kind", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n", "expected AuthorizationConfiguration, got *apiserver.AuthenticationConfiguration"},
		{"ABAC", head + "authorizers: [{type: ABAC, name: abac}]\n", `authorizers[0].type: Unsupported value: "ABAC": supported values: "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"`},
		{"a type twice", head + "authorizers: [{type: RBAC, name: rbac}, {type: RBAC, name: two}]\n", `authorizers[1].type: Duplicate value: "RBAC"`},
		{"a name twice", head + "authorizers: [{type: RBAC, name: x}, {type: Node, name: x}]\n", `authorizers[1].name: Duplicate value: "x"`},
		{"no webhook", head + "authorizers: [{type: Webhook, name: w}]\n", "authorizers[0].webhook: Required value: required when type=Webhook"},
		{"too long a timeout", h.config("    timeout: 31s\n    failurePolicy: Deny\n    authorizedTTL: 1s\n    unauthorizedTTL: 1s"), `authorizers[1].timeout: Invalid value: "31s": must be > 0s and <= 30s`},
		{"no failure policy", h.config("    timeout: 3s\n    authorizedTTL: 1s\n    unauthorizedTTL: 1s"), "authorizers[1].failurePolicy: Required value"},
		{"a broken condition", h.config(fmt.Sprintf(cached, "Deny") + "\n    matchConditions: [{expression: 'request.'}]"), "matchConditions[0].expression: Invalid value: \"request.\": compilation failed"},
		{"a condition that is no condition", h.config(fmt.Sprintf(cached, "Deny") + "\n    matchConditions: [{expression: '1'}]"), "must evaluate to bool"},
	} {
		if _, err := authz.Parse([]byte(tt.text), cel.NewDefaultCompiler()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// What kube-apiserver's flags mean, by their documentation.
func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		flags authz.Flags
		names string
		want  string
	}{
		{authz.Flags{}, "node rbac", ""},
		{authz.Flags{Modes: []string{"RBAC", "Webhook", "AlwaysDeny"}, WebhookFile: "f"}, "rbac default alwaysdeny", ""},
		{authz.Flags{Modes: []string{"Rbac"}}, "", `authorization-mode "Rbac" is not a valid mode`},
		{authz.Flags{Modes: []string{"ABAC"}}, "", `authorization-mode "ABAC" is not a valid mode: write its policies as roles`},
		{authz.Flags{Modes: []string{"RBAC", "RBAC"}}, "", `authorization-mode ["RBAC" "RBAC"] has mode specified more than once`},
		{authz.Flags{Modes: []string{"Webhook"}}, "", "authorization-mode Webhook's authorization config file not passed"},
		{authz.Flags{WebhookFile: "f"}, "", "cannot specify --authorization-webhook-config-file without mode Webhook"},
		{authz.Flags{Modes: []string{"Webhook"}, WebhookFile: "f", WebhookVersion: "v2"}, "", `authorization-webhook-version "v2" is neither v1 nor v1beta1`},
	} {
		c, err := tt.flags.Config()
		if err != nil {
			if tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: %v", tt.flags, err)
			}
			continue
		}
		var names []string
		for _, a := range c.Authorizers {
			names = append(names, a.Name)
		}
		if !slices.Equal(names, strings.Fields(tt.names)) {
			t.Errorf("%+v is %q", tt.flags, names)
		}
	}
}

// AlwaysAllow and AlwaysDeny, and what is said of the rules of anybody.
func TestAlways(t *testing.T) {
	z := func(modes ...string) *authz.Authorizer {
		c, err := authz.Flags{Modes: modes}.Config()
		if err != nil {
			t.Fatal(err)
		}
		z, err := authz.New(authz.Options{Node: says("node"), RBAC: says("rbac")}, c)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	if decision, _, _ := ask(t, z("AlwaysAllow"), "get"); decision != authorizer.DecisionAllow {
		t.Errorf("AlwaysAllow: %v", decision)
	}
	if decision, reason, _ := ask(t, z("AlwaysDeny"), "get"); decision != authorizer.DecisionNoOpinion || reason != "Everything is forbidden." {
		t.Errorf("AlwaysDeny: %v, %s", decision, reason)
	}
	resources, paths, incomplete, err := z("RBAC", "AlwaysAllow").RulesFor(t.Context(), &user.DefaultInfo{}, "ns")
	if len(resources) != 2 || resources[1].GetVerbs()[0] != "*" || len(paths) != 1 || incomplete || err != nil {
		t.Errorf("rules %v, %v, %v, %v", resources, paths, incomplete, err)
	}
}

// Whatever a file says, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}]\n"))
	compiler := cel.NewDefaultCompiler()
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = authz.Parse(data, compiler) // that it comes back is all
	})
}
