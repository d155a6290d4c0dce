package review_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/auth/review"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// decider remembers what it was asked and answers by the verb.
type decider struct{ asked authorizer.Attributes }

func (d *decider) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	d.asked = a
	switch a.GetVerb() {
	case "get":
		return authorizer.DecisionAllow, "because", nil
	case "delete":
		return authorizer.DecisionDeny, "never", nil
	case "watch":
		return authorizer.DecisionNoOpinion, "", errors.New("cannot tell")
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (d *decider) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{
			Verbs: []string{u.GetName()}, APIGroups: []string{""}, Resources: []string{namespace}, ResourceNames: []string{"n"}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}},
		true, errors.New("not all")
}

var ann = &user.DefaultInfo{Name: "ann", UID: "u", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}

func reviewer() (*review.Reviewer, *decider) {
	d := &decider{}
	return &review.Reviewer{
		Authorizer: d,
		Audiences:  []string{"api"},
		Clock:      clocktesting.NewFakePassiveClock(epoch),
		Requests: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			audiences, _ := authenticator.AudiencesFrom(r.Context())
			if r.Header.Get("Authorization") == "Bearer good" && r.TLS == nil {
				return &authenticator.Response{User: ann, Audiences: audiences}, true, nil
			}
			return nil, false, errors.New("invalid bearer token")
		}),
	}, d
}

func answer[T api.Object](t *testing.T, r *review.Reviewer, resource string, obj T) T {
	t.Helper()
	got, err := r.Funcs()[resource](t.Context(), ann, obj)
	if err != nil {
		t.Fatalf("%s: %v", resource, err)
	}
	return got.(T)
}

// There is an answer for every kind that is asked and not stored.
func TestFuncsAreComplete(t *testing.T) {
	r, _ := reviewer()
	funcs := r.Funcs()
	for _, row := range kinds.All() {
		name := row.GroupResource().String()
		if strings.HasSuffix(row.Plural, "reviews") != (funcs[name] != nil) {
			t.Errorf("%s: answered %v", name, funcs[name] != nil)
		}
	}
	if _, err := funcs["tokenreviews.authentication.k8s.io"](t.Context(), ann, &authorizationv1.SubjectAccessReview{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another kind: %v", err)
	}
}

func TestAccessReviews(t *testing.T) {
	r, d := reviewer()
	pods := func(verb string) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Verb: verb, Namespace: "ns", Group: "g", Resource: "pods", Subresource: "log", Name: "p"}
	}
	for _, c := range []struct {
		verb string
		want authorizationv1.SubjectAccessReviewStatus
	}{
		{"get", authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "because"}},
		{"delete", authorizationv1.SubjectAccessReviewStatus{Denied: true, Reason: "never"}},
		{"watch", authorizationv1.SubjectAccessReviewStatus{EvaluationError: "cannot tell"}},
		{"list", authorizationv1.SubjectAccessReviewStatus{}},
	} {
		self := answer(t, r, "selfsubjectaccessreviews.authorization.k8s.io", &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods(c.verb)}})
		if diff := cmp.Diff(c.want, self.Status); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.verb, diff)
		}
		want := &authorizer.AttributesRecord{User: ann, Verb: c.verb, Namespace: "ns", APIGroup: "g", APIVersion: "*",
			Resource: "pods", Subresource: "log", Name: "p", ResourceRequest: true}
		if diff := cmp.Diff(want, d.asked); diff != "" {
			t.Errorf("%s asked (-want +got):\n%s", c.verb, diff)
		}
	}

	spec := authorizationv1.SubjectAccessReviewSpec{User: "bob", UID: "1", Groups: []string{"h"},
		Extra: map[string]authorizationv1.ExtraValue{"x": {"y"}}, NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/metrics"}}
	bob := &user.DefaultInfo{Name: "bob", UID: "1", Groups: []string{"h"}, Extra: map[string][]string{"x": {"y"}}}
	other := answer(t, r, "subjectaccessreviews.authorization.k8s.io", &authorizationv1.SubjectAccessReview{Spec: spec})
	if diff := cmp.Diff(&authorizer.AttributesRecord{User: bob, Verb: "get", Path: "/metrics"}, d.asked); !other.Status.Allowed || diff != "" {
		t.Errorf("of another (-want +got):\n%s", diff)
	}
	spec.NonResourceAttributes, spec.ResourceAttributes = nil, pods("delete")
	local := answer(t, r, "localsubjectaccessreviews.authorization.k8s.io", &authorizationv1.LocalSubjectAccessReview{Spec: spec})
	if !local.Status.Denied || d.asked.GetUser().GetName() != "bob" {
		t.Errorf("local: %v", local.Status)
	}
}

