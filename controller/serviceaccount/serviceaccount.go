// Package serviceaccount sees that every namespace has the service account
// "default".
package serviceaccount

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Loop is the service account controller.
type Loop struct {
	client               client.Interface
	namespaces, accounts *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{client: c, namespaces: c.Registry().Must("", "namespaces"), accounts: c.Registry().Must("", "serviceaccounts")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "service-account-controller" }

// Sources are the namespaces, and accounts called default that were deleted.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.namespaces},
		{Resource: l.accounts, Keys: func(old, new api.Object) []api.Key {
			if new == nil && old.GetName() == "default" {
				return []api.Key{{Name: old.GetNamespace()}}
			}
			return nil
		}},
	}
}

// Step makes the account of one namespace if it is missing.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	ns, ok := l.client.View().Get(l.namespaces, key).(*corev1.Namespace)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	if l.client.View().Get(l.accounts, api.Key{Namespace: ns.Name, Name: "default"}) != nil {
		return 0, nil
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "default"}}
	_, err := l.client.Create(ctx, l.accounts, sa, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, fmt.Errorf("create default service account of namespace %s: %w", ns.Name, err)
	}
	return 0, nil
}
