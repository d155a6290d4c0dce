package noderestriction

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/auth/podrefs"
)

func (r *request) pod() error {
	switch r.Subresource {
	case "":
		switch r.Operation {
		case admission.Create:
			return r.createPod()
		case admission.Delete:
			if old, ok := r.Old.(*corev1.Pod); !ok || old.Spec.NodeName != r.node {
				return r.forbidden("node %q can only delete pods with spec.nodeName set to itself", r.node)
			}
			return nil
		}
		return r.forbidden("unexpected operation %q, node %q can only create and delete mirror pods", r.Operation, r.node)
	case "status":
		return r.podStatus()
	case "eviction":
		return r.evict()
	}
	return r.forbidden("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", r.Subresource)
}

// createPod allows a mirror pod that the node owns and that refers to nothing
// in the cluster.
func (r *request) createPod() error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok {
		return r.unexpected(r.Object)
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return r.forbidden("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, r.node)
	}
	if pod.Spec.NodeName != r.node {
		return r.forbidden("node %q can only create pods with spec.nodeName set to itself", r.node)
	}
	if err := r.ownedBySelf(pod); err != nil {
		return err
	}
	if pod.Spec.ServiceAccountName != "" {
		return r.forbidden("node %q can not create pods that reference a service account", r.node)
	}
	for range podrefs.Secrets(pod) {
		return r.forbidden("node %q can not create pods that reference secrets", r.node)
	}
	for range podrefs.ConfigMaps(pod) {
		return r.forbidden("node %q can not create pods that reference configmaps", r.node)
	}
	for range podrefs.Claims(pod) {
		return r.forbidden("node %q can not create pods that reference persistentvolumeclaims", r.node)
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return r.forbidden("node %q can not create pods that reference resourceclaims", r.node)
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.ClusterTrustBundle != nil {
				return r.forbidden("node %q can not create pods that reference clustertrustbundles", r.node)
			}
		}
	}
	return nil
}

func (r *request) ownedBySelf(pod *corev1.Pod) error {
	if len(pod.OwnerReferences) > 1 {
		return r.forbidden("node %q can only create pods with a single owner reference set to itself", r.node)
	}
	if len(pod.OwnerReferences) == 0 {
		return r.forbidden("node %q can only create pods with an owner reference set to itself", r.node)
	}
	owner := pod.OwnerReferences[0]
	if owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != r.node {
		return r.forbidden("node %q can only create pods with an owner reference set to itself", r.node)
	}
	if !ptr.Deref(owner.Controller, false) {
		return r.forbidden("node %q can only create pods with a controller owner reference set to itself", r.node)
	}
	if ptr.Deref(owner.BlockOwnerDeletion, false) {
		return r.forbidden("node %q must not set blockOwnerDeletion on an owner reference", r.node)
	}
	self := r.view.Get(r.nodes, api.Key{Name: r.node})
	if self == nil {
		return apierrors.NewNotFound(r.nodes.GroupResource(), r.node)
	}
	if owner.UID != self.GetUID() {
		return r.forbidden("node %s UID mismatch: expected %s got %s", r.node, owner.UID, self.GetUID())
	}
	return nil
}

func (r *request) podStatus() error {
	if r.Operation != admission.Update {
		return r.forbidden("unexpected operation %q", r.Operation)
	}
	pod, ok := r.Object.(*corev1.Pod)
	old, oldOK := r.Old.(*corev1.Pod)
	switch {
	case !ok:
		return r.unexpected(r.Object)
	case !oldOK:
		return r.unexpected(r.Old)
	case old.Spec.NodeName != r.node:
		return r.forbidden("node %q can only update pod status for pods with spec.nodeName set to itself", r.node)
	case !maps.Equal(old.Labels, pod.Labels):
		return r.forbidden("node %q cannot update labels through pod status", r.node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return r.forbidden("node %q cannot update resource claim statues", r.node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return r.forbidden("node %q cannot update extended resource claim statues", r.node)
	}
	return nil
}

func (r *request) evict() error {
	if r.Operation != admission.Create {
		return r.forbidden("unexpected operation %s", r.Operation)
	}
	pod, _ := r.view.Get(r.pods, api.Key{Namespace: r.Namespace, Name: r.Name}).(*corev1.Pod)
	if pod == nil {
		return apierrors.NewNotFound(r.pods.GroupResource(), r.Name)
	}
	if pod.Spec.NodeName != r.node {
		return r.forbidden("node %s can only evict pods with spec.nodeName set to itself", r.node)
	}
	return nil
}
