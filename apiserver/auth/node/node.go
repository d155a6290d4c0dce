// Package node authorizes the agents of nodes: a node may read what its own
// pods refer to, its own Node and Lease, its pods, and what every node needs,
// and nothing else. NodeRestriction admission narrows what it may write.
//
// The rules are those of Kubernetes' Node authorizer. There is no graph to keep
// up to date: a node has at most a few hundred pods, which the store's view
// finds by node, and asking them what they refer to takes microseconds.
package node

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/podrefs"
	"hansa.dev/hansa/apiserver/auth/rbac"
)

// namePrefix begins the user name of every node.
const namePrefix = "system:node:"

// Identity says which node a user is. name is empty when it is a node that
// does not say which.
func Identity(u user.Info) (name string, isNode bool) {
	if u == nil {
		return "", false
	}
	name, isNode = strings.CutPrefix(u.GetName(), namePrefix)
	if !isNode || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return name, true
}

// View is what the authorizer needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object]
}

// Authorizer authorizes nodes; of anybody else it has no opinion. It is safe
// for use by any goroutine.
type Authorizer struct {
	view                                             View
	pods, volumes, attachments, slices, certificates *api.Resource
	rules                                            *rbac.Rules
}

// New is an authorizer by what the view shows. rules are those of the cluster
// role system:node, which apply to resources that are not divided by node.
func New(reg *api.Registry, view View, rules []rbacv1.PolicyRule) *Authorizer {
	return &Authorizer{
		view: view, rules: rbac.Compile(rules), pods: reg.Must("", "pods"),
		volumes: reg.Must("", "persistentvolumes"), attachments: reg.Must("storage.k8s.io", "volumeattachments"),
		slices: reg.Must("resource.k8s.io", "resourceslices"), certificates: reg.Must("certificates.k8s.io", "podcertificaterequests"),
	}
}

