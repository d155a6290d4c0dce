package auth_test

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/auth"
)

type says struct {
	decision authorizer.Decision
	reason   string
	err      error
}

func (s says) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return s.decision, s.reason, s.err
}

func (s says) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{s.reason}}}, nil, s.err != nil, s.err
}

func TestChain(t *testing.T) {
	const no, yes, deny = authorizer.DecisionNoOpinion, authorizer.DecisionAllow, authorizer.DecisionDeny
	ann := &user.DefaultInfo{Name: "ann"}
	for _, c := range []struct {
		name  string
		user  user.Info
		chain auth.Chain
		want  says
	}{
		{"nobody asked", ann, nil, says{no, "", nil}},
		{"the first with an opinion", ann, auth.Chain{says{no, "a", nil}, says{yes, "b", nil}, says{deny, "c", nil}}, says{yes, "b", nil}},
		{"a refusal", ann, auth.Chain{says{deny, "c", nil}, says{yes, "b", nil}}, says{deny, "c", nil}},
		{"no opinions", ann, auth.Chain{says{no, "a", nil}, says{no, "", nil}, says{no, "b", nil}}, says{no, "a\nb", nil}},
		{"masters", &user.DefaultInfo{Groups: []string{"system:masters"}}, auth.Chain{says{deny, "c", nil}}, says{yes, "", nil}},
		{"no user", nil, auth.Chain{says{yes, "", nil}}, says{no, "no user on request.", nil}},
	} {
		a := authorizer.AttributesRecord{}
		if c.user != nil {
			a.User = c.user
		}
		decision, reason, err := c.chain.Authorize(t.Context(), a)
		if got := (says{decision, reason, err}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	broken := auth.Chain{says{no, "", errors.New("x")}, says{no, "r", nil}}
	if _, _, err := broken.Authorize(t.Context(), authorizer.AttributesRecord{User: ann}); err == nil {
		t.Error("an error was lost")
	}
	rules, _, incomplete, err := broken.RulesFor(t.Context(), ann, "ns")
	if len(rules) != 2 || !incomplete || err == nil {
		t.Errorf("rules %v, incomplete %v, %v", rules, incomplete, err)
	}
}
