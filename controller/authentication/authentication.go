// Package authentication tells servers behind this one how clients are
// authenticated here, so that they can do the same, and by what they know this
// one as a front proxy: in the ConfigMap that they all read.
package authentication

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

// Name is the loop's name, and ConfigMap the name of what it keeps, in kube-system.
const (
	Name      = "cluster-authentication-trust-controller"
	ConfigMap = "extension-apiserver-authentication"
)

// Loop is the publisher.
type Loop struct {
	client           client.Interface
	maps, namespaces *api.Resource
	info             Info
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, info Info) *Loop {
	return &Loop{client: c, info: info, maps: c.Registry().Must("", "configmaps"), namespaces: c.Registry().Must("", "namespaces")}
}

// Name is the loop's name.
func (l *Loop) Name() string { return Name }

// Sources are the ConfigMap and its namespace.
func (l *Loop) Sources() []controller.Source {
	key := api.Key{Namespace: metav1.NamespaceSystem, Name: ConfigMap}
	about := func(namespace, name string) func(old, new api.Object) []api.Key {
		return func(old, new api.Object) []api.Key {
			o := new
			if o == nil {
				o = old
			}
			if o.GetNamespace() != namespace || o.GetName() != name {
				return nil
			}
			return []api.Key{key}
		}
	}
	return []controller.Source{
		{Resource: l.maps, Keys: about(key.Namespace, key.Name)},
		{Resource: l.namespaces, Keys: about("", key.Namespace)},
	}
}

// Step writes what is missing in the ConfigMap. What others have put there stays:
// servers of one cluster may have several authorities.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	if ns := l.client.View().Get(l.namespaces, api.Key{Name: key.Namespace}); ns == nil || ns.GetDeletionTimestamp() != nil {
		return 0, nil
	}
	have, ok := l.client.View().Get(l.maps, key).(*corev1.ConfigMap)
	if !ok {
		have = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	}
	data, err := plan(have.Data, l.info, now)
	if err != nil {
		return 0, fmt.Errorf("read ConfigMap %s: %w; delete it to have it made again", key, err)
	}
	if maps.Equal(data, have.Data) {
		return 0, nil
	}
	next := have.DeepCopy()
	next.Data = data
	if ok {
		_, err = l.client.Update(ctx, l.maps, next, "")
	} else {
		_, err = l.client.Create(ctx, l.maps, next, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("write ConfigMap %s: %w", key, err)
	}
	return 0, nil
}