// Authorize implements authorizer.UnconditionalAuthorizer.
func (z *Authorizer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	node, isNode := Identity(a.GetUser())
	if !isNode {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if node == "" {
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", a.GetUser().GetName()), nil
	}
	allowed, reason := z.decide(node, a)
	if allowed {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// RulesFor says of nodes that their rules cannot be listed.
func (z *Authorizer) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, isNode := Identity(u); isNode {
		return nil, nil, true, fmt.Errorf("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}

func (z *Authorizer) decide(node string, a authorizer.Attributes) (allowed bool, reason string) {
	if a.IsResourceRequest() {
		switch (schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}) {
		case schema.GroupResource{Resource: "secrets"}:
			return z.readReferenced(node, a, podrefs.Secrets)
		case schema.GroupResource{Resource: "configmaps"}:
			return z.readReferenced(node, a, podrefs.ConfigMaps)
		case schema.GroupResource{Resource: "persistentvolumeclaims"}:
			return z.claim(node, a)
		case schema.GroupResource{Resource: "serviceaccounts"}:
			return z.serviceAccount(node, a)
		case schema.GroupResource{Resource: "nodes"}:
			return nodes(node, a)
		case schema.GroupResource{Resource: "pods"}:
			return z.podRequest(node, a)
		case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
			return lease(node, a)
		case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
			return csiNode(node, a)
		case schema.GroupResource{Resource: "persistentvolumes"}:
			return z.volume(node, a)
		case schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"}:
			return z.attachment(node, a)
		case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
			return z.resourceClaim(node, a)
		case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
			return z.slice(node, a)
		case schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
			return z.podCertificate(node, a)
		}
	}
	return z.rules.Allow(a), ""
}

// readReferenced allows reading one object by name that a pod of the node
// refers to.
func (z *Authorizer) readReferenced(node string, a authorizer.Attributes, names func(*corev1.Pod) iter.Seq[string]) (bool, string) {
	switch {
	case !slices.Contains([]string{"get", "list", "watch"}, a.GetVerb()):
		return false, "can only read resources of this type"
	case a.GetSubresource() != "":
		return false, "cannot read subresource"
	case a.GetNamespace() == "":
		return false, "can only read namespaced object of this type"
	case a.GetName() == "":
		return false, "No Object name found"
	}
	return z.related(node, a.GetNamespace(), a.GetName(), names)
}

func (z *Authorizer) claim(node string, a authorizer.Attributes) (bool, string) {
	switch {
	case a.GetSubresource() == "status" && a.GetVerb() != "update" && a.GetVerb() != "patch":
		return false, "can only get/update/patch this type"
	case a.GetSubresource() == "status":
	case a.GetVerb() != "get":
		return false, "can only get individual resources of this type"
	case a.GetSubresource() != "":
		return false, "cannot get subresource"
	}
	if a.GetName() == "" {
		return false, "No Object name found"
	}
	return z.related(node, a.GetNamespace(), a.GetName(), podrefs.Claims)
}

// serviceAccount allows getting the accounts of the node's pods and asking for
// tokens of them.
func (z *Authorizer) serviceAccount(node string, a authorizer.Attributes) (bool, string) {
	switch {
	case a.GetVerb() == "get" && a.GetSubresource() == "" && a.GetName() != "":
	case a.GetVerb() != "create" || a.GetName() == "":
		return false, "can only create tokens for individual service accounts"
	case a.GetSubresource() != "token":
		return false, "can only create token subresource of serviceaccount"
	}
	return z.related(node, a.GetNamespace(), a.GetName(), func(pod *corev1.Pod) iter.Seq[string] {
		return slices.Values([]string{pod.Spec.ServiceAccountName})
	})
}

// related looks for a pod of the node that refers to the object. A mirror pod
// shows what the node itself decided to run and entitles it to nothing.
func (z *Authorizer) related(node, namespace, name string, names func(*corev1.Pod) iter.Seq[string]) (bool, string) {
	for obj := range z.view.ByIndex(z.pods, api.IndexNode, node) {
		pod := obj.(*corev1.Pod)
		if pod.Namespace != namespace {
			continue
		}
		if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
			continue
		}
		for referred := range names(pod) {
			if referred == name {
				return true, ""
			}
		}
	}
	return false, unrelated(node)
}

func unrelated(node string) string {
	return fmt.Sprintf("no relationship found between node '%s' and this object", node)
}

// nodes compares names and looks nothing up, so that a node can ask for its
// Node before there is one.
func nodes(node string, a authorizer.Attributes) (bool, string) {
	switch verb := a.GetVerb(); a.GetSubresource() {
	case "":
		switch verb {
		case "create", "update", "patch":
			return true, "" // its own alone: NodeRestriction
		case "get", "list", "watch":
			switch a.GetName() {
			case node:
				return true, ""
			case "":
				return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
			}
			return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, a.GetName())
		}
	case "status":
		return verb == "update" || verb == "patch", ""
	}
	return false, ""
}

func (z *Authorizer) podRequest(node string, a authorizer.Attributes) (bool, string) {
	verb := a.GetVerb()
	switch a.GetSubresource() {
	case "":
		switch verb {
		case "get":
			return z.ownPod(node, a)
		case "list", "watch":
			if selects(a, nodeField, node) {
				return true, ""
			}
			if a.GetName() != "" {
				return z.ownPod(node, a)
			}
			return false, "can only list/watch pods with spec.nodeName field selector"
		case "create", "delete":
			return true, "" // mirror pods, and its own: NodeRestriction
		}
	case "status":
		return verb == "update" || verb == "patch", ""
	case "eviction":
		return verb == "create", ""
	}
	return false, ""
}

func (z *Authorizer) ownPod(node string, a authorizer.Attributes) (bool, string) {
	if a.GetName() == "" {
		return false, "No Object name found"
	}
	pod, _ := z.view.Get(z.pods, api.Key{Namespace: a.GetNamespace(), Name: a.GetName()}).(*corev1.Pod)
	if pod == nil || pod.Spec.NodeName != node {
		return false, unrelated(node)
	}
	return true, ""
}

func lease(node string, a authorizer.Attributes) (bool, string) {
	switch verb := a.GetVerb(); {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, verb):
		return false, "can only get, create, update, patch, or delete a node lease"
	case a.GetNamespace() != corev1.NamespaceNodeLease:
		return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case verb != "create" && a.GetName() != node: // of a new one, NodeRestriction sees the name
		return false, "can only access node lease with the same name as the requesting node"
	}
	return true, ""
}

func csiNode(node string, a authorizer.Attributes) (bool, string) {
	switch verb := a.GetVerb(); {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, verb):
		return false, "can only get, create, update, patch, or delete a CSINode"
	case a.GetSubresource() != "":
		return false, "cannot authorize CSINode subresources"
	case verb != "create" && a.GetName() != node:
		return false, "can only access CSINode with the same name as the requesting node"
	}
	return true, ""
}
