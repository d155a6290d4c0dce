// Package trustbundle publishes the authority of the API servers' certificates
// as a ClusterTrustBundle.
package trustbundle

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Signer is whose bundle is published.
const Signer = "kubernetes.io/kube-apiserver-serving"

// Name is that of the object for a bundle. It says what is in it: a new
// authority gets a new object.
func Name(bundle []byte) string {
	sum := sha256.Sum256(bundle)
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(Signer, "/", ":"), sum[:12])
}

// Loop is the publisher.
type Loop struct {
	client              client.Interface
	bundles, namespaces *api.Resource
	name, bundle        string
}

// New makes the loop; bundle is the authority in PEM.
func New(c client.Interface, bundle []byte) *Loop {
	return &Loop{
		client: c, name: Name(bundle), bundle: string(bundle),
		bundles:    c.Registry().Must("certificates.k8s.io", "clustertrustbundles"),
		namespaces: c.Registry().Must("", "namespaces"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "kube-apiserver-serving-clustertrustbundle-publisher" }

// Sources are the signer's bundles, all looked at together, and kube-system,
// which is there when none of them is.
func (l *Loop) Sources() []controller.Source {
	all := []api.Key{{Name: l.name}}
	return []controller.Source{
		{Resource: l.bundles, Keys: func(old, new api.Object) []api.Key {
			if mine(old) || mine(new) {
				return all
			}
			return nil
		}},
		{Resource: l.namespaces, Keys: func(old, new api.Object) []api.Key {
			if old == nil && new.GetName() == metav1.NamespaceSystem {
				return all
			}
			return nil
		}},
	}
}

func mine(o api.Object) bool {
	b, ok := o.(*certificatesv1.ClusterTrustBundle)
	return ok && b.Spec.SignerName == Signer
}

// Step publishes the bundle, and removes what else the signer has.
func (l *Loop) Step(ctx context.Context, _ api.Key, _ time.Time) (time.Duration, error) {
	if err := l.publish(ctx); err != nil {
		return 0, fmt.Errorf("publish cluster trust bundle %s: %w", l.name, err)
	}
	for o := range l.client.View().List(l.bundles, "") {
		if !mine(o) || o.GetName() == l.name || o.GetDeletionTimestamp() != nil {
			continue
		}
		uid := o.GetUID()
		err := l.client.Delete(ctx, api.RefTo(l.bundles, o), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("failed to remove cluster trust bundle %s: %w", o.GetName(), err)
		}
	}
	return 0, nil
}

func (l *Loop) publish(ctx context.Context) error {
	have, ok := l.client.View().Get(l.bundles, api.Key{Name: l.name}).(*certificatesv1.ClusterTrustBundle)
	switch {
	case !ok:
		_, err := l.client.Create(ctx, l.bundles, &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: l.name},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: Signer, TrustBundle: l.bundle},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	case have.Spec.TrustBundle == l.bundle:
		return nil
	}
	b := have.DeepCopy()
	b.Spec.TrustBundle = l.bundle
	if _, err := l.client.Update(ctx, l.bundles, b, ""); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