func TestSelectors(t *testing.T) {
	r, d := reviewer()
	for _, c := range []struct {
		name          string
		field         *authorizationv1.FieldSelectorAttributes
		label         *authorizationv1.LabelSelectorAttributes
		fields        string
		labels        string
		fieldErr, lab bool
		says          string
	}{
		{name: "raw", field: &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b,c!=d"}, label: &authorizationv1.LabelSelectorAttributes{RawSelector: "x in (y,z)"},
			fields: "a=b c!=d", labels: "x in (y,z)"},
		{name: "raw and wrong", field: &authorizationv1.FieldSelectorAttributes{RawSelector: "a"}, label: &authorizationv1.LabelSelectorAttributes{RawSelector: "x in"}, fieldErr: true, lab: true,
			says: "spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector ignored due to parse error"},
		{name: "requirements", field: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{
			{Key: "a", Operator: "In", Values: []string{"b"}}, {Key: "c", Operator: "NotIn", Values: []string{"d"}}}},
			label: &authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{
				{Key: "x", Operator: "In", Values: []string{"y", "z"}}, {Key: "w", Operator: "Exists"}, {Key: "v", Operator: "DoesNotExist"}, {Key: "u", Operator: "NotIn", Values: []string{"t"}}}},
			fields: "a=b c!=d", labels: "x in (y,z) w !v u notin (t)"},
		{name: "understood in part", field: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{
			{Key: "a", Operator: "In", Values: []string{"b"}}, {Key: "c", Operator: "In", Values: []string{"d", "e"}}, {Key: "f", Operator: "Gt"}}},
			label: &authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{
				{Key: "w", Operator: "Exists"}, {Key: "x", Operator: "Near"}, {Key: "!", Operator: "Exists"}}},
			fields: "a=b", labels: "w", fieldErr: true, lab: true,
			says: "spec.resourceAttributes.fieldSelector partially ignored due to parse error; spec.resourceAttributes.labelSelector partially ignored due to parse error"},
	} {
		review := answer(t, r, "selfsubjectaccessreviews.authorization.k8s.io", &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "list", Resource: "pods", FieldSelector: c.field, LabelSelector: c.label}}})
		if review.Status.EvaluationError != c.says {
			t.Errorf("%s: it says %q, want %q", c.name, review.Status.EvaluationError, c.says)
		}
		var texts []string
		requirements, err := d.asked.GetFieldSelector()
		for _, f := range requirements {
			texts = append(texts, f.Field+string(f.Operator)+f.Value)
		}
		if got := strings.Join(texts, " "); got != c.fields || (err != nil) != c.fieldErr {
			t.Errorf("%s: fields %q, %v", c.name, got, err)
		}
		texts = nil
		labels, err := d.asked.GetLabelSelector()
		for _, l := range labels {
			texts = append(texts, l.String())
		}
		if got := strings.Join(texts, " "); got != c.labels || (err != nil) != c.lab {
			t.Errorf("%s: labels %q, %v", c.name, got, err)
		}
	}
}

func TestRulesReview(t *testing.T) {
	r, _ := reviewer()
	got := answer(t, r, "selfsubjectrulesreviews.authorization.k8s.io", &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}})
	want := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{{Verbs: []string{"ann"}, APIGroups: []string{""}, Resources: []string{"ns"}, ResourceNames: []string{"n"}}},
		NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}},
		Incomplete:       true,
		EvaluationError:  "not all",
	}
	if diff := cmp.Diff(want, got.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	_, err := r.Funcs()["selfsubjectrulesreviews.authorization.k8s.io"](t.Context(), ann, &authorizationv1.SelfSubjectRulesReview{})
	if !apierrors.IsBadRequest(err) || err.Error() != "no namespace on request" {
		t.Errorf("without a namespace: %v", err)
	}
}

func TestIdentityReviews(t *testing.T) {
	r, _ := reviewer()
	info := authenticationv1.UserInfo{Username: "ann", UID: "u", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	self := answer(t, r, "selfsubjectreviews.authentication.k8s.io", &authenticationv1.SelfSubjectReview{})
	if diff := cmp.Diff(info, self.Status.UserInfo); diff != "" || !self.CreationTimestamp.Time.Equal(epoch) {
		t.Errorf("self (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		spec authenticationv1.TokenReviewSpec
		want authenticationv1.TokenReviewStatus
	}{
		{authenticationv1.TokenReviewSpec{Token: "good"}, authenticationv1.TokenReviewStatus{Authenticated: true, User: info, Audiences: []string{"api"}}},
		{authenticationv1.TokenReviewSpec{Token: "good", Audiences: []string{"vault"}}, authenticationv1.TokenReviewStatus{Authenticated: true, User: info, Audiences: []string{"vault"}}},
		{authenticationv1.TokenReviewSpec{Token: "bad"}, authenticationv1.TokenReviewStatus{Error: "invalid bearer token"}},
	} {
		got := answer(t, r, "tokenreviews.authentication.k8s.io", &authenticationv1.TokenReview{Spec: c.spec})
		if diff := cmp.Diff(c.want, got.Status); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.spec, diff)
		}
	}
	_, err := r.Funcs()["tokenreviews.authentication.k8s.io"](t.Context(), ann, &authenticationv1.TokenReview{})
	if !apierrors.IsBadRequest(err) || err.Error() != "token is required for TokenReview in authentication" {
		t.Errorf("without a token: %v", err)
	}
}
