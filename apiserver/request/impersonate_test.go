package request_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/internal/metricstest"
)

// leaves allows what it lists, beside everything to system:masters, and notes
// all that it was asked of others:
// "VERB GROUP/RESOURCE[/SUBRESOURCE] [NAMESPACE/]NAME".
type leaves struct {
	given []string
	asked []string
	extra map[string][]string // of who asked last
}

func (l *leaves) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if slices.Contains(a.GetUser().GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	text := a.GetVerb() + " " + a.GetAPIGroup() + "/" + a.GetResource()
	if a.GetSubresource() != "" {
		text += "/" + a.GetSubresource()
	}
	text += " "
	if a.GetNamespace() != "" {
		text += a.GetNamespace() + "/"
	}
	text += a.GetName()
	l.asked = append(l.asked, text)
	l.extra = a.GetUser().GetExtra()
	if slices.Contains(l.given, text) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (l *leaves) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(l.Authorize(ctx, a))
}

func (*leaves) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

const onNode = "authentication.kubernetes.io/node-name"

// Who asks in the tests below, and one as whom they ask.
var (
	ann   = &user.DefaultInfo{Name: "ann"}
	agent = &user.DefaultInfo{Name: "system:serviceaccount:ns:agent", Extra: map[string][]string{onNode: {"n1"}, "k": {"v"}}}
	node  = &user.DefaultInfo{Name: "system:node:n1"}
)

