package request

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// wipeSystemFields takes away what only the server says of a new object.
func wipeSystemFields(obj metav1.Object) {
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetUID("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

// fillSystemFields gives a new object its identity.
func (h *Handler) fillSystemFields(obj metav1.Object) {
	obj.SetCreationTimestamp(h.now())
	obj.SetUID(h.NewUID())
}

// now has the resolution of the wire: whole seconds.
func (h *Handler) now() metav1.Time {
	return metav1.NewTime(h.Clock.Now().Truncate(time.Second))
}

// Generated names are at most 63 characters long, of which the last five are
// random.
const (
	suffixLength = 5
	maxBase      = 63 - suffixLength
)

func (h *Handler) generateName(base string) string {
	if len(base) > maxBase {
		base = base[:maxBase]
	}
	return base + h.Suffix(suffixLength)
}

// settleNamespace gives the object the request's namespace, or refuses it when
// it says another.
func settleNamespace(obj metav1.Object, namespace string) error {
	switch obj.GetNamespace() {
	case namespace:
		return nil
	case "":
		obj.SetNamespace(namespace)
		return nil
	}
	if namespace == "" {
		obj.SetNamespace("")
		return nil
	}
	return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
}

// checkName holds the body of an update to the name in its URL.
func checkName(obj metav1.Object, info *Info) error {
	if obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", info.Name))
	}
	if obj.GetName() != info.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), info.Name))
	}
	return nil
}

// checkPathName refuses names that no object can have.
func checkPathName(name string) error {
	if msgs := content.IsPathSegmentName(name); len(msgs) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Name parameter invalid: %q: %s", name, strings.Join(msgs, ";")))
	}
	return nil
}

const (
	duplicateOwners               = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
	duplicateOwnersAfterAdmission = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
)

// dedupOwners drops repeated owner references and says so in format.
func dedupOwners(obj metav1.Object, format string, warn func(string)) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	var kept []metav1.OwnerReference
	var repeated []string
	seen := make(map[types.UID]bool, len(refs))
	for _, ref := range refs {
		if seen[ref.UID] && hasOwner(kept, ref) {
			repeated = append(repeated, string(ref.UID))
			continue
		}
		seen[ref.UID] = true
		kept = append(kept, ref)
	}
	if len(repeated) > 0 {
		warn(fmt.Sprintf(format, strings.Join(repeated, ", ")))
		obj.SetOwnerReferences(kept)
	}
}

func hasOwner(refs []metav1.OwnerReference, ref metav1.OwnerReference) bool {
	for _, r := range refs {
		if equality.Semantic.DeepEqual(r, ref) {
			return true
		}
	}
	return false
}

func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

var metadataPath = field.NewPath("metadata")

func nameRule(r *api.Resource) apivalidation.ValidateNameFunc {
	rule := r.NameRule
	if rule == nil {
		rule = apivalidation.NameIsDNSSubdomain
	}
	if !r.AnyBase {
		return rule
	}
	return func(name string, prefix bool) []string {
		if prefix {
			return nil
		}
		return rule(name, prefix)
	}
}

// checkNew is everything that a new object is checked for and warned about. What a
// kind's own rules let pass, its name as a part of a path among them, is checked last.
func checkNew(r *api.Served, obj api.Object) (warnings []string, errs field.ErrorList) {
	if !r.LateMeta {
		errs = apivalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, nameRule(r.Resource), metadataPath)
		errs = append(errs, finalizerDomains(r.Resource, obj)...)
		for _, err := range errs {
			if r.AnyBase && err.Field == "metadata.name" {
				err.MarkBeta()
			}
		}
	}
	warnings, flaws := r.Check(obj)
	errs = append(errs, flaws...)
	if r.Version.Validate != nil {
		errs = append(errs, r.Version.Validate(obj)...)
	}
	if len(errs) == 0 {
		errs = apivalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, pathSegment, metadataPath)
	}
	return warnings, errs
}

// validateChange is everything that a changed object is checked for; validate
// is the row's or the subresource's part, and base says whether a generateName is
// checked.
func validateChange(r *api.Resource, obj, old api.Object, base bool, validate func(obj, old api.Object) field.ErrorList) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, pathSegment, metadataPath)
	errs = append(errs, apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, metadataPath)...)
	errs = append(errs, finalizerDomains(r, obj)...)
	if name := obj.GetGenerateName(); base && name != "" {
		for _, why := range nameRule(r)(name, true) {
			errs = append(errs, field.Invalid(metadataPath.Child("generateName"), name, why))
		}
	}
	if validate != nil {
		errs = append(errs, validate(obj, old)...)
	}
	return errs
}

func finalizerDomains(r *api.Resource, obj metav1.Object) field.ErrorList {
	if r.AnyFinalizer {
		return nil
	}
	return api.ValidateFinalizerDomains(obj.GetFinalizers(), metadataPath.Child("finalizers").Index)
}

// keepSystemFields carries over what an update may neither set nor remove.
func keepSystemFields(obj, old metav1.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if created := old.GetCreationTimestamp(); !created.IsZero() {
		obj.SetCreationTimestamp(created)
	}
	if deleted := old.GetDeletionTimestamp(); !deleted.IsZero() {
		obj.SetDeletionTimestamp(deleted)
	}
	if grace := old.GetDeletionGracePeriodSeconds(); grace != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(grace)
	}
}
