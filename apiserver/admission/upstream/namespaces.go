package upstream

import (
	"context"
	"iter"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"hansa.dev/hansa/api"
)

// View is what namespaces are looked up in.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Store answers with the newest state.
type Store interface {
	Get(ctx context.Context, ref api.Ref, version string) (api.Object, error)
}

// Namespaces are those of a view as client-go lists them, with a client that can
// do one thing: ask the store about a namespace that the view does not have.
func Namespaces(reg *api.Registry, view View, store Store) (corelisters.NamespaceLister, kubernetes.Interface) {
	n := &namespaces{view: view, store: store, row: reg.Must("", "namespaces")}
	return n, clients{namespaces: n}
}

type namespaces struct {
	corelisters.NamespaceListerExpansion
	view  View
	store Store
	row   *api.Resource
}

// List implements the lister.
func (n *namespaces) List(selector labels.Selector) (all []*corev1.Namespace, err error) {
	for obj := range n.view.List(n.row, "") {
		if selector.Matches(labels.Set(obj.GetLabels())) {
			all = append(all, obj.(*corev1.Namespace))
		}
	}
	return all, nil
}

// Get implements the lister.
func (n *namespaces) Get(name string) (*corev1.Namespace, error) {
	if ns, ok := n.view.Get(n.row, api.Key{Name: name}).(*corev1.Namespace); ok {
		return ns, nil
	}
	return nil, apierrors.NewNotFound(n.row.GroupResource(), name)
}

type clients struct {
	kubernetes.Interface // nil
	namespaces           *namespaces
}

func (c clients) CoreV1() typedcorev1.CoreV1Interface { return coreClient{namespaces: c.namespaces} }

type coreClient struct {
	typedcorev1.CoreV1Interface // nil
	namespaces                  *namespaces
}

func (c coreClient) Namespaces() typedcorev1.NamespaceInterface {
	return namespaceClient{namespaces: c.namespaces}
}

type namespaceClient struct {
	typedcorev1.NamespaceInterface // nil
	namespaces                     *namespaces
}

// Get answers with the newest state.
func (c namespaceClient) Get(ctx context.Context, name string, _ metav1.GetOptions) (*corev1.Namespace, error) {
	obj, err := c.namespaces.store.Get(ctx, api.Ref{Resource: c.namespaces.row, Name: name}, "")
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Namespace), nil
}
