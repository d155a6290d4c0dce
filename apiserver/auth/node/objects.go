package node

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/podrefs"
)

// single answers for a request that may only get an object by its name: why
// not, or "".
func single(a authorizer.Attributes) string {
	switch {
	case a.GetVerb() != "get":
		return "can only get individual resources of this type"
	case a.GetSubresource() != "":
		return "cannot get subresource"
	case a.GetName() == "":
		return "No Object name found"
	}
	return ""
}

func (z *Authorizer) resourceClaim(node string, a authorizer.Attributes) (bool, string) {
	if why := single(a); why != "" {
		return false, why
	}
	return z.related(node, a.GetNamespace(), a.GetName(), podrefs.ResourceClaims)
}

// volume allows getting the volumes that are bound to claims of the node's pods.
func (z *Authorizer) volume(node string, a authorizer.Attributes) (bool, string) {
	if why := single(a); why != "" {
		return false, why
	}
	v, _ := z.view.Get(z.volumes, api.Key{Name: a.GetName()}).(*corev1.PersistentVolume)
	if v == nil || v.Spec.ClaimRef == nil {
		return false, unrelated(node)
	}
	return z.related(node, v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name, podrefs.Claims)
}

func (z *Authorizer) attachment(node string, a authorizer.Attributes) (bool, string) {
	if why := single(a); why != "" {
		return false, why
	}
	v, _ := z.view.Get(z.attachments, api.Key{Name: a.GetName()}).(*storagev1.VolumeAttachment)
	return own(node, v != nil && v.Spec.NodeName == node)
}

// slice allows what is about the node's own devices; NodeRestriction looks at
// those that come and go.
func (z *Authorizer) slice(node string, a authorizer.Attributes) (bool, string) {
	if a.GetSubresource() != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch a.GetVerb() {
	case "create":
		return true, ""
	case "get", "update", "patch", "delete":
		if a.GetName() == "" {
			return false, "No Object name found"
		}
		s, _ := z.view.Get(z.slices, api.Key{Name: a.GetName()}).(*resourcev1.ResourceSlice)
		return own(node, s != nil && ptr.Deref(s.Spec.NodeName, "") == node)
	case "list", "watch", "deletecollection":
		return selects(a, resourcev1.ResourceSliceSelectorNodeName, node), "can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func (z *Authorizer) podCertificate(node string, a authorizer.Attributes) (bool, string) {
	if a.GetSubresource() != "" {
		return false, "nodes may not access the status subresource of PodCertificateRequests"
	}
	switch verb := a.GetVerb(); verb {
	case "create":
		return true, "" // for its own pods: NodeRestriction
	case "get":
		if a.GetName() == "" {
			return false, "No Object name found"
		}
		r, _ := z.view.Get(z.certificates, api.Key{Namespace: a.GetNamespace(), Name: a.GetName()}).(*certificatesv1.PodCertificateRequest)
		return own(node, r != nil && string(r.Spec.NodeName) == node)
	case "list", "watch":
		return selects(a, nodeField, node), "can only list/watch podcertificaterequests with nodeName field selector"
	default:
		return false, fmt.Sprintf("nodes may not %s podcertificaterequests", verb)
	}
}

func own(node string, is bool) (bool, string) {
	if is {
		return true, ""
	}
	return false, unrelated(node)
}

// nodeField is the field that says where something is.
const nodeField = "spec.nodeName"

// selects says whether a list is narrowed to what has the node in a field.
func selects(a authorizer.Attributes, field, node string) bool {
	requirements, err := a.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range requirements {
		if r.Field == field && r.Operator == selection.Equals && r.Value == node {
			return true
		}
	}
	return false
}
