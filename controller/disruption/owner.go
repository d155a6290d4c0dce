package disruption

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

// scaled is an owner of pods and how many it asks for; the zero value is none.
type scaled struct {
	uid      types.UID
	replicas int32
}

// scales says whether objects of a resource, in any version, have replicas.
func scales(r *api.Resource) bool {
	for _, row := range append([]*api.Resource{r}, r.Views...) {
		if row.Subresources["scale"] != nil {
			return true
		}
	}
	return false
}

// ownerOf is what asks for a pod's controller to have its pods: the Deployment of
// a replica set, and else the controller itself, whatever its kind, if it has the
// scale subresource.
func (l *Loop) ownerOf(p *corev1.Pod, ref *metav1.OwnerReference) (scaled, error) {
	if r := l.served(ref); r != nil && r.Resource == l.sets {
		set := l.client.View().Get(l.sets, api.Key{Namespace: p.Namespace, Name: ref.Name})
		if set != nil && set.GetUID() == ref.UID {
			of := metav1.GetControllerOfNoCopy(set)
			if d := l.served(of); d != nil && d.GVK().GroupKind() == (schema.GroupKind{Group: "apps", Kind: "Deployment"}) {
				if s, err := l.scaleOf(p.Namespace, of); err != nil || s.uid != "" {
					return s, err
				}
			}
		}
	}
	return l.scaleOf(p.Namespace, ref)
}

// served is the kind that a reference names, or nil.
func (l *Loop) served(ref *metav1.OwnerReference) *api.Served {
	if ref == nil {
		return nil
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil
	}
	return l.client.Registry().ByGVK(gv.WithKind(ref.Kind))
}

// scaleOf is what the object of a reference asks for; none if it is not there.
func (l *Loop) scaleOf(namespace string, ref *metav1.OwnerReference) (scaled, error) {
	r := l.served(ref)
	if r == nil {
		gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
		return scaled{}, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	sub := r.Subresources["scale"]
	if sub == nil {
		return scaled{}, fmt.Errorf("%s does not implement the scale subresource", r.GroupResource())
	}
	obj := l.client.View().Get(r.Resource, api.Key{Namespace: namespace, Name: ref.Name})
	if obj == nil || obj.GetUID() != ref.UID {
		return scaled{}, nil
	}
	body, err := sub.Get(obj)
	if err != nil {
		return scaled{}, err
	}
	scale, ok := body.(*autoscalingv1.Scale)
	if !ok {
		return scaled{}, fmt.Errorf("scale of %s %s/%s is a %T", r.GroupResource(), namespace, ref.Name, body)
	}
	return scaled{obj.GetUID(), scale.Spec.Replicas}, nil
}
