// Package noderestriction limits what the agent of a node may write to what is
// its own: its Node without the labels and taints that steer pods, its Lease,
// the status of its pods, mirror pods of itself, tokens and certificates for its
// pods, its CSINode and the devices that it has.
//
// It completes the Node authorizer, which does not see what is written.
package noderestriction

import (
	"context"
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

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
	"hansa.dev/hansa/apiserver/auth/node"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Plugin is a mutator by its place in the chain; it changes nothing.
type Plugin struct {
	view                  View
	authorizer            authorizer.UnconditionalAuthorizer
	pods, nodes, accounts *api.Resource
}

// New is the plugin over a view. z decides whether a node may ask for tokens
// for an audience that its pod does not name.
func New(reg *api.Registry, view View, z authorizer.UnconditionalAuthorizer) *Plugin {
	return &Plugin{view: view, authorizer: z, pods: reg.Must("", "pods"), nodes: reg.Must("", "nodes"), accounts: reg.Must("", "serviceaccounts")}
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
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		return r.claim()
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
		return r.csiNode()
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return r.slice()
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}:
		return r.signing()
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
		return r.podCertificate(ctx)
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
