// Package policy decides by the ValidatingAdmissionPolicies and
// MutatingAdmissionPolicies of the cluster. What a policy means (matching,
// parameters, expressions, messages, patches) is the business of Kubernetes'
// library; which policies there are is said here, by the store's own copy:
//
//	policy, binding written ─▶ changes+1 ─▶ next write: list, compile what is new ─▶ generation
//	kind of parameters comes or goes ─────▶ next write: look it up again ─────────▶ generation
//
// So a policy is in effect when the write of it and its binding is answered. A
// generation never changes. A write that no policy is for costs a look into a
// map, and in a cluster without bindings a comparison.
package policy

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	library "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	"k8s.io/apiserver/pkg/admission/plugin/policy/matching"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/upstream"
)

// View is what the plugins need of the store's copy.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
	// Subscribe calls f for every object, and for every change before its write
	// is answered.
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
}

// Config is what both plugins are made of. All must be set.
type Config struct {
	Registry *api.Registry
	View     View
	// Namespaces answers with the newest state.
	Namespaces upstream.Store
	// Authorizer answers expressions that ask it.
	Authorizer authorizer.UnconditionalAuthorizer
	// Merge gives the merge schemas of kinds that have a Go type.
	Merge func() managedfields.TypeConverter
}

// source has the policies of one kind, compiled.
type source[P, B api.Object, E any] struct {
	Config
	adapter            *upstream.Adapter
	policies, bindings *api.Resource
	policyOf           func(P) generic.PolicyAccessor
	bindingOf          func(B) generic.BindingAccessor
	compile            func(P) E

	changes atomic.Int64 // of policies and bindings since the start
	now     atomic.Pointer[generation[P, B, E]]

	making   sync.Mutex
	compiled map[string]compiled[E] // by name; guarded by making
}

// compiled is what was made of one state of a policy.
type compiled[E any] struct {
	policy    api.Object
	evaluator E
}

// generation is what holds as long as no policy and no binding changes.
type generation[P, B api.Object, E any] struct {
	changes int64
	// kinds is closed when the kinds of parameters have to be looked up again.
	// Nil: there are none.
	kinds <-chan struct{}
	hooks []generic.PolicyHook[P, B, E]
	rules [][]admissionregistrationv1.NamedRuleWithOperations // of each hook
	// found are the hooks that may be for a write, by target.
	found sync.Map
}

// target is what rules go by before they look at an object. It does not keep the
// row, which may be one of many that a definition has had.
type target struct {
	schema.GroupResource
	subresource string
	operation   admission.Operation
}

func newSource[P, B api.Object, E any](c Config, policies, bindings string) *source[P, B, E] {
	s := &source[P, B, E]{
		Config: c, adapter: upstream.New(c.Registry), compiled: map[string]compiled[E]{},
		policies: c.Registry.Must(admissionregistrationv1.GroupName, policies),
		bindings: c.Registry.Must(admissionregistrationv1.GroupName, bindings),
	}
	count := func(_, _ api.Object) { s.changes.Add(1) }
	c.View.Subscribe(s.policies, count)
	c.View.Subscribe(s.bindings, count)
	return s
}

func (s *source[P, B, E]) matcher() *matching.Matcher {
	return matching.NewMatcher(upstream.Namespaces(s.Registry, s.View, s.Namespaces))
}

// isCurrent says that a generation still holds.
func (s *source[P, B, E]) isCurrent(g *generation[P, B, E]) bool {
	if g == nil || g.changes != s.changes.Load() {
		return false
	}
	select {
	case <-g.kinds:
		return false
	default:
		return true
	}
}

func (s *source[P, B, E]) current() *generation[P, B, E] {
	if g := s.now.Load(); s.isCurrent(g) {
		return g
	}
	s.making.Lock()
	defer s.making.Unlock()
	if g := s.now.Load(); s.isCurrent(g) {
		return g
	}
	g := s.make()
	s.now.Store(g)
	return g
}

// make makes the generation of now. The caller holds making.
func (s *source[P, B, E]) make() *generation[P, B, E] {
	// What is listed from here on is at least as new as this count, and what is
	// looked up as these kinds.
	g := &generation[P, B, E]{changes: s.changes.Load()}
	kinds := s.Registry.Changed()
	bound := map[string][]B{}
	for obj := range s.View.List(s.bindings, "") {
		name := s.bindingOf(obj.(B)).GetPolicyName().Name
		bound[name] = append(bound[name], obj.(B))
	}
	was := s.compiled
	s.compiled = map[string]compiled[E]{}
	if len(bound) == 0 {
		return g
	}
	for obj := range s.View.List(s.policies, "") {
		p := obj.(P)
		bindings := bound[p.GetName()]
		if len(bindings) == 0 {
			continue
		}
		c, ok := was[p.GetName()]
		if !ok || c.policy != obj {
			c = compiled[E]{policy: obj, evaluator: s.compile(p)}
		}
		s.compiled[p.GetName()] = c
		hook := generic.PolicyHook[P, B, E]{Policy: p, Bindings: bindings, Evaluator: c.evaluator}
		about := s.policyOf(p)
		if kind := about.GetParamKind(); kind != nil {
			g.kinds = kinds
			hook.ParamInformer, hook.ParamScope, hook.ConfigurationError = s.parameters(kind)
		}
		g.hooks = append(g.hooks, hook)
		g.rules = append(g.rules, about.GetMatchConstraints().ResourceRules)
	}
	return g
}

