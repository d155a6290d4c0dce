// Package rootca publishes, in every namespace, the certificate authority by
// which pods know the API server.
package rootca

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Name of the ConfigMap, and what it says about itself, as in Kubernetes.
const (
	Name        = "kube-root-ca.crt"
	key         = "ca.crt"
	about       = "kubernetes.io/description"
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Loop is the root CA publisher.
type Loop struct {
	client                 client.Interface
	namespaces, configMaps *api.Resource
	bundle                 string
}

// New makes the loop; bundle is the authority in PEM.
func New(c client.Interface, bundle []byte) *Loop {
	return &Loop{client: c, namespaces: c.Registry().Must("", "namespaces"), configMaps: c.Registry().Must("", "configmaps"), bundle: string(bundle)}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "root-ca-cert-publisher" }

// Sources are the namespaces and the published maps, which are mended.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.namespaces},
		{Resource: l.configMaps, Keys: func(old, new api.Object) []api.Key {
			o := new
			if o == nil {
				o = old
			}
			if o.GetName() != Name {
				return nil
			}
			return []api.Key{{Name: o.GetNamespace()}}
		}},
	}
}

// Step publishes in one namespace.
func (l *Loop) Step(ctx context.Context, k api.Key, _ time.Time) (time.Duration, error) {
	ns, ok := l.client.View().Get(l.namespaces, k).(*corev1.Namespace)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	want := map[string]string{key: l.bundle}
	have, ok := l.client.View().Get(l.configMaps, api.Key{Namespace: ns.Name, Name: Name}).(*corev1.ConfigMap)
	if !ok {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: Name, Annotations: map[string]string{about: description}},
			Data:       want,
		}
		_, err := l.client.Create(ctx, l.configMaps, cm, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, fmt.Errorf("publish root CA in namespace %s: %w", ns.Name, err)
		}
		return 0, nil
	}
	if maps.Equal(have.Data, want) && len(have.BinaryData) == 0 && have.Annotations[about] != "" {
		return 0, nil
	}
	cm := have.DeepCopy()
	cm.Data, cm.BinaryData = want, nil
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, about, description)
	if _, err := l.client.Update(ctx, l.configMaps, cm, ""); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("mend root CA in namespace %s: %w", ns.Name, err)
	}
	return 0, nil
}
