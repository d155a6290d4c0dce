package webhook

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	registrationinformers "k8s.io/client-go/informers/admissionregistration/v1"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	registrationlisters "k8s.io/client-go/listers/admissionregistration/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
)

// factory is client-go's informer factory as far as the library's plugins use it:
// a list of configurations that stays as it is, and the namespaces there are. Of
// the rest nothing is there to be called.
type factory struct {
	informers.SharedInformerFactory // nil
	configurations                  cache.Indexer
	namespaces                      *namespaces
}

func newFactory() *factory {
	return &factory{configurations: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})}
}

func (f *factory) Core() core.Interface { return coreGroup{f: f} }

func (f *factory) Admissionregistration() admissionregistration.Interface {
	return registrationGroup{f: f}
}

type coreGroup struct {
	core.Interface
	f *factory
}

func (g coreGroup) V1() coreinformers.Interface { return coreVersion{f: g.f} }

type coreVersion struct {
	coreinformers.Interface
	f *factory
}

func (v coreVersion) Namespaces() coreinformers.TypedNamespaceInformer {
	return namespaceInformer{namespaces: v.f.namespaces}
}

type namespaceInformer struct {
	coreinformers.TypedNamespaceInformer
	namespaces *namespaces
}

func (i namespaceInformer) Informer() cache.SharedIndexInformer { return settled{} }
func (i namespaceInformer) Lister() corelisters.NamespaceLister { return i.namespaces }

type registrationGroup struct {
	admissionregistration.Interface
	f *factory
}

func (g registrationGroup) V1() registrationinformers.Interface { return registrationVersion{f: g.f} }

type registrationVersion struct {
	registrationinformers.Interface
	f *factory
}

func (v registrationVersion) MutatingWebhookConfigurations() registrationinformers.TypedMutatingWebhookConfigurationInformer {
	return mutatingInformer{f: v.f}
}

func (v registrationVersion) ValidatingWebhookConfigurations() registrationinformers.TypedValidatingWebhookConfigurationInformer {
	return validatingInformer{f: v.f}
}

type mutatingInformer struct {
	registrationinformers.TypedMutatingWebhookConfigurationInformer
	f *factory
}

func (i mutatingInformer) Informer() cache.SharedIndexInformer { return settled{} }
func (i mutatingInformer) Lister() registrationlisters.MutatingWebhookConfigurationLister {
	return registrationlisters.NewMutatingWebhookConfigurationLister(i.f.configurations)
}

type validatingInformer struct {
	registrationinformers.TypedValidatingWebhookConfigurationInformer
	f *factory
}

func (i validatingInformer) Informer() cache.SharedIndexInformer { return settled{} }
func (i validatingInformer) Lister() registrationlisters.ValidatingWebhookConfigurationLister {
	return registrationlisters.NewValidatingWebhookConfigurationLister(i.f.configurations)
}

// settled is an informer of what has nothing to tell: it has synced.
type settled struct{ cache.SharedIndexInformer }

func (settled) HasSynced() bool { return true }

func (settled) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return registered{}, nil
}

type registered struct {
	cache.ResourceEventHandlerRegistration
}

func (registered) HasSynced() bool { return true }

// namespaces lists those of the view.
type namespaces struct {
	corelisters.NamespaceListerExpansion
	view  View
	store Store
	row   *api.Resource
}

var _ corelisters.NamespaceLister = (*namespaces)(nil)

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

// clients is client-go's client as far as the library uses it: it asks for the
// newest state of a namespace that the view does not have.
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
