// Package namespacelifecycle keeps new objects out of namespaces that do not
// exist or are going away, and keeps the namespaces that a cluster cannot be
// without.
package namespacelifecycle

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// Immortal namespaces are never deleted.
var Immortal = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Plugin is a mutator by its place in the chain, before all others; it changes
// nothing.
type Plugin struct {
	view       View
	namespaces *api.Resource
}

// New is the plugin over a view.
func New(reg *api.Registry, view View) *Plugin {
	return &Plugin{view: view, namespaces: reg.Must("", "namespaces")}
}

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource == p.namespaces {
		if a.Operation == admission.Delete && slices.Contains(Immortal, a.Name) {
			return refusal.Forbidden(a, "this namespace may not be deleted")
		}
		return nil
	}
	if a.Namespace == "" || a.Operation != admission.Create || isLocalReview(a.Resource) {
		return nil
	}
	ns, _ := p.view.Get(p.namespaces, api.Key{Name: a.Namespace}).(*corev1.Namespace)
	if ns == nil {
		return apierrors.NewNotFound(p.namespaces.GroupResource(), a.Namespace)
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	err := refusal.Forbidden(a, "unable to create new content in namespace %s because it is being terminated", a.Namespace)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace),
		Field:   "metadata.namespace",
	})
	return err
}

// isLocalReview is true for the one question about a namespace: its answer must
// not tell whether the namespace exists.
func isLocalReview(r *api.Resource) bool {
	return r.Group == "authorization.k8s.io" && r.Plural == "localsubjectaccessreviews"
}