// asked are the policies that may be for a write: the library decides.
func (s *source[P, B, E]) asked(a *admission.Attributes) []generic.PolicyHook[P, B, E] {
	g := s.current()
	if len(g.hooks) == 0 {
		return nil
	}
	t := target{a.Resource.GroupResource(), a.Subresource, a.Operation}
	if hooks, ok := g.found.Load(t); ok {
		return hooks.([]generic.PolicyHook[P, B, E])
	}
	var hooks []generic.PolicyHook[P, B, E]
	if !exempt(a.Resource) {
		for i, rules := range g.rules {
			if slices.ContainsFunc(rules, func(r admissionregistrationv1.NamedRuleWithOperations) bool {
				return t.isNamedBy(&r.RuleWithOperations, a.Resource)
			}) {
				hooks = append(hooks, g.hooks[i])
			}
		}
	}
	g.found.Store(t, hooks)
	return hooks
}

// exempt are the resources that no policy is ever for: the reviews, and policies
// themselves, which could not be mended any more.
func exempt(r *api.Resource) bool {
	if r.Group == admissionregistrationv1.GroupName {
		return strings.Contains(r.Plural, "admissionpolic")
	}
	return slices.Contains(kinds.NotAdmitted(), r.GroupResource())
}

// isNamedBy says whether a rule names the target, in any version and group that
// it is served in: one that is asked for in another may be equivalent.
func (t target) isNamedBy(rule *admissionregistrationv1.RuleWithOperations, row *api.Resource) bool {
	return slices.ContainsFunc(rule.Operations, func(op admissionregistrationv1.OperationType) bool {
		return op == admissionregistrationv1.OperationAll || string(op) == string(t.operation)
	}) && slices.ContainsFunc(rule.APIGroups, func(g string) bool {
		return g == "*" || g == t.Group || slices.ContainsFunc(row.Versions, func(v api.Version) bool { return v.Group == g })
	}) && slices.ContainsFunc(rule.Resources, func(name string) bool {
		main, sub, _ := strings.Cut(name, "/")
		return (main == "*" || main == t.Resource) && (sub == "*" || sub == t.subresource)
	})
}

// plugin is some policies as a plugin of the library.
type plugin[H any] struct {
	*library.Handler
	dispatcher generic.Dispatcher[H]
	hooks      []H
}

// Admit implements library.MutationInterface.
func (p plugin[H]) Admit(ctx context.Context, a library.Attributes, o library.ObjectInterfaces) error {
	return p.dispatcher.Dispatch(ctx, a, o, p.hooks)
}

// Validate implements library.ValidationInterface.
func (p plugin[H]) Validate(ctx context.Context, a library.Attributes, o library.ObjectInterfaces) error {
	return p.dispatcher.Dispatch(ctx, a, o, p.hooks)
}

// Mutating is the plugin MutatingAdmissionPolicy.
type Mutating struct {
	source     *source[*mutating.Policy, *mutating.PolicyBinding, mutating.PolicyEvaluator]
	handler    *library.Handler
	dispatcher generic.Dispatcher[mutating.PolicyHook]
}

var _ admission.Mutator = (*Mutating)(nil)

// NewMutating makes the plugin, which follows the policies as long as there is a
// view.
func NewMutating(c Config) *Mutating {
	s := newSource[*mutating.Policy, *mutating.PolicyBinding, mutating.PolicyEvaluator](c, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
	s.policyOf, s.bindingOf, s.compile = mutating.NewMutatingAdmissionPolicyAccessor, mutating.NewMutatingAdmissionPolicyBindingAccessor, compileMutating
	return &Mutating{
		source:     s,
		handler:    library.NewHandler(library.Create, library.Update, library.Connect),
		dispatcher: mutating.NewDispatcher(c.Authorizer, s.matcher(), converters{c}),
	}
}

// Admit has the policies that match change the object, in the order of their names.
func (m *Mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	hooks := m.source.asked(a)
	if len(hooks) == 0 || a.Object == nil {
		return nil
	}
	return m.source.adapter.Admit(ctx, plugin[mutating.PolicyHook]{m.handler, m.dispatcher, hooks}, a)
}

// Validating is the plugin ValidatingAdmissionPolicy.
type Validating struct {
	source     *source[*validating.Policy, *validating.PolicyBinding, validating.PolicyEvaluator]
	handler    *library.Handler
	dispatcher generic.Dispatcher[validating.PolicyHook]
}

var _ admission.Validator = (*Validating)(nil)

// NewValidating makes the plugin, which follows the policies as NewMutating's does.
func NewValidating(c Config) *Validating {
	s := newSource[*validating.Policy, *validating.PolicyBinding, validating.PolicyEvaluator](c, "validatingadmissionpolicies", "validatingadmissionpolicybindings")
	s.policyOf, s.bindingOf, s.compile = validating.NewValidatingAdmissionPolicyAccessor, validating.NewValidatingAdmissionPolicyBindingAccessor, compileValidating
	return &Validating{
		source:     s,
		handler:    library.NewHandler(library.Connect, library.Create, library.Delete, library.Update),
		dispatcher: validating.NewDispatcher(c.Authorizer, generic.NewPolicyMatcher(s.matcher())),
	}
}

// Validate refuses what one of the policies that match denies.
func (v *Validating) Validate(ctx context.Context, a *admission.Attributes) error {
	hooks := v.source.asked(a)
	if len(hooks) == 0 {
		return nil
	}
	return v.source.adapter.Validate(ctx, plugin[validating.PolicyHook]{v.handler, v.dispatcher, hooks}, a)
}
