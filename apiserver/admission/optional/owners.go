package optional

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// OwnerReferencesPermissionEnforcement lets nobody have objects collected that
// they may not delete, or hold back the deletion of owners that they may not.
type OwnerReferencesPermissionEnforcement struct {
	registry   *api.Registry
	authorizer authorizer.UnconditionalAuthorizer
}

// Validate implements admission.Validator.
func (x OwnerReferencesPermissionEnforcement) Validate(ctx context.Context, a *admission.Attributes) error {
	obj, ok := a.Object.(metav1.Object)
	if !ok || a.Operation != admission.Create && a.Operation != admission.Update || a.Resource.Plural == "pods" && a.Subresource == "status" {
		return nil
	}
	var old []metav1.OwnerReference
	if a.Old != nil {
		old = a.Old.GetOwnerReferences()
	}
	owners := obj.GetOwnerReferences()
	if len(owners) == len(old) && (len(owners) == 0 || equality.Semantic.DeepEqual(owners, old)) {
		return nil
	}
	may := authorizer.AttributesRecord{User: a.User, ResourceRequest: true}
	if a.Operation == admission.Update {
		may.Verb, may.Namespace, may.Name = "delete", a.Namespace, a.Name
		may.APIGroup, may.APIVersion, may.Resource, may.Subresource = a.Resource.Group, a.Resource.Storage.Version, a.Resource.Plural, a.Subresource
		if decision, reason, err := x.authorizer.Authorize(ctx, may); decision != authorizer.DecisionAllow {
			return refusal.Forbidden(a, "cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err)
		}
	}
	blocking := newBlocking(owners, old)
	if len(blocking) == 0 {
		return nil
	}
	any := authorizer.AttributesRecord{User: a.User, Verb: "update", APIGroup: "*", APIVersion: "*", Resource: "*", Subresource: "finalizers", Name: "*", ResourceRequest: true}
	if decision, _, _ := x.authorizer.Authorize(ctx, any); decision == authorizer.DecisionAllow {
		return nil
	}
	for _, owner := range blocking {
		if err := x.finalizes(ctx, a, owner); err != nil {
			return err
		}
	}
	return nil
}

// newBlocking are the owners whose deletion waits for the object, and did not
// before.
func newBlocking(owners, old []metav1.OwnerReference) []metav1.OwnerReference {
	var blocking []metav1.OwnerReference
	for _, owner := range owners {
		was := slices.ContainsFunc(old, func(o metav1.OwnerReference) bool {
			return o.UID == owner.UID && ptr.Deref(o.BlockOwnerDeletion, false)
		})
		if ptr.Deref(owner.BlockOwnerDeletion, false) && !was {
			blocking = append(blocking, owner)
		}
	}
	return blocking
}

// finalizes refuses who may not set finalizers on an owner.
func (x OwnerReferencesPermissionEnforcement) finalizes(ctx context.Context, a *admission.Attributes, owner metav1.OwnerReference) error {
	const unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %v"
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return refusal.Forbidden(a, unknown, owner.APIVersion, owner.Kind, err)
	}
	gvk := gv.WithKind(owner.Kind)
	served := x.registry.ByGVK(gvk)
	if served == nil {
		return refusal.Forbidden(a, unknown, owner.APIVersion, owner.Kind, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}})
	}
	may := authorizer.AttributesRecord{
		User: a.User, Verb: "update", APIGroup: gv.Group, APIVersion: gv.Version, Resource: served.Plural,
		Subresource: "finalizers", Name: owner.Name, ResourceRequest: true,
	}
	if served.Namespaced {
		may.Namespace = a.Namespace
	}
	if decision, reason, err := x.authorizer.Authorize(ctx, may); decision != authorizer.DecisionAllow {
		return refusal.Forbidden(a, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", reason, err)
	}
	return nil
}