// impersonations are what is asked, in this order, and as whom the request goes
// on: KEP-5284 "Constrained Impersonation", and "User impersonation" of the
// documentation.
var impersonations = []struct {
	name    string
	by      user.Info
	as      *user.DefaultInfo
	given   []string
	asked   []string
	groups  string // of whom the request goes on as; "": refused
	verb    string
	refused string
}{
	{
		name: "a user, as ever", by: ann, as: &user.DefaultInfo{Name: "bob"},
		given:  []string{"impersonate /users bob"},
		asked:  []string{"impersonate-on:user-info:list /pods ns/", "impersonate /users bob"},
		groups: "system:authenticated",
	},
	{
		name: "a user, for this alone", by: ann, as: &user.DefaultInfo{Name: "bob", UID: "1", Groups: []string{"g"}, Extra: map[string][]string{"a.b/k": {"v", "w"}}},
		given: []string{
			"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/uids 1",
			"impersonate:user-info authentication.k8s.io/groups g", "impersonate:user-info authentication.k8s.io/userextras/a.b/k v", "impersonate:user-info authentication.k8s.io/userextras/a.b/k w",
		},
		groups: "g system:authenticated", verb: "impersonate:user-info",
		refused: "",
	},
	{
		name: "a user whom nobody may be", by: ann, as: &user.DefaultInfo{Name: "bob"},
		asked:   []string{"impersonate-on:user-info:list /pods ns/", "impersonate /users bob"},
		refused: `pods is forbidden: User "ann" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "ns"`,
	},
	{
		name: "a group that may not be", by: ann, as: &user.DefaultInfo{Name: "bob", Groups: []string{"g", "h"}},
		given:   []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/groups g"},
		refused: `groups.authentication.k8s.io "h" is forbidden: User "ann" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope`,
	},
	{
		name: "masters, by the old verb alone", by: ann, as: &user.DefaultInfo{Name: "bob", Groups: []string{"system:masters"}},
		given:  []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/groups system:masters", "impersonate /users bob", "impersonate /groups system:masters"},
		groups: "system:masters system:authenticated",
	},
	{
		name: "masters, for this alone", by: ann, as: &user.DefaultInfo{Name: "bob", Groups: []string{"system:masters"}},
		given:   []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/groups system:masters"},
		refused: "impersonating the system:masters group is not allowed",
	},
	{
		name: "many groups at once", by: ann, as: &user.DefaultInfo{Name: "bob", Groups: []string{"a", "b", "c", "d"}},
		given:  []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/groups *"},
		asked:  []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/groups *"},
		groups: "a b c d system:authenticated", verb: "impersonate:user-info",
	},
	{
		name: "an extra field in capitals", by: ann, as: &user.DefaultInfo{Name: "bob", Extra: map[string][]string{"a.b/K": {"v"}}},
		given:   []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob"},
		refused: `impersonating a non-lowercase key in extra is not allowed: "a.b/K"`,
	},
	{
		name: "an extra field with an empty value", by: ann, as: &user.DefaultInfo{Name: "bob", Extra: map[string][]string{"a.b/k": {""}}},
		given:   []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob"},
		refused: "impersonating the empty string value in extra is not allowed",
	},
	{
		name: "many extra fields at once", by: ann, as: &user.DefaultInfo{Name: "bob", Extra: map[string][]string{"a.b/k": {"1", "2", "3", "4"}}},
		given:  []string{"impersonate-on:user-info:list /pods ns/", "impersonate:user-info authentication.k8s.io/users bob", "impersonate:user-info authentication.k8s.io/userextras/* *"},
		groups: "system:authenticated", verb: "impersonate:user-info",
	},
	{
		name: "a service account, as ever", by: ann, as: &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"},
		given:  []string{"impersonate /serviceaccounts ns/robot"},
		asked:  []string{"impersonate-on:serviceaccount:list /pods ns/", "impersonate /serviceaccounts ns/robot"},
		groups: "system:serviceaccounts system:serviceaccounts:ns system:authenticated",
	},
	{
		name: "a service account, for this alone", by: ann, as: &user.DefaultInfo{Name: "system:serviceaccount:ns:robot"},
		given:  []string{"impersonate-on:serviceaccount:list /pods ns/", "impersonate:serviceaccount authentication.k8s.io/serviceaccounts ns/robot"},
		groups: "system:serviceaccounts system:serviceaccounts:ns system:authenticated", verb: "impersonate:serviceaccount",
	},
	{
		name: "a service account with groups of one's own", by: ann, as: &user.DefaultInfo{Name: "system:serviceaccount:ns:robot", Groups: []string{"g"}},
		given:  []string{"impersonate /serviceaccounts ns/robot", "impersonate /groups g"},
		asked:  []string{"impersonate /serviceaccounts ns/robot", "impersonate /groups g"},
		groups: "g system:authenticated",
	},
	{
		name: "any node", by: ann, as: node,
		given:  []string{"impersonate-on:arbitrary-node:list /pods ns/", "impersonate:arbitrary-node authentication.k8s.io/nodes n1"},
		groups: "system:nodes system:authenticated", verb: "impersonate:arbitrary-node",
	},
	{
		name: "a node, as ever", by: ann, as: node,
		given:  []string{"impersonate /users system:node:n1"},
		groups: "system:authenticated",
	},
	{
		name: "the node of one's pod", by: agent, as: node,
		given:  []string{"impersonate-on:associated-node:list /pods ns/", "impersonate:associated-node authentication.k8s.io/nodes *"},
		asked:  []string{"impersonate-on:associated-node:list /pods ns/", "impersonate:associated-node authentication.k8s.io/nodes *"},
		groups: "system:nodes system:authenticated", verb: "impersonate:associated-node",
	},
	{
		name: "another node than that of one's pod", by: agent, as: &user.DefaultInfo{Name: "system:node:n2"},
		given:   []string{"impersonate-on:associated-node:list /pods ns/", "impersonate:associated-node authentication.k8s.io/nodes *"},
		refused: `cannot impersonate-on:arbitrary-node:list resource "pods"`,
	},
	{
		name: "nobody", by: ann, as: &user.DefaultInfo{Name: user.Anonymous},
		given:  []string{"impersonate /users system:anonymous"},
		groups: "system:unauthenticated",
	},
	{
		name: "the groups of nobody", by: ann, as: &user.DefaultInfo{Name: "bob", Groups: []string{"system:unauthenticated"}},
		given:  []string{"impersonate /users bob", "impersonate /groups system:unauthenticated"},
		groups: "system:unauthenticated",
	},
	{
		name: "no name", by: ann, as: &user.DefaultInfo{Groups: []string{"g"}},
		refused: `requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name`,
	},
}

