package noderestriction

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/internal/gonames"
)

// claim allows the status of a claim: what has become of its growth.
func (r *request) claim() error {
	if r.Subresource != "status" {
		return r.forbidden("may only update PVC status")
	}
	if r.Operation != admission.Update {
		return r.forbidden("unexpected operation %q", r.Operation)
	}
	old, ok := r.Old.(*corev1.PersistentVolumeClaim)
	if !ok {
		return r.unexpected(r.Old)
	}
	obj, ok := r.Object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return r.unexpected(r.Object)
	}
	was, is := old.DeepCopy(), obj.DeepCopy()
	for _, c := range []*corev1.PersistentVolumeClaim{was, is} {
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
	}
	if !equality.Semantic.DeepEqual(was, is) {
		return r.forbidden("node %q is not allowed to update fields other than status.quantity and status.conditions: %v", r.node, gonames.Diff(was, is))
	}
	return nil
}

func (r *request) csiNode() error {
	name := r.Name
	if obj, ok := r.Object.(*storagev1.CSINode); ok && r.Operation == admission.Create {
		name = obj.Name
	}
	if name != r.node {
		return r.forbidden("can only access CSINode with the same name as the requesting node")
	}
	return nil
}

// slice allows devices of the node itself. The authorizer has seen all that is
// not created and not deleted together with others.
func (r *request) slice() error {
	var obj *resourcev1.ResourceSlice
	verb := "create"
	ok := true
	switch r.Operation {
	case admission.Create:
		if obj, ok = r.Object.(*resourcev1.ResourceSlice); !ok {
			return r.unexpected(r.Object)
		}
	case admission.Delete:
		verb = "delete"
		if obj, ok = r.Old.(*resourcev1.ResourceSlice); !ok {
			return r.unexpected(r.Old)
		}
	default:
		return nil
	}
	if on := obj.Spec.NodeName; on == nil || *on != r.node {
		return r.forbidden("can only %s ResourceSlice with the same NodeName as the requesting node", verb)
	}
	return nil
}
