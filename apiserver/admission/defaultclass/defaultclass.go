// Package defaultclass gives claims and ingresses that name no class the default
// one: of the classes that are marked so the youngest. It also keeps claims from
// growing whose class does not let them. It is three plugins: DefaultStorageClass,
// DefaultIngressClass and PersistentVolumeClaimResize.
package defaultclass

import (
	"context"
	"iter"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Storage is the plugin DefaultStorageClass.
type Storage struct{ classes }

// Ingress is the plugin DefaultIngressClass.
type Ingress struct{ classes }

// Resize is the plugin PersistentVolumeClaimResize.
type Resize struct{ classes }

// classes are those of one kind of object.
type classes struct {
	view          View
	objects, kind *api.Resource
}

// Plugins are the three over a view, by their names.
func Plugins(reg *api.Registry, view View) map[string]any {
	storage := classes{view, reg.Must("", "persistentvolumeclaims"), reg.Must(storagev1.GroupName, "storageclasses")}
	ingress := classes{view, reg.Must(networkingv1.GroupName, "ingresses"), reg.Must(networkingv1.GroupName, "ingressclasses")}
	return map[string]any{
		"DefaultStorageClass":         Storage{storage},
		"DefaultIngressClass":         Ingress{ingress},
		"PersistentVolumeClaimResize": Resize{storage},
	}
}

// The annotations by which classes are marked and, of old, named.
const (
	defaultStorage     = "storageclass.kubernetes.io/is-default-class"
	defaultStorageBeta = "storageclass.beta.kubernetes.io/is-default-class"
	ingressClass       = "kubernetes.io/ingress.class"
)

// concerns says whether a write makes an object that may lack a class.
func (c classes) concerns(a *admission.Attributes) bool {
	return a.Resource == c.objects && a.Operation == admission.Create && a.Subresource == ""
}

// Admit implements admission.Mutator.
func (p Storage) Admit(_ context.Context, a *admission.Attributes) error {
	obj, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || !p.concerns(a) || obj.Spec.StorageClassName != nil {
		return nil
	}
	if _, named := obj.Annotations[corev1.BetaStorageClassAnnotation]; !named {
		obj.Spec.StorageClassName = p.youngest(defaultStorage, defaultStorageBeta)
	}
	return nil
}

// Admit implements admission.Mutator.
func (p Ingress) Admit(_ context.Context, a *admission.Attributes) error {
	obj, ok := a.Object.(*networkingv1.Ingress)
	if !ok || !p.concerns(a) || obj.Spec.IngressClassName != nil {
		return nil
	}
	if _, named := obj.Annotations[ingressClass]; !named {
		obj.Spec.IngressClassName = p.youngest(networkingv1.AnnotationIsDefaultIngressClass)
	}
	return nil
}

// youngest is the name of the class marked by one of the annotations, or nil.
func (c classes) youngest(marks ...string) *string {
	var chosen api.Object
	for class := range c.view.List(c.kind, "") {
		marked := false
		for _, mark := range marks {
			marked = marked || class.GetAnnotations()[mark] == "true"
		}
		if !marked {
			continue
		}
		if chosen != nil {
			a, b := class.GetCreationTimestamp(), chosen.GetCreationTimestamp()
			if a.Before(&b) || a.Equal(&b) && class.GetName() > chosen.GetName() {
				continue
			}
		}
		chosen = class
	}
	if chosen == nil {
		return nil
	}
	return ptr.To(chosen.GetName())
}

// Validate implements admission.Validator.
func (p Resize) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.objects || a.Operation != admission.Update || a.Subresource != "" {
		return nil
	}
	obj, ok := a.Object.(*corev1.PersistentVolumeClaim)
	old, was := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !was || obj.Spec.Resources.Requests.Storage().Cmp(*old.Spec.Resources.Requests.Storage()) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return refusal.Forbidden(a, "Only bound persistent volume claims can be expanded")
	}
	if name := classOf(obj); name != "" && name == classOf(old) {
		class, _ := p.view.Get(p.kind, api.Key{Name: name}).(*storagev1.StorageClass)
		if class != nil && ptr.Deref(class.AllowVolumeExpansion, false) {
			return nil
		}
	}
	return refusal.Forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

func classOf(c *corev1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(c.Spec.StorageClassName, "")
}
