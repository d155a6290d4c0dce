package daemon

import (
	"context"
	"maps"

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

// admissionChain is the plugins with these names, in their order. Roles and
// bindings are guarded whatever the names: in Kubernetes that is no plugin.
func admissionChain(names []string, p *controlPlane, roles *rbac.Index, z auth.Authorizer, clk clock.Clock) admission.Chain {
	reg, view := p.registry, p.store.View()
	hooks := webhook.Config{Registry: reg, View: view, Store: p.store, Services: newProxies(p), Authorizer: z}
	policies := policy.Config{
		Registry: reg, View: view, Namespaces: p.store, Authorizer: z,
		Merge: func() managedfields.TypeConverter { return p.handler.Converter() },
	}
	plugins := map[string]any{
		"NamespaceLifecycle":         namespacelifecycle.New(reg, view),
		"LimitRanger":                limitranger.New(reg, view),
		"ServiceAccount":             serviceaccount.New(reg, view, clk, rand.String),
		"NodeRestriction":            noderestriction.New(reg, view, z),
		"TaintNodesByCondition":      nodetaint.New(reg),
		"Priority":                   priority.New(reg, view),
		"DefaultTolerationSeconds":   tolerations.New(reg),
		"RuntimeClass":               runtimeclass.New(reg, view),
		"MutatingAdmissionPolicy":    policy.NewMutating(policies),
		"MutatingAdmissionWebhook":   webhook.NewMutating(hooks),
		"ValidatingAdmissionPolicy":  policy.NewValidating(policies),
		"ValidatingAdmissionWebhook": webhook.NewValidating(hooks),
	}
	maps.Copy(plugins, defaultclass.Plugins(reg, view))
	maps.Copy(plugins, certificates.Plugins(z))
	return append(admission.Chain{{Name: "RBAC", Plugin: escalation.New(roles, z)}}, admission.Pick(names, plugins)...)
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
