package webhook

import (
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	registrationinformers "k8s.io/client-go/informers/admissionregistration/v1"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	registrationlisters "k8s.io/client-go/listers/admissionregistration/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// factory is client-go's informer factory as far as the library's plugins use it:
// a list of configurations that stays as it is, and the namespaces there are. Of
// the rest nothing is there to be called.
type factory struct {
	informers.SharedInformerFactory // nil
	configurations                  cache.Indexer
	namespaces                      corelisters.NamespaceLister
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
	namespaces corelisters.NamespaceLister
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
