package optional

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// Config is what the plugins need.
type Config struct {
	Registry   *api.Registry
	View       View
	Authorizer authorizer.UnconditionalAuthorizer
	Clock      clock.PassiveClock
	// CreateNamespace makes a namespace; that it is there already is no error.
	CreateNamespace func(ctx context.Context, name string) error
	// On are the names of the plugins that are on: no other configuration is read.
	On []string
	// Files are the plugins' own configurations by their names.
	Files map[string][]byte
}

// Plugins are those of this package by their names.
func Plugins(c Config) (map[string]any, error) {
	nodes, spaces := c.Registry.Must("", "nodes"), namespaces{c.View, c.Registry.Must("", "namespaces")}
	all := map[string]any{
		"AlwaysAdmit":                          AlwaysAdmit{},
		"AlwaysDeny":                           AlwaysDeny{},
		"AlwaysPullImages":                     AlwaysPullImages{},
		"DenyServiceExternalIPs":               DenyServiceExternalIPs{},
		"ExtendedResourceToleration":           ExtendedResourceToleration{},
		"LimitPodHardAntiAffinityTopology":     LimitPodHardAntiAffinityTopology{},
		"NamespaceAutoProvision":               NamespaceAutoProvision{spaces, c.CreateNamespace},
		"NamespaceExists":                      NamespaceExists{spaces},
		"OwnerReferencesPermissionEnforcement": OwnerReferencesPermissionEnforcement{c.Registry, c.Authorizer},
		"PodResizeValidator":                   PodResizeValidator{c.View, nodes},
		"PodTopologyLabels":                    PodTopologyLabels{c.View, nodes},
	}
	for name, build := range map[string]func([]byte) (any, error){
		"EventRateLimit":           func(file []byte) (any, error) { return newEventRateLimit(file, c.Clock) },
		"PodNodeSelector":          func(file []byte) (any, error) { return newPodNodeSelector(file, spaces) },
		"PodTolerationRestriction": func(file []byte) (any, error) { return newPodTolerationRestriction(file, spaces) },
	} {
		if !slices.Contains(c.On, name) {
			continue
		}
		p, err := build(c.Files[name])
		if err != nil {
			return nil, fmt.Errorf("configuration of %s: %w", name, err)
		}
		all[name] = p
	}
	return all, nil
}

// AlwaysAdmit has no say.
type AlwaysAdmit struct{}

// AlwaysDeny refuses every write.
type AlwaysDeny struct{}

// Admit implements admission.Mutator.
func (AlwaysDeny) Admit(_ context.Context, a *admission.Attributes) error {
	return refusal.Forbidden(a, "admission control is denying all modifications")
}

// Validate implements admission.Validator.
func (x AlwaysDeny) Validate(ctx context.Context, a *admission.Attributes) error {
	return x.Admit(ctx, a)
}

// DenyServiceExternalIPs lets no service take traffic for addresses that it has
// not had already: whoever may write services could take anybody's.
type DenyServiceExternalIPs struct{}

// Validate implements admission.Validator.
func (DenyServiceExternalIPs) Validate(_ context.Context, a *admission.Attributes) error {
	s, ok := a.Object.(*corev1.Service)
	if !ok || a.Subresource != "" {
		return nil
	}
	old, _ := a.Old.(*corev1.Service)
	for _, ip := range s.Spec.ExternalIPs {
		if old == nil || !slices.Contains(old.Spec.ExternalIPs, ip) {
			return refusal.Forbidden(a, "Use of external IPs is denied by admission control")
		}
	}
	return nil
}

// namespaces looks them up.
type namespaces struct {
	view     View
	resource *api.Resource
}

func (n namespaces) get(name string) *corev1.Namespace {
	ns, _ := n.view.Get(n.resource, api.Key{Name: name}).(*corev1.Namespace)
	return ns
}

// missing says whether a write is in a namespace that is not there.
func (n namespaces) missing(a *admission.Attributes) bool {
	return a.Namespace != "" && a.Resource != n.resource && n.get(a.Namespace) == nil
}

// NamespaceAutoProvision makes the namespace of an object where there is none.
type NamespaceAutoProvision struct {
	namespaces
	create func(ctx context.Context, name string) error
}

// Admit implements admission.Mutator.
func (x NamespaceAutoProvision) Admit(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create || a.DryRun || !x.missing(a) {
		return nil
	}
	if err := x.create(ctx, a.Namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return refusal.Forbidden(a, "%v", err)
	}
	return nil
}

// NamespaceExists refuses every write in a namespace that is not there.
type NamespaceExists struct{ namespaces }

// Validate implements admission.Validator.
func (x NamespaceExists) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Operation == admission.Connect || !x.missing(a) {
		return nil
	}
	return apierrors.NewNotFound(x.resource.GroupResource(), a.Namespace)
}
