package bootstraptoken

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	tokens "k8s.io/cluster-bootstrap/token/api"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// clusterInfo is the ConfigMap that is signed.
var clusterInfo = api.Key{Namespace: metav1.NamespacePublic, Name: tokens.ConfigMapClusterInfo}

// Signer is the loop that signs it.
type Signer struct {
	client              client.Interface
	secrets, configMaps *api.Resource
}

// NewSigner makes the loop; it acts as the client's identity.
func NewSigner(c client.Interface) *Signer {
	return &Signer{client: c, secrets: c.Registry().Must("", "secrets"), configMaps: c.Registry().Must("", "configmaps")}
}

// Name is the loop's identity.
func (*Signer) Name() string { return "bootstrap-signer" }

// Sources are the ConfigMap and the tokens.
func (l *Signer) Sources() []controller.Source {
	one := []api.Key{clusterInfo}
	return []controller.Source{
		{Resource: l.configMaps, Keys: func(_, new api.Object) []api.Key {
			if new == nil || new.GetName() != clusterInfo.Name || new.GetNamespace() != clusterInfo.Namespace {
				return nil
			}
			return one
		}},
		{Resource: l.secrets, Keys: func(old, new api.Object) []api.Key {
			if !isToken(old) && !isToken(new) {
				return nil
			}
			return one
		}},
	}
}

// Step brings the signatures up to date.
func (l *Signer) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	have, ok := l.client.View().Get(l.configMaps, key).(*corev1.ConfigMap)
	if !ok || have.DeletionTimestamp != nil {
		return 0, nil
	}
	want, left, err := sign(have.Data, l.tokens, now)
	if err != nil {
		return 0, fmt.Errorf("sign %s: %w", key, err)
	}
	if want == nil {
		return left, nil
	}
	next := have.DeepCopy()
	next.Data = want
	if _, err := l.client.Update(ctx, l.configMaps, next, ""); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("sign %s: %w", key, err)
	}
	return left, nil
}

func (l *Signer) tokens(yield func(*corev1.Secret) bool) {
	for o := range l.client.View().List(l.secrets, metav1.NamespaceSystem) {
		if isToken(o) && !yield(o.(*corev1.Secret)) {
			return
		}
	}
}