func TestImpersonationModes(t *testing.T) {
	for _, tt := range impersonations {
		t.Run(tt.name, func(t *testing.T) {
			z := &leaves{given: tt.given}
			h := requesttest.Handler(t, func(c *request.Config) { c.Authorizer = z })
			a := &authorizer.AttributesRecord{User: tt.by, Verb: "list", Resource: "pods", Namespace: "ns", ResourceRequest: true}
			got, err := h.Impersonate(t.Context(), a, tt.as)
			if tt.asked != nil {
				if diff := cmp.Diff(tt.asked, z.asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			}
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) || !apierrors.IsForbidden(err) && !apierrors.IsBadRequest(err) {
					t.Errorf("refused with %v, want %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u := got.User; u.GetName() != tt.as.Name || strings.Join(u.GetGroups(), " ") != tt.groups || got.Constraint != tt.verb || u.GetUID() != tt.as.UID || len(u.GetExtra()) != len(tt.as.Extra) {
				t.Errorf("goes on as %+v by %q", u, got.Constraint)
			}
			if tt.verb == "impersonate:associated-node" {
				want := map[string][]string{"authentication.kubernetes.io/associated-node-keys": {onNode, "k"}}
				if diff := cmp.Diff(want, z.extra); diff != "" {
					t.Errorf("extra of who asks (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The mode that gave leave last is tried first, and its refusal is the answer.
func TestImpersonationRemembersTheMode(t *testing.T) {
	z := &leaves{given: []string{"impersonate /users bob"}}
	metrics := prometheus.NewRegistry()
	h := requesttest.Handler(t, func(c *request.Config) { c.Authorizer, c.Metrics = z, metrics })
	a := &authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ann"}, Verb: "get", Path: "/version"}
	for range 2 {
		z.asked = nil
		if _, err := h.Impersonate(t.Context(), a, &user.DefaultInfo{Name: "bob"}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(z.asked, z.given) {
		t.Errorf("asked %q the second time", z.asked)
	}
	_, err := h.Impersonate(t.Context(), a, &user.DefaultInfo{Name: "eve"})
	if want := `users "eve" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope`; err == nil || err.Error() != want {
		t.Errorf("refused with %v, want %s", err, want)
	}
	got := metricstest.Values(t, metrics)
	for series, want := range map[string]float64{
		"attempts_total{decision=allowed,mode=legacy}":                         2,
		"attempts_total{decision=denied,mode=}":                                1,
		"attempts_duration_seconds{decision=allowed,mode=legacy}":              2,
		"authorization_attempts_total{decision=allowed,mode=legacy}":           2,
		"authorization_attempts_total{decision=denied,mode=legacy}":            1,
		"authorization_attempts_total{decision=denied,mode=user-info}":         2,
		"authorization_attempts_duration_seconds{decision=denied,mode=legacy}": 1,
	} {
		if series = "apiserver_impersonation_" + series; got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
}

// What the authorizer says of whole requests is counted under upstream's names.
func TestAuthorizationMetrics(t *testing.T) {
	metrics := prometheus.NewRegistry()
	decision, failure := authorizer.DecisionAllow, error(nil)
	h := requesttest.Handler(t, func(c *request.Config) {
		c.Metrics = metrics
		c.Authorizer = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return decision, "", failure
		})
	})
	before := metricstest.Values(t, metrics)
	for _, tt := range []struct {
		decision authorizer.Decision
		err      error
		result   string
		code     metav1.StatusReason
	}{
		{authorizer.DecisionAllow, nil, "allowed", ""},
		{authorizer.DecisionDeny, nil, "denied", metav1.StatusReasonForbidden},
		{authorizer.DecisionNoOpinion, nil, "no-opinion", metav1.StatusReasonForbidden},
		{authorizer.DecisionNoOpinion, errors.New("broken"), "error", metav1.StatusReasonInternalError},
	} {
		decision, failure = tt.decision, tt.err
		err := h.Authorize(t.Context(), requesttest.Info("get", "v1", "pods", "default", "p"))
		if tt.code == "" && err != nil || tt.code != "" && apierrors.ReasonForError(err) != tt.code {
			t.Errorf("%s: %v", tt.result, err)
		}
		got := metricstest.Values(t, metrics)
		for _, series := range []string{"authorization_attempts_total", "authorization_duration_seconds"} {
			if series += "{result=" + tt.result + "}"; got[series] != before[series]+1 {
				t.Errorf("%s is %v", series, got[series])
			}
		}
	}
}
