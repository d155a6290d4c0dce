// Package webhook asks the servers that MutatingWebhookConfigurations and
// ValidatingWebhookConfigurations name, by the plugins of Kubernetes' library.
//
// The library gets all configurations of one kind at once, as a generation that
// never changes; a write of a configuration ends it, and the next request makes
// another:
//
//	configuration written ─▶ changes+1 ─▶ next write: list, rules, plugin ─▶ asked
//
// So a configuration is in effect when its write is answered. A request whose
// resource no rule names costs a look at the rules, and without configurations
// nothing.
package webhook

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	library "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/generic"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/upstream"
)

// View is what the plugins need of the store's copy.
type View interface {
	upstream.View
	// Subscribe calls f for every object, and for every change before its write
	// is answered.
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
}

// Config is what both plugins are made of. All must be set.
type Config struct {
	Registry *api.Registry
	View     View
	Store    upstream.Store
	// Services finds the addresses of services.
	Services webhookutil.ServiceResolver
	// Authorizer answers match conditions that ask it.
	Authorizer authorizer.UnconditionalAuthorizer
}

// hooks are the webhooks of one kind of configuration.
type hooks struct {
	Config
	adapter *upstream.Adapter
	row     *api.Resource
	// prepare makes the plugin of some configurations.
	prepare func(list []api.Object) (rules, library.Interface, error)

	changes atomic.Int64 // of configurations since the start
	now     atomic.Pointer[generation]
	making  sync.Mutex
}

// generation is what is to be asked as long as no configuration changes.
type generation struct {
	changes int64
	rules   rules
	plugin  library.Interface // nil if there is nobody to ask
}

func newHooks(c Config, plural string) *hooks {
	h := &hooks{Config: c, adapter: upstream.New(c.Registry), row: c.Registry.Must(registrationv1.GroupName, plural)}
	c.View.Subscribe(h.row, func(_, _ api.Object) { h.changes.Add(1) })
	return h
}

// current is the generation of now.
func (h *hooks) current() (*generation, error) {
	if g := h.now.Load(); g != nil && g.changes == h.changes.Load() {
		return g, nil
	}
	h.making.Lock()
	defer h.making.Unlock()
	// What is listed from here on is at least as new as this count.
	g := &generation{changes: h.changes.Load()}
	if was := h.now.Load(); was != nil && was.changes == g.changes {
		return was, nil
	}
	var list []api.Object
	for obj := range h.View.List(h.row, "") {
		list = append(list, obj)
	}
	if len(list) > 0 {
		var err error
		if g.rules, g.plugin, err = h.prepare(list); err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("prepare %s: %w", h.row.Plural, err))
		}
	}
	h.now.Store(g)
	return g, nil
}

// asked is the plugin if it may have somebody to ask about a write, else nil.
func (h *hooks) asked(a *admission.Attributes) (library.Interface, error) {
	g, err := h.current()
	if err != nil || g.plugin == nil || !g.rules.name(a.Resource, a.Subresource, string(a.Operation)) {
		return nil, err
	}
	return g.plugin, nil
}

// Asks implements admission.External.
func (h *hooks) Asks(r *api.Resource) bool {
	g, err := h.current()
	return err == nil && g.plugin != nil && g.rules.nameAny(r)
}

// settle gives a plugin of the library what it needs, and answers with the rules of
// the configurations.
func (h *hooks) settle(p *generic.Webhook, list []api.Object, rulesOf func(api.Object) rules) (r rules, err error) {
	f := newFactory()
	for _, obj := range list {
		r = append(r, rulesOf(obj)...)
		if err := f.configurations.Add(obj); err != nil {
			return nil, err
		}
	}
	lister, newest := upstream.Namespaces(h.Registry, h.View, h.Store)
	f.namespaces = lister
	p.SetExternalKubeInformerFactory(f)
	p.SetExternalKubeClientSet(newest)
	p.SetServiceResolver(h.Services)
	p.SetAuthenticationInfoResolverWrapper(limited)
	p.SetUnconditionalAuthorizer(h.Authorizer)
	p.SetExcludedAdmissionResources(virtual)
	p.InspectFeatureGates(utilfeature.DefaultFeatureGate)
	return r, p.ValidateInitialization()
}

// Mutating is the plugin MutatingAdmissionWebhook.
type Mutating struct{ *hooks }

var (
	_ admission.Mutator  = Mutating{}
	_ admission.External = Mutating{}
)

// NewMutating makes the plugin, which follows the configurations as long as there
// is a view.
func NewMutating(c Config) Mutating {
	h := newHooks(c, "mutatingwebhookconfigurations")
	h.prepare = func(list []api.Object) (rules, library.Interface, error) {
		p, err := mutating.NewMutatingWebhook(nil)
		if err != nil {
			return nil, nil, err
		}
		r, err := h.settle(p.Webhook, list, func(obj api.Object) (r rules) {
			for _, hook := range obj.(*registrationv1.MutatingWebhookConfiguration).Webhooks {
				r = append(r, hook.Rules...)
			}
			return r
		})
		return r, p, err
	}
	return Mutating{h}
}

// Admit asks the webhooks that match, one after the other.
func (m Mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	p, err := m.asked(a)
	if p == nil {
		return err
	}
	return m.adapter.Admit(ctx, p.(library.MutationInterface), a)
}

// Validating is the plugin ValidatingAdmissionWebhook.
type Validating struct{ *hooks }

var (
	_ admission.Validator = Validating{}
	_ admission.External  = Validating{}
)

// NewValidating makes the plugin, which follows the configurations as
// NewMutating's does.
func NewValidating(c Config) Validating {
	h := newHooks(c, "validatingwebhookconfigurations")
	h.prepare = func(list []api.Object) (rules, library.Interface, error) {
		p, err := validating.NewValidatingAdmissionWebhook(nil)
		if err != nil {
			return nil, nil, err
		}
		r, err := h.settle(p.Webhook, list, func(obj api.Object) (r rules) {
			for _, hook := range obj.(*registrationv1.ValidatingWebhookConfiguration).Webhooks {
				r = append(r, hook.Rules...)
			}
			return r
		})
		return r, p, err
	}
	return Validating{h}
}

// Validate asks the webhooks that match, all at once.
func (v Validating) Validate(ctx context.Context, a *admission.Attributes) error {
	p, err := v.asked(a)
	if p == nil {
		return err
	}
	return v.adapter.Validate(ctx, p.(library.ValidationInterface), a)
}
