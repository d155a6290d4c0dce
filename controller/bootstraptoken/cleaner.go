// Package bootstraptoken keeps the tokens by which machines join: it deletes
// those whose time is over (token-cleaner), and signs with the others what
// whoever wants to join reads about the cluster (bootstrap-signer). Tokens are
// secrets of type bootstrap.kubernetes.io/token in kube-system; see
// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/.
package bootstraptoken

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	tokens "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/util/secrets"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// isToken says whether an object, which may be nil, is a token.
func isToken(o api.Object) bool {
	s, ok := o.(*corev1.Secret)
	return ok && s.Namespace == metav1.NamespaceSystem && s.Type == tokens.SecretTypeBootstrapToken
}

// Cleaner is the loop that deletes tokens.
type Cleaner struct {
	client  client.Interface
	secrets *api.Resource
}

// NewCleaner makes the loop; it acts as the client's identity.
func NewCleaner(c client.Interface) *Cleaner {
	return &Cleaner{client: c, secrets: c.Registry().Must("", "secrets")}
}

// Name is the loop's identity.
func (*Cleaner) Name() string { return "token-cleaner" }

// Sources are the tokens.
func (l *Cleaner) Sources() []controller.Source {
	return []controller.Source{{Resource: l.secrets, Keys: func(_, new api.Object) []api.Key {
		if !isToken(new) {
			return nil
		}
		return []api.Key{{Namespace: new.GetNamespace(), Name: new.GetName()}}
	}}}
}

// Step deletes a token whose time is over, or whose time nobody can read.
func (l *Cleaner) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	s, ok := l.client.View().Get(l.secrets, key).(*corev1.Secret)
	if !ok || !isToken(s) || s.DeletionTimestamp != nil {
		return 0, nil
	}
	left, over := secrets.GetExpiration(s, now)
	if !over {
		return left, nil
	}
	err := l.client.Delete(ctx, api.RefTo(l.secrets, s), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete expired token %s: %w", key, err)
	}
	return 0, nil
}
