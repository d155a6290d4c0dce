// Package review answers the questions that clients may put to the server about
// identities and permissions: the access reviews, the token review and "who am
// I". Nothing of them is stored. Every function gets an object that its row has
// found valid, owns it, and gives it back with the status filled in.
package review

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// Authorizer decides and lists.
type Authorizer interface {
	authorizer.UnconditionalAuthorizer
	authorizer.RuleResolver
}

// Reviewer answers. It is safe for use by any goroutine.
type Reviewer struct {
	Authorizer Authorizer
	// Requests authenticates as the server itself does, for token reviews.
	Requests authenticator.Request
	// Audiences are the server's own.
	Audiences []string
	Clock     clock.PassiveClock
}

// Func answers one kind of review for the user who asks.
type Func func(ctx context.Context, u user.Info, obj api.Object) (api.Object, error)

// Funcs are all answers by resource, as "PLURAL.GROUP".
func (r *Reviewer) Funcs() map[string]Func {
	return map[string]Func{
		"selfsubjectreviews.authentication.k8s.io":       answers(r.self),
		"tokenreviews.authentication.k8s.io":             answers(r.token),
		"subjectaccessreviews.authorization.k8s.io":      answers(r.subjectAccess),
		"localsubjectaccessreviews.authorization.k8s.io": answers(r.localAccess),
		"selfsubjectaccessreviews.authorization.k8s.io":  answers(r.selfAccess),
		"selfsubjectrulesreviews.authorization.k8s.io":   answers(r.selfRules),
	}
}

func answers[T api.Object](f func(context.Context, user.Info, T) error) Func {
	return func(ctx context.Context, u user.Info, obj api.Object) (api.Object, error) {
		review, ok := obj.(T)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %T: %T", review, obj))
		}
		return review, f(ctx, u, review)
	}
}

func (r *Reviewer) self(_ context.Context, u user.Info, review *authenticationv1.SelfSubjectReview) error {
	*review = authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(r.Clock.Now())},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)},
	}
	return nil
}

func (r *Reviewer) token(ctx context.Context, _ user.Info, review *authenticationv1.TokenReview) error {
	if review.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	audiences := authenticator.Audiences(review.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = r.Audiences
	}
	// A request with nothing in it but the token.
	request, err := http.NewRequestWithContext(authenticator.WithAudiences(ctx, audiences), http.MethodGet, "/", nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	request.Header.Set("Authorization", "Bearer "+review.Spec.Token)
	resp, ok, err := r.Requests.AuthenticateRequest(request)

	review.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
	if err != nil {
		review.Status.Error = err.Error()
	}
	if ok {
		review.Status.User = userInfo(resp.User)
		review.Status.Audiences = resp.Audiences
	}
	return nil
}

func (r *Reviewer) subjectAccess(ctx context.Context, _ user.Info, review *authorizationv1.SubjectAccessReview) error {
	review.Status = r.decide(ctx, subject(&review.Spec), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	return nil
}

func (r *Reviewer) localAccess(ctx context.Context, _ user.Info, review *authorizationv1.LocalSubjectAccessReview) error {
	review.Status = r.decide(ctx, subject(&review.Spec), review.Spec.ResourceAttributes, nil)
	return nil
}

func (r *Reviewer) selfAccess(ctx context.Context, u user.Info, review *authorizationv1.SelfSubjectAccessReview) error {
	review.Status = r.decide(ctx, u, review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	return nil
}

func (r *Reviewer) selfRules(ctx context.Context, u user.Info, review *authorizationv1.SelfSubjectRulesReview) error {
	if review.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resources, paths, incomplete, err := r.Authorizer.RulesFor(ctx, u, review.Spec.Namespace)
	status := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{},
		NonResourceRules: []authorizationv1.NonResourceRule{},
		Incomplete:       incomplete,
	}
	for _, rule := range resources {
		status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
			Verbs:         rule.GetVerbs(),
			APIGroups:     rule.GetAPIGroups(),
			Resources:     rule.GetResources(),
			ResourceNames: rule.GetResourceNames(),
		})
	}
	for _, rule := range paths {
		status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs:           rule.GetVerbs(),
			NonResourceURLs: rule.GetNonResourceURLs(),
		})
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	// The answer is about the asker, nothing of the question comes back.
	*review = authorizationv1.SelfSubjectRulesReview{Status: status}
	return nil
}

func (r *Reviewer) decide(ctx context.Context, u user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a := attributes(u, resource, path)
	decision, reason, err := r.Authorizer.Authorize(ctx, a)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow,
		Denied:  decision == authorizer.DecisionDeny,
		Reason:  reason,
	}
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	fields, err := a.GetFieldSelector()
	problems = append(problems, ignored("fieldSelector", len(fields), err)...)
	labels, err := a.GetLabelSelector()
	problems = append(problems, ignored("labelSelector", len(labels), err)...)
	status.EvaluationError = strings.Join(problems, "; ")
	return status
}

// ignored says what became of a selector that was understood in part, or not at all.
func ignored(name string, understood int, err error) []string {
	switch {
	case err == nil:
		return nil
	case understood > 0:
		return []string{"spec.resourceAttributes." + name + " partially ignored due to parse error"}
	}
	return []string{"spec.resourceAttributes." + name + " ignored due to parse error"}
}

func subject(spec *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: spec.User, UID: spec.UID, Groups: spec.Groups}
	if spec.Extra != nil {
		u.Extra = map[string][]string{}
		for k, v := range spec.Extra {
			u.Extra[k] = v
		}
	}
	return u
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	if extra := u.GetExtra(); len(extra) > 0 {
		info.Extra = map[string]authenticationv1.ExtraValue{}
		for k, v := range extra {
			info.Extra[k] = v
		}
	}
	return info
}
