package daemon

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/certificates"
	"hansa.dev/hansa/apiserver/admission/defaultclass"
	"hansa.dev/hansa/apiserver/admission/escalation"
	"hansa.dev/hansa/apiserver/admission/limitranger"
	"hansa.dev/hansa/apiserver/admission/namespacelifecycle"
	"hansa.dev/hansa/apiserver/admission/noderestriction"
	"hansa.dev/hansa/apiserver/admission/nodetaint"
	"hansa.dev/hansa/apiserver/admission/policy"
	"hansa.dev/hansa/apiserver/admission/priority"
	"hansa.dev/hansa/apiserver/admission/runtimeclass"
	"hansa.dev/hansa/apiserver/admission/serviceaccount"
	"hansa.dev/hansa/apiserver/admission/tolerations"
	"hansa.dev/hansa/apiserver/admission/webhook"
	"hansa.dev/hansa/apiserver/auth"
	"hansa.dev/hansa/apiserver/auth/rbac"
	"hansa.dev/hansa/apiserver/auth/review"
	"hansa.dev/hansa/apiserver/auth/token"
	"hansa.dev/hansa/apiserver/request"
)

// admissionChain is the plugins that are always on, in Kubernetes' order.
func admissionChain(p *controlPlane, roles *rbac.Index, z auth.Authorizer, clk clock.Clock) admission.Chain {
	reg, view := p.registry, p.store.View()
	hooks := webhook.Config{Registry: reg, View: view, Store: p.store, Services: newProxies(p), Authorizer: z}
	policies := policy.Config{
		Registry: reg, View: view, Namespaces: p.store, Authorizer: z,
		Merge: func() managedfields.TypeConverter { return p.handler.Converter() },
	}
	return admission.Chain{
		namespacelifecycle.New(reg, view),
		limitranger.New(reg, view),
		serviceaccount.New(reg, view, clk, rand.String),
		noderestriction.New(reg, view, z),
		nodetaint.New(reg),
		priority.New(reg, view),
		tolerations.New(reg),
		runtimeclass.New(reg, view),
		defaultclass.New(reg, view),
		certificates.New(z),
		escalation.New(roles, z),
		policy.NewMutating(policies),
		webhook.NewMutating(hooks),
		policy.NewValidating(policies),
		webhook.NewValidating(hooks),
	}
}

// hooks are the creates that store nothing: reviews, and tokens.
func hooks(r *review.Reviewer, tokens *token.Tokens) map[string]request.Hook {
	h := map[string]request.Hook{}
	for name, answer := range r.Funcs() {
		h[name] = func(ctx context.Context, info *request.Info, _ api.Object, body runtime.Object, _ bool) (runtime.Object, error) {
			return answer(ctx, info.User, body.(api.Object))
		}
	}
	h["serviceaccounts/token"] = func(_ context.Context, info *request.Info, parent api.Object, body runtime.Object, _ bool) (runtime.Object, error) {
		return tokens.Request(parent.(*corev1.ServiceAccount), body.(*authenticationv1.TokenRequest), info.Warn)
	}
	return h
}
