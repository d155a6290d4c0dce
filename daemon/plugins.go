package daemon

import (
	"context"
	"maps"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/certificates"
	"hansa.dev/hansa/apiserver/admission/defaultclass"
	"hansa.dev/hansa/apiserver/admission/dependencies"
	"hansa.dev/hansa/apiserver/admission/escalation"
	"hansa.dev/hansa/apiserver/admission/limitranger"
	"hansa.dev/hansa/apiserver/admission/namespacelifecycle"
	"hansa.dev/hansa/apiserver/admission/noderestriction"
	"hansa.dev/hansa/apiserver/admission/nodetaint"
	"hansa.dev/hansa/apiserver/admission/optional"
	"hansa.dev/hansa/apiserver/admission/podsecurity"
	"hansa.dev/hansa/apiserver/admission/policy"
	"hansa.dev/hansa/apiserver/admission/priority"
	"hansa.dev/hansa/apiserver/admission/privileged"
	"hansa.dev/hansa/apiserver/admission/resourcequota"
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

// admissionChain is the plugins that are on, in their order. Roles and bindings are
// guarded, and privileged containers refused, whatever is on: in Kubernetes those are
// no plugins.
func admissionChain(c Config, p *controlPlane, roles *rbac.Index, z auth.Authorizer, clk clock.Clock) (admission.Chain, error) {
	reg, view, files := p.registry, p.store.View(), c.AdmissionFiles
	security, err := podsecurity.New(reg, view, files["PodSecurity"], p.metrics)
	if err != nil {
		return nil, err
	}
	limited, err := resourcequota.Parse(files["ResourceQuota"])
	if err != nil {
		return nil, err
	}
	plugins, err := optional.Plugins(optional.Config{
		Registry: reg, View: view, Authorizer: z, Clock: clk, On: c.AdmissionPlugins, Files: files,
		CreateNamespace: func(ctx context.Context, name string) error {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			_, err := p.asServer("kube-apiserver").Create(ctx, reg.Must("", "namespaces"), ns, metav1.CreateOptions{})
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	hooks := webhook.Config{Registry: reg, View: view, Store: p.store, Services: newProxies(p), Authorizer: z}
	policies := policy.Config{
		Registry: reg, View: view, Namespaces: p.store, Authorizer: z,
		Merge: func() managedfields.TypeConverter { return p.handler.Converter() },
	}
	maps.Copy(plugins, map[string]any{
		"NamespaceLifecycle":         namespacelifecycle.New(reg, view),
		"LimitRanger":                limitranger.New(reg, view),
		"ServiceAccount":             serviceaccount.New(reg, view, clk, rand.String),
		"NodeRestriction":            noderestriction.New(reg, view, z),
		"TaintNodesByCondition":      nodetaint.New(reg),
		"PodSecurity":                security,
		"Priority":                   priority.New(reg, view),
		"DefaultTolerationSeconds":   tolerations.New(reg),
		"RuntimeClass":               runtimeclass.New(reg, view),
		"Dependencies":               dependencies.New(reg, view),
		"MutatingAdmissionPolicy":    policy.NewMutating(policies),
		"MutatingAdmissionWebhook":   webhook.NewMutating(hooks),
		"ValidatingAdmissionPolicy":  policy.NewValidating(policies),
		"ValidatingAdmissionWebhook": webhook.NewValidating(hooks),
		"ResourceQuota":              resourcequota.New(reg, view, p.store, p.charges, clk, limited),
	})
	maps.Copy(plugins, defaultclass.Plugins(reg, view))
	maps.Copy(plugins, certificates.Plugins(z))
	chain := admission.Chain{{Name: "RBAC", Plugin: escalation.New(roles, z)}}
	if c.ForbidPrivileged {
		chain = append(chain, admission.Named{Name: "AllowPrivileged", Plugin: privileged.Plugin{}})
	}
	return append(chain, admission.Pick(c.AdmissionPlugins, plugins)...), nil
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
