// Package noderestriction limits what the agent of a node may write to what is
// its own: its Node without the labels and taints that steer pods, its Lease,
// the status of its pods, mirror pods of itself, and tokens for its pods.
//
// It completes the Node authorizer, which does not see what is written.
package noderestriction

import (
	"context"
	"maps"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
	"hansa.dev/hansa/apiserver/auth/node"
	"hansa.dev/hansa/apiserver/auth/podrefs"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Plugin is a mutator by its place in the chain; it changes nothing.
type Plugin struct {
	view        View
	authorizer  authorizer.UnconditionalAuthorizer
	pods, nodes *api.Resource
}

// New is the plugin over a view. z decides whether a node may ask for tokens
// for an audience that its pod does not name.
func New(reg *api.Registry, view View, z authorizer.UnconditionalAuthorizer) *Plugin {
	return &Plugin{view: view, authorizer: z, pods: reg.Must("", "pods"), nodes: reg.Must("", "nodes")}
}

// Admit implements admission.Mutator.
func (p *Plugin) Admit(ctx context.Context, a *admission.Attributes) error {
	name, isNode := node.Identity(a.User)
	if !isNode || a.Operation == admission.Connect {
		return nil
	}
	if name == "" {
		return refusal.Forbidden(a, "could not determine node from user %q", a.User.GetName())
	}
	r := &request{Plugin: p, Attributes: a, node: name}
	switch a.Resource.GroupResource() {
	case schema.GroupResource{Resource: "pods"}:
		return r.pod()
	case schema.GroupResource{Resource: "nodes"}:
		return r.nodeObject()
	case schema.GroupResource{Resource: "serviceaccounts"}:
		return r.token(ctx)
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		return r.lease()
	}
	return nil
}

// request is one write of one node.
type request struct {
	*Plugin
	*admission.Attributes
	node string
}

func (r *request) forbidden(format string, args ...any) error {
	return refusal.Forbidden(r.Attributes, format, args...)
}

func (r *request) unexpected(obj any) error { return r.forbidden("unexpected type %T", obj) }

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

// nodeObject allows a node to write its own Node, but for what would let it
// draw pods to itself: taints and the labels that others rely on.
func (r *request) nodeObject() error {
	requested := r.Name
	obj, ok := r.Object.(*corev1.Node)
	if ok && requested == "" {
		requested = obj.Name
	}
	if requested != r.node {
		return r.forbidden("node %q is not allowed to modify node %q", r.node, requested)
	}
	if r.Operation == admission.Delete {
		return nil
	}
	if !ok {
		return r.unexpected(r.Object)
	}
	if r.Operation == admission.Create {
		if obj.Spec.ConfigSource != nil {
			return r.forbidden("node %q is not allowed to create pods with a non-nil configSource", r.node)
		}
		if labels := forbiddenLabels(obj.Labels, nil); labels != "" {
			return r.forbidden("node %q is not allowed to set the following labels: %s", r.node, labels)
		}
		return nil
	}
	old, ok := r.Old.(*corev1.Node)
	if !ok {
		return r.unexpected(r.Old)
	}
	if obj.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(obj.Spec.ConfigSource, old.Spec.ConfigSource) {
		return r.forbidden("node %q is not allowed to update configSource to a new non-nil configSource", r.node)
	}
	if !equality.Semantic.DeepEqual(obj.Spec.Taints, old.Spec.Taints) {
		return r.forbidden("node %q is not allowed to modify taints", r.node)
	}
	if labels := forbiddenLabels(obj.Labels, old.Labels); labels != "" {
		return r.forbidden("is not allowed to modify labels: %s", labels)
	}
	if !equality.Semantic.DeepEqual(obj.OwnerReferences, old.OwnerReferences) {
		return r.forbidden("node %q is not allowed to modify ownerReferences", r.node)
	}
	return nil
}

// forbiddenLabels lists the changed labels that a node may not change: those
// set aside for steering, and those of Kubernetes that agents do not set.
func forbiddenLabels(labels, old map[string]string) string {
	var forbidden []string
	consider := func(label string) {
		domain, _, ok := strings.Cut(label, "/")
		if !ok {
			return
		}
		kubernetes := within(domain, "kubernetes.io") || within(domain, "k8s.io")
		if within(domain, corev1.LabelNamespaceNodeRestriction) || kubernetes && !kubeletapis.IsKubeletLabel(label) {
			forbidden = append(forbidden, label)
		}
	}
	for label, value := range labels {
		if before, ok := old[label]; !ok || before != value {
			consider(label)
		}
	}
	for label := range old {
		if _, ok := labels[label]; !ok {
			consider(label)
		}
	}
	slices.Sort(forbidden)
	return strings.Join(forbidden, ", ")
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

func (r *request) lease() error {
	if r.Namespace != corev1.NamespaceNodeLease {
		return r.forbidden("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	name := r.Name
	if lease, ok := r.Object.(*coordinationv1.Lease); ok && r.Operation == admission.Create {
		name = lease.Name
	}
	if name != r.node {
		return r.forbidden("can only access node lease with the same name as the requesting node")
	}
	return nil
}

// token allows tokens that are bound to one of the node's pods, for an audience
// that a volume of the pod asks for.
func (r *request) token(ctx context.Context) error {
	if r.Operation != admission.Create || r.Subresource != "token" {
		return nil
	}
	req, ok := r.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return r.unexpected(r.Object)
	}
	bound := req.Spec.BoundObjectRef
	if bound == nil || bound.APIVersion != "v1" || bound.Kind != "Pod" || bound.Name == "" {
		return r.forbidden("node requested token not bound to a pod")
	}
	if bound.UID == "" {
		return r.forbidden("node requested token with a pod binding without a uid")
	}
	pod, _ := r.view.Get(r.pods, api.Key{Namespace: r.Namespace, Name: bound.Name}).(*corev1.Pod)
	switch {
	case pod == nil:
		return apierrors.NewNotFound(r.pods.GroupResource(), bound.Name)
	case bound.UID != pod.UID:
		return r.forbidden("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", bound.UID)
	case pod.Spec.NodeName != r.node:
		return r.forbidden("node requested token bound to a pod scheduled on a different node")
	case len(req.Spec.Audiences) > 1:
		return r.forbidden("node may only request 0 or 1 audiences")
	}
	audience := ""
	if len(req.Spec.Audiences) == 1 {
		audience = req.Spec.Audiences[0]
	}
	if mountsAudience(pod, audience) || r.mayAskFor(ctx, audience) {
		return nil
	}
	return r.forbidden("audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", audience, r.User.GetName())
}

func mountsAudience(pod *corev1.Pod, audience string) bool {
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.ServiceAccountToken != nil && source.ServiceAccountToken.Audience == audience {
				return true
			}
		}
	}
	return false
}

func (r *request) mayAskFor(ctx context.Context, audience string) bool {
	decision, _, _ := r.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User:            r.User,
		Verb:            "request-serviceaccounts-token-audience",
		Namespace:       r.Namespace,
		APIVersion:      "v1",
		Resource:        audience,
		Name:            r.Name,
		ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}
