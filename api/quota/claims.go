package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// ofClass stands between a storage class and what is limited of it.
const ofClass = ".storageclass.storage.k8s.io/"

func claimKind() *Kind {
	return &Kind{
		named: func(name corev1.ResourceName) bool {
			return name == corev1.ResourceRequestsStorage ||
				strings.HasSuffix(string(name), ofClass+string(corev1.ResourceRequestsStorage)) ||
				strings.HasSuffix(string(name), ofClass+string(corev1.ResourcePersistentVolumeClaims))
		},
		usage: func(obj api.Object, _ time.Time) corev1.ResourceList {
			return claimUsage(obj.(*corev1.PersistentVolumeClaim))
		},
		scope: func(obj api.Object, s corev1.ScopedResourceSelectorRequirement) bool {
			names := attributesClasses(obj.(*corev1.PersistentVolumeClaim))
			return s.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass && selects(s, sets.List(names)...)
		},
		charged: func(obj, old api.Object, subresource string) bool {
			return subresource == "" || subresource == "status" && claimChanged(obj, old)
		},
		freed: claimChanged,
	}
}

func claimUsage(c *corev1.PersistentVolumeClaim) corev1.ResourceList {
	usage := corev1.ResourceList{}
	size := claimSize(c)
	if size != nil {
		usage[corev1.ResourceRequestsStorage] = *size
	}
	class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]
	if !ok {
		class = ptr.Deref(c.Spec.StorageClassName, "")
	}
	if class != "" {
		usage[corev1.ResourceName(class+ofClass)+corev1.ResourcePersistentVolumeClaims] = one()
		if size != nil {
			usage[corev1.ResourceName(class+ofClass)+corev1.ResourceRequestsStorage] = *size
		}
	}
	return usage
}

// claimSize is what a claim asks for, or the more that a volume driver was asked
// for in its name, in whole bytes; nil if it asks for nothing.
func claimSize(c *corev1.PersistentVolumeClaim) *resource.Quantity {
	size, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return nil
	}
	if given, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && given.Cmp(size) > 0 {
		size = given
	}
	size = size.DeepCopy()
	size.RoundUp(0)
	return &size
}

func claimChanged(obj, old api.Object) bool {
	c, ok := obj.(*corev1.PersistentVolumeClaim)
	was, had := old.(*corev1.PersistentVolumeClaim)
	if !ok || !had {
		return false
	}
	return c.Status.AllocatedResources.Storage().Cmp(*was.Status.AllocatedResources.Storage()) != 0 ||
		!attributesClasses(c).Equal(attributesClasses(was))
}

// attributesClasses are those that a claim has, wants, or is on its way to.
func attributesClasses(c *corev1.PersistentVolumeClaim) sets.Set[string] {
	names := sets.New(ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, ""))
	if m := c.Status.ModifyVolumeStatus; m != nil {
		names.Insert(m.TargetVolumeAttributesClassName)
	}
	return names.Delete("")
}
